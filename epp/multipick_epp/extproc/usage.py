"""The engine's count of a request's tokens, read from the end of the response as it passes.

Engines tell it last: in a stream's last event (where the client asked for it), behind the text of a JSON answer. Inside
a JSON text a quote is escaped, so what a model writes can't look like it.
"""

import re
from typing import NamedTuple

TAIL_BYTES = 2048
MAX_TOKENS = 1 << 18
_OUTPUT = re.compile(rb'"(?:completion_tokens|output_tokens)"\s*:\s*(\d{1,8})\b')
_PROMPT = re.compile(rb'"(?:prompt_tokens|input_tokens)"\s*:\s*(\d{1,8})\b')
_CACHED = re.compile(rb'"cached_tokens"\s*:\s*(\d{1,8})\b')


class Usage(NamedTuple):
    """What the engine told of one request, in tokens; None: nothing that can be read."""

    output: int | None = None  # at most MAX_TOKENS
    prompt: int | None = None
    cached: int | None = None  # of the prompt, that it found in its cache


class Tail:
    """The last bytes of one response."""

    def __init__(self) -> None:
        self._bytes = b""

    def feed(self, data: bytes) -> None:
        """A part of it passed."""
        self._bytes = (self._bytes + data)[-TAIL_BYTES:] if len(data) < TAIL_BYTES else data[-TAIL_BYTES:]

    def usage(self) -> Usage | None:
        """What the engine told; None where it told nothing that can be read, such as in a compressed answer."""
        output, prompt, cached = map(self._last, (_OUTPUT, _PROMPT, _CACHED))
        if output is prompt is cached is None:
            return None
        return Usage(None if output is None else min(output, MAX_TOKENS), prompt, cached)

    def _last(self, count: re.Pattern[bytes]) -> int | None:
        found = count.findall(self._bytes)
        return int(found[-1]) if found else None
