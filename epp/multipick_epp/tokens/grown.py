"""Texts that grew: of the beginning that a text has in common with earlier ones the ids are known as a whole, so that
only what follows is cut into segments.

A text is cut from left to right, so where its segments begin is settled by what stands before, but for the lengths of
special tokens and the two letters that a chunk needs behind it. So the start of a segment is sure, whatever follows,
once the segment that begins there has come to its end.
"""

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import NamedTuple, Protocol

import msgspec

from multipick_epp.beginnings import Beginnings, Known
from multipick_epp.tokens.segments import Ids, Segment, text_of
from multipick_epp.tokens.texts import check_unicode

STRIDE_CHARS = 2_048

KEPT_CHARS = 1_000_000
"""So much of a text's beginning is kept, which takes a millisecond; engines take no longer prompts, or hardly."""

_ROOT = ("text",)


class _Stride(NamedTuple):
    """What a stride of a text adds to what is known before it."""

    ids: Ids
    end: int  # where they end in the text: at the last start of a segment that is sure


class Split(msgspec.Struct, frozen=True, gc=False):
    """A prompt as the ids of its beginning and the segments of the rest."""

    text: str  # empty for a chat that is no text
    known: Known[_Stride]
    segments: list[Segment]


class Splits(Protocol):
    """See `model.Texts`."""

    def split(self, text: str, start: int = 0) -> list[Segment]:
        """The segments from `start` on."""


class GrownTexts:
    """The texts of one model. `split` may be called in any thread, `join` in one alone."""

    def __init__(self, texts: Splits, max_bytes: int, stride: int = STRIDE_CHARS) -> None:
        """`stride` in characters: what is known of a text ends up to so many before it parts from others."""
        self._texts = texts
        self._stride = stride
        self._beginnings: Beginnings[_Stride] = Beginnings(max_bytes, lambda stride: len(stride.ids))

    def split(self, text: str) -> Split:
        """Raises NoText for what must not be tokenised."""
        known = self._beginnings.find(_ROOT, text, self._stride)
        start = _end(known)
        rest = text[start:]
        if not rest.isascii():
            check_unicode(rest)
        return Split(text, known, self._texts.split(text, start))

    def join(self, split: Split, found: Mapping[Segment, Ids]) -> Ids:
        """The ids of the text, of which more is known from now on."""
        if len(split.text) >= self._stride:
            self._beginnings.keep(split.known, split.text, _strides(split, found))
        return b"".join([*[stride.ids for stride in split.known.values], *map(found.__getitem__, split.segments)])


def as_split(segments: list[Segment]) -> Split:
    """Of a chat that is no text."""
    return Split("", Known((), (), _ROOT, STRIDE_CHARS), segments)


def _end(known: Known[_Stride]) -> int:
    return known.values[-1].end if known.values else 0


def _strides(split: Split, found: Mapping[Segment, Ids]) -> Iterator[_Stride]:
    """The strides of the text that are not known."""
    stride = split.known.stride
    first = (len(split.known.values) + 1) * stride
    until = min(len(split.text), KEPT_CHARS)
    if first > until:
        return
    starts = [*accumulate((len(text_of(each)) for each in split.segments), initial=_end(split.known))]
    done = 0
    for end in range(first, until + 1, stride):
        sure = max(done, bisect_right(starts, end) - 2)
        yield _Stride(b"".join(found[each] for each in split.segments[done:sure]), starts[sure])
        done = sure
