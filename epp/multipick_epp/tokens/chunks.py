"""Cuts a long text between two words, so that a prompt that only grew is not tokenised from its start again.

A cut stands between a letter and a space with a letter after it, where the vocabulary has no token that spans such a
place: then no tokenizer of these kinds (BPE, WordPiece, Unigram) can join what lies on its two sides. Where the cuts
are depends on nothing that comes after them, so a text and its continuation share all chunks but the last.
"""

import re
from collections.abc import Iterable

from tokenizers import Tokenizer as Backend

CHUNK_CHARS = 1_000

_BETWEEN_WORDS = re.compile(r"[A-Za-z](?= [A-Za-z])")
_SPANS_WORDS = re.compile(r"[A-Za-z][ Ġ▁](?:[A-Za-z]|\Z)")
"""A token over such a place; `Ġ` and `▁` are how byte-level and SentencePiece vocabularies write a space."""

_MEETS_WORDS = re.compile(r"\A ?[A-Za-z]|[A-Za-z] ?\Z|[A-Za-z] [A-Za-z]")
"""An added token that can begin, end or lie at such a place, and may take what is on its sides."""


def allows_chunks(backend: Backend) -> bool:
    """Whether no token spans a place between two words. Added tokens are found by their own text, not by merges."""
    added = {token.content for token in backend.get_added_tokens_decoder().values()}
    learnt = (token for token in backend.get_vocab(with_added_tokens=False) if token not in added)
    return not spans_words(learnt) and not any(map(_MEETS_WORDS.search, added))


def spans_words(learnt: Iterable[str]) -> bool:
    """Whether one of these tokens of a vocabulary spans a place between two words."""
    return any(map(_SPANS_WORDS.search, learnt))


def chunks(text: str, size: int) -> list[str]:
    """The text in chunks that end at the first place between words that is `size` characters or more from their start.

    Never empty; a text of one word is one chunk.
    """
    parts: list[str] = []
    start = 0
    while match := _BETWEEN_WORDS.search(text, start + size - 1):
        parts.append(text[start : match.end()])
        start = match.end()
    parts.append(text[start:])
    return parts


def is_between_words(text: str, at: int) -> bool:
    """Whether a chunk can end there."""
    return _BETWEEN_WORDS.match(text, at - 1) is not None
