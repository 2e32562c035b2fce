"""The answer of `/version` (vLLM): `{"version": "0.32.0"}`."""

import re

import msgspec

_NUMBERS = re.compile(r"(\d{1,6})\.(\d{1,6})\b")


class _Answer(msgspec.Struct):
    version: str


_answer = msgspec.json.Decoder(_Answer)


def parse(body: bytes) -> tuple[int, int] | None:
    """The first two numbers; None for what is no such answer."""
    try:
        found = _NUMBERS.match(_answer.decode(body).version)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return (int(found[1]), int(found[2])) if found else None
