"""Prompts that come as token ids, or as a list of prompts.

A prompt may be a million ids: one call to decode them would hold the process for tens of milliseconds. So parsers leave
such fields as they are (`msgspec.Raw`), and they are decoded here, slice by slice, no further than any model reads.
"""

from array import array

import msgspec

from multipick_epp.requests.body import Unreadable, check_values
from multipick_epp.requests.prompt import Text, TokenIds, TokenSource, Truncation

MAX_TOKENS = 1 << 20
"""Ids of one prompt that are read at most, those of a batch together. A longer prompt is cut: no model takes it."""

MAX_PROMPTS = 1_024
"""Prompts of one request."""

_SLICE_BYTES = 16_384  # some 4,000 ids, a quarter of a millisecond
_BLANK = b" \t\n\r"
_IDS = msgspec.json.Decoder(list[int])
_TEXT = msgspec.json.Decoder(str)
_TEXTS = msgspec.json.Decoder(list[str])
_LISTS = msgspec.json.Decoder(list[msgspec.Raw])


def sources(raw: msgspec.Raw, add_special_tokens: bool, truncation: Truncation | None = None) -> list[TokenSource]:
    """The prompts in a field: one text, token ids, a list of texts, or a list of lists of token ids; at least one.

    Raises Unreadable, or msgspec.DecodeError.
    """
    field = bytes(raw)
    kind = field[:1]
    if kind == b'"':
        return [Text(_TEXT.decode(field), add_special_tokens, truncation)]
    inner = field[1:].lstrip(_BLANK)[:1] if kind == b"[" else b""
    if field in (b"", b"null") or inner == b"]":
        raise Unreadable("no prompt")
    if inner == b'"':
        check_values(field)
        return [Text(text, add_special_tokens, truncation) for text in _bounded(_TEXTS.decode(field))]
    if inner == b"[":
        return _lists(field, truncation)
    return [TokenIds(_cut(_ids(field, MAX_TOKENS), MAX_TOKENS, truncation))]


def token_ids(raw: msgspec.Raw) -> "array[int]":
    """One list of ids. Raises Unreadable, or msgspec.DecodeError."""
    return _ids(bytes(raw), MAX_TOKENS)


def _bounded(texts: list[str]) -> list[str]:
    if len(texts) > MAX_PROMPTS:
        raise Unreadable("too many prompts")
    return texts


def _lists(field: bytes, truncation: Truncation | None) -> list[TokenSource]:
    if field.count(b"[") > MAX_PROMPTS + 1:
        raise Unreadable("too many prompts")
    lists: list[TokenSource] = []
    left = MAX_TOKENS
    for raw in _LISTS.decode(field):
        ids = _ids(bytes(raw), left)
        lists.append(TokenIds(_cut(ids, left, truncation)))
        left -= len(ids)
    return lists


def _cut(ids: "array[int]", most: int, truncation: Truncation | None) -> "array[int]":
    """What the engine keeps of ids of which `most` were read. Raises Unreadable where their end was not."""
    if truncation is None:
        return ids
    if truncation.left and len(ids) == most:
        raise Unreadable("truncated prompt", truncation.tokens)
    return truncation.cut(ids)


def _ids(field: bytes, most: int) -> "array[int]":
    """The first `most` ids of `[1, 2, ...]`. What follows them is not looked at."""
    if field[:1] != b"[" or field[-1:] != b"]":
        raise Unreadable("unexpected fields")
    ids = array("I")
    start, end = 1, len(field) - 1
    try:
        while start < end and len(ids) < most:
            cut = field.find(b",", start + _SLICE_BYTES, end)
            stop = end if cut < 0 else cut
            ids.extend(_IDS.decode(b"[" + field[start:stop] + b"]"))
            start = stop + 1
    except (OverflowError, TypeError) as error:
        raise Unreadable("not token ids") from error
    return ids[:most]
