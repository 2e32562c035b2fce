"""The engine's count of an answer's tokens, read from the end of the response as it passes.

Engines tell it last: in a stream's last event (where the client asked for it), behind the text of a JSON answer. Inside
a JSON text a quote is escaped, so what a model writes can't look like it.
"""

import re

TAIL_BYTES = 2048
MAX_TOKENS = 1 << 18
_COUNT = re.compile(rb'"(?:completion_tokens|output_tokens)"\s*:\s*(\d{1,8})\b')


class Tail:
    """The last bytes of one response."""

    def __init__(self) -> None:
        self._bytes = b""

    def feed(self, data: bytes) -> None:
        """A part of it passed."""
        self._bytes = (self._bytes + data)[-TAIL_BYTES:] if len(data) < TAIL_BYTES else data[-TAIL_BYTES:]

    def output_tokens(self) -> int | None:
        """What the engine told; None where it told nothing that can be read, such as in a compressed answer."""
        counts = _COUNT.findall(self._bytes)
        return min(int(counts[-1]), MAX_TOKENS) if counts else None
