"""Splits a text where the tokenizer splits it anyway, so that each segment can be tokenised once and kept.

Theory of operation: added tokens such as `<|im_end|>` are cut out of the text before anything else happens, and what
lies between them is tokenised piece by piece. So the ids of a chat are the ids of its segments, and all but the last
few segments were seen before. Two rules keep that exact:
- A text is cut only at tokens that no other added token can hide or overlap, and that take no spaces from their sides.
- Some tokenizers treat the start of a text in their own way (a space before the first word). Therefore a segment that
  is not the text's first is tokenised behind a cut token, as it stands in the text.
A segment that is long is cut further between its words, where the vocabulary allows it (`chunks`). Where the tokenizer
puts a space before each piece of text, what follows such a cut is tokenised without the space that it begins with.
`agrees` compares with the whole text's ids on probes; where it says no, less is cut, or nothing.
"""

import logging
import re
import sys
from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from tokenizers import AddedToken
from tokenizers import Tokenizer as Backend

from multipick_epp.tokens.chunks import CHUNK_CHARS, allows_chunks, chunks, is_between_words
from multipick_epp.tokens.fast import Encode, encode_of

log = logging.getLogger(__name__)


class First(NamedTuple):
    """The segment that a text begins with; all others are plain strings."""

    text: str


class Continued(NamedTuple):
    """What follows another segment at a space between two words, of a tokenizer that puts a space before each text."""

    text: str
    kind: str = "continued"  # tuples of equal fields are equal, whatever their class


class Literal(NamedTuple):
    """A piece of text in which no special token is recognised."""

    text: str
    kind: str = "literal"


Segment = str | tuple[Any, ...]
"""A piece of text between two cuts, never empty; or a tuple, of which the first is its text, that is tokenised in a way
of its own: `First`, `Continued`, `Literal`, and those of a family."""

Ids = bytes
"""Token ids as u32 in this machine's byte order: small, and quick to join."""


def as_ids(ids: Sequence[int]) -> Ids:
    """Raises OverflowError for what is no token id."""
    return array("I", ids).tobytes()


def text_of(segment: Segment) -> str:
    """The text of a segment of any kind."""
    text: str = segment if isinstance(segment, str) else segment[0]
    return text


class Segmenter:
    """Cuts texts and tokenises segments. Has no state: calls from several threads don't meet."""

    def __init__(
        self,
        backend: Backend,
        cut_at: Iterable[str],
        chunk_chars: int | None = None,
        encode: Encode | None = None,
        *,
        adds_space: bool = False,
    ) -> None:
        """Cuts at those of the tokens `cut_at` that allow it, and what is longer than `chunk_chars` between words.

        `encode` makes the ids; by default what is best for this tokenizer. `adds_space`: it puts a space before each
        piece of text, whether it begins with one or not.
        """
        self.encode = encode or encode_of(backend)
        self._longest = chunk_chars or sys.maxsize
        self._adds_space = adds_space
        added = backend.get_added_tokens_decoder()
        wanted = set() if backend.encode_special_tokens else set(cut_at)
        clean = {
            token.content: id_
            for id_, token in added.items()
            if token.content in wanted and _is_clean(token, added.values())
        }
        self.cuts: Mapping[Segment, Ids] = {text: as_ids([id_]) for text, id_ in clean.items()}
        self._split = re.compile(f"({'|'.join(map(re.escape, clean))})").split if clean else None
        self._lead = next(iter(clean), "")

    @property
    def library(self) -> str:
        """What makes the ids."""
        return self.encode.name

    @property
    def inline_bytes(self) -> int:
        """See `fast.Encode`."""
        return self.encode.inline_bytes

    def split(self, text: str, start: int = 0) -> list[Segment]:
        """The text from `start` on, where one of its segments begins, as segments and the `cuts` between them."""
        rest = text[start:]
        pieces = self._split(rest) if self._split else [rest]  # segments and cuts in turn, a segment first
        segments = self._chunks(pieces[0])
        if segments and not start:
            segments[0] = First(text_of(segments[0]))
        elif segments and self._adds_space and is_between_words(text, start):
            segments[0] = Continued(text_of(segments[0]))
        for cut, piece in zip(pieces[1::2], pieces[2::2], strict=True):
            segments.append(cut)
            if len(piece) > self._longest:
                segments += self._chunks(piece)
            elif piece:
                segments.append(piece)
        return segments

    def tokenise(self, segments: Sequence[Segment]) -> dict[Segment, Ids]:
        """The ids of each segment. Releases the GIL for most of the time. Raises NoText."""
        lead, first = self._lead, 1 if self._lead else 0
        texts = [lead + segment if type(segment) is str else self._as_it_stands(segment) for segment in segments]
        found: dict[Segment, Ids] = {}
        for segment, ids in zip(segments, self.encode(texts), strict=True):
            found[segment] = as_ids(ids if type(segment) is First else ids[first:])
        return found

    def _chunks(self, piece: str) -> list[Segment]:
        if len(piece) <= self._longest:
            return [piece] if piece else []
        first, *others = chunks(piece, self._longest)
        return [first, *map(Continued, others)] if self._adds_space else [first, *others]

    def _as_it_stands(self, segment: Segment) -> str:
        """The segment's text behind a cut token, if it stands behind one in its text."""
        if isinstance(segment, First):
            return segment.text
        return self._lead + (segment.text[1:] if isinstance(segment, Continued) else text_of(segment))


