"""One streamed answer: the client's side of server-sent events, without I/O.

The client shares two cores with all that it measures, so nothing is parsed while tokens arrive: until the first token
each chunk is searched for it, and the rest is read once, at the end.
"""

import json
import re
from dataclasses import dataclass

MAX_ANSWER_BYTES = 64 * 1024 * 1024

# The value of a delta's text: `content` in chats, `text` in completions. One character past the quote tells a token
# from the empty string that opens a chat; the first form needs no end, so that a token split over chunks counts.
_FIRST_TOKEN = re.compile(rb'"(?:content|text)": ?"[^"]')
_PIECES = re.compile(rb'"(?:content|text)": ?"((?:[^"\\]|\\.)*)"')
_FINISH = re.compile(rb'"finish_reason": ?"([^"]*)"')
_USAGE = re.compile(rb'"usage": ?\{')
_DONE = b"data: [DONE]"


class AnswerError(Exception):
    """The stream isn't a whole answer; the message says why."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What the engine counted for one request."""

    prompt_tokens: int
    output_tokens: int
    cached_tokens: int | None  # None: the engine doesn't report it


class Answer:
    """Collects the chunks of one answer, however they are cut."""

    def __init__(self) -> None:
        self.first_token_at: float | None = None
        self._data = bytearray()
        self._searched = 0  # the start of an event; no first token before it

    def feed(self, chunk: bytes, now: float) -> None:
        """Take the next bytes, received at `now`. Raises AnswerError past MAX_ANSWER_BYTES."""
        data = self._data
        data += chunk
        if self.first_token_at is None:
            if _FIRST_TOKEN.search(data, self._searched):
                self.first_token_at = now
            self._searched = max(self._searched, data.rfind(b"\n\n"))
        if len(data) > MAX_ANSWER_BYTES:
            raise AnswerError(f"the answer is longer than {MAX_ANSWER_BYTES} bytes")

    def finish(self) -> Usage:
        """What the engine counted, once the stream is over. Raises AnswerError where it isn't whole."""
        data = self._data
        if not data.rstrip().endswith(_DONE):
            raise AnswerError("the stream was cut")
        if b"abort" in _FINISH.findall(data):
            raise AnswerError("the engine aborted the request")
        usages = [match.end() - 1 for match in _USAGE.finditer(data)]
        if not usages:
            raise AnswerError("the stream has no usage")
        return _usage(data[usages[-1] :].decode(errors="replace"))

    def text_json(self) -> bytes:
        """The answer's text, all deltas joined, as a JSON string."""
        return b'"' + b"".join(_PIECES.findall(self._data)) + b'"'


def _usage(text: str) -> Usage:
    """Read the JSON object that `text` begins with."""
    try:
        usage, _ = json.JSONDecoder().raw_decode(text)
        cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")
        return Usage(
            prompt_tokens=int(usage["prompt_tokens"]),
            output_tokens=int(usage["completion_tokens"]),
            cached_tokens=None if cached is None else int(cached),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise AnswerError(f"unreadable usage: {error!r}") from error
