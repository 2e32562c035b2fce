"""A Mooncake-format trace -> a plan: one single-turn session a line.

A line is one JSON object: `timestamp` (ms), `input_length` and `output_length` (tokens), `hash_ids` (one id for each
512 prompt tokens; two prompts with equal leading ids share those tokens). The trace has no text, so each id becomes a
fixed text, and each text a chat message of its own: 512 tokens with the template's five around it. One string in
`/v1/completions` would hold the same tokens, but every tokeniser on the way would have to read all of it again; split
by messages, each id is tokenised once and remembered (the segment caches of the picker and the pods), as it is in
the chats that the trace was taken from. The last message is cut so that the whole prompt has `input_length` tokens.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from multipick_sim.traffic.plan import ANSWER_OPENING_TOKENS, MESSAGE_OVERHEAD_TOKENS, Message, Session, Turn

BLOCK_TOKENS = 512
MAX_PROMPT_TOKENS = 1 << 20
MAX_OUTPUT_TOKENS = 1 << 17
MAX_LINE_BYTES = 1 << 18  # 2,048 ids of 19 digits are 43 KB
MAX_TIMESTAMP_MS = 1 << 42  # milliseconds since 1970 fit as well

_SEED_OF_IDS = 0x4D6F6F6E << 64  # keeps the texts of ids apart from those of the built-in chats


class TraceError(Exception):
    """The trace can't be read; the message names file and line."""


class _Line(Struct, frozen=True):
    """One request of the trace; fields we don't know are ignored."""

    timestamp: Annotated[float, Meta(ge=0, le=MAX_TIMESTAMP_MS)]
    input_length: Annotated[int, Meta(ge=1, le=MAX_PROMPT_TOKENS)]
    output_length: Annotated[int, Meta(ge=1, le=MAX_OUTPUT_TOKENS)]
    hash_ids: Annotated[tuple[Annotated[int, Meta(ge=0)], ...], Meta(max_length=MAX_PROMPT_TOKENS // BLOCK_TOKENS)]


def read_trace(path: Path, requests: int | None = None) -> tuple[Session, ...]:
    """The first `requests` requests of the file (all for None), by time; the first of them comes at 0.

    Raises TraceError for a file that can't be read, a line that is no request, and a file without any.
    """
    lines = sorted(_lines(path, requests), key=lambda line: line.timestamp)
    if not lines:
        raise TraceError(f"{path}: no requests in it")
    begin = lines[0].timestamp
    return tuple(_session(line, begin) for line in lines)


def _lines(path: Path, requests: int | None) -> Iterator[_Line]:
    decoder = msgspec.json.Decoder(_Line)
    taken = number = 0
    try:
        with path.open("rb") as file:
            while (requests is None or taken < requests) and (raw := file.readline(MAX_LINE_BYTES + 1)):
                number += 1
                if len(raw) > MAX_LINE_BYTES:
                    raise TraceError(f"{path}, line {number}: longer than {MAX_LINE_BYTES} bytes")
                if not raw.strip():
                    continue
                line = decoder.decode(raw)
                _check_ids(line)
                taken += 1
                yield line
    except OSError as error:
        raise TraceError(f"{path}: {error.strerror}") from error
    except (ValueError, msgspec.MsgspecError) as error:
        raise TraceError(f"{path}, line {number}: {error}") from error


def _check_ids(line: _Line) -> None:
    expected = -(-line.input_length // BLOCK_TOKENS)
    if len(line.hash_ids) != expected:
        raise ValueError(
            f"{line.input_length} input tokens take {expected} hash_ids of {BLOCK_TOKENS}, not {len(line.hash_ids)}"
        )


def _session(line: _Line, begin: float) -> Session:
    *full, last = line.hash_ids
    whole = BLOCK_TOKENS - MESSAGE_OVERHEAD_TOKENS
    rest = line.input_length - BLOCK_TOKENS * len(full) - MESSAGE_OVERHEAD_TOKENS - ANSWER_OPENING_TOKENS
    messages = [_message(hash_id, whole) for hash_id in full]
    messages.append(_message(last, max(1, rest)))  # a tail of less than nine tokens comes out as nine
    return Session((line.timestamp - begin) / 1000, (Turn(0.0, tuple(messages), line.output_length),))


def _message(hash_id: int, text_tokens: int) -> Message:
    return Message("user", _SEED_OF_IDS + hash_id, text_tokens)