def best_segmenter(backend: Backend, cut_at: Iterable[str]) -> Segmenter:
    """The one that cuts most, of those that change no ids."""
    tokens = [*cut_at]
    encode = encode_of(backend)
    for adds_space in (False, True) if allows_chunks(backend) else ():
        if agrees(backend, Segmenter(backend, tokens, chunk_chars=1, encode=encode, adds_space=adds_space)):
            return Segmenter(backend, tokens, CHUNK_CHARS, encode, adds_space=adds_space)
    by_tokens = Segmenter(backend, tokens, encode=encode)
    if agrees(backend, by_tokens):
        return by_tokens
    log.warning("texts are tokenised whole: cut at special tokens, this tokenizer gives other ids")
    return Segmenter(backend, (), encode=encode)


def agrees(backend: Backend, segmenter: Segmenter) -> bool:
    """Whether cutting leaves the ids of the probes as they are."""
    return all(
        _joined(segmenter, text) == backend.encode(text, add_special_tokens=False).ids
        for text in _probes([cut for cut in segmenter.cuts if isinstance(cut, str)])
    )


def _joined(segmenter: Segmenter, text: str) -> list[int]:
    pieces = segmenter.split(text)
    found = segmenter.tokenise([piece for piece in pieces if piece not in segmenter.cuts])
    found |= segmenter.cuts
    return array("I", b"".join(found[piece] for piece in pieces)).tolist()


_TEXTS = (
    "system\nYou are a helpful assistant.",
    "user\n  def f(x):\n\treturn x + 1  # two\n\n\n",
    " leading space",
    "trailing space ",
    "\n",
    " ",
    "   \n \t ",
    "Grüße, naïve café — 東京タワー、한국어 텍스트",
    "e\u0301 \u0301combining first",
    "\u200b\ufeff\u00a0zero width",
    "👩‍👩‍👧 🇩🇪",
    "\U0001d518 ﬁ ﷺ Ⅷ",
    "<|not_a_token|> <s> [INST] </s>",
    "12345 1,234.5 3.14e-10",
    "don't we'll I'M",
    '{"a": [1, {"b": null}]}',
    "\r\nwindows\r\n",
    "A",
    "x\x00y",
)


def _probes(cuts: Sequence[str]) -> Iterable[str]:
    """Texts of each kind before, between and after each cut, with spaces at the edges too."""
    for cut in cuts:
        yield cut
        yield cut + cut
        yield "".join(text + cut for text in _TEXTS)
        yield "".join(cut + text for text in _TEXTS)
        yield "".join(f" {cut} {text}" for text in _TEXTS)
        yield from (text + cut + text for text in _TEXTS)
    yield from _TEXTS


def _is_clean(token: AddedToken, added: Iterable[AddedToken]) -> bool:
    """Whether the token's text is always that token: of overlapping matches, the leftmost wins, then the longest."""
    plain = not (token.normalized or token.lstrip or token.rstrip or token.single_word) and bool(token.content)
    return plain and not any(_hides(other.content, token.content) for other in added if other.content != token.content)


def _hides(other: str, token: str) -> bool:
    """Whether a match of `other` can begin before one of `token` and reach into it, or cover it."""
    sizes = range(1, min(len(token), len(other)))
    return token in other or any(other.endswith(token[:size]) for size in sizes)
