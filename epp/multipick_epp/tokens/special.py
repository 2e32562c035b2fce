"""The tokens that a tokenizer puts around a text when it is asked for special tokens: `<s>` before it, for example."""

from array import array

import msgspec
from tokenizers import Tokenizer as Backend

from multipick_epp.tokens.segments import Ids, as_ids


class Surround(msgspec.Struct, frozen=True, gc=False):
    """The ids before and after a text."""

    before: Ids
    after: Ids

    def with_(self, ids: Ids) -> "array[int]":
        """The ids of the text with these around."""
        return array("I", self.before + ids + self.after)


NOTHING = Surround(b"", b"")


def surround_of(backend: Backend) -> Surround | None:
    """The same for every text; None for a tokenizer where it is not."""
    found = {_surround(backend, text) for text in ("a", "Two words", "\n")}
    return None if len(found) > 1 or None in found else _as_surround(found.pop())


def _surround(backend: Backend, text: str) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    plain = backend.encode(text, add_special_tokens=False).ids
    whole = backend.encode(text, add_special_tokens=True).ids
    for start in range(len(whole) - len(plain) + 1):
        if whole[start : start + len(plain)] == plain:
            return tuple(whole[:start]), tuple(whole[start + len(plain) :])
    return None


def _as_surround(found: tuple[tuple[int, ...], tuple[int, ...]] | None) -> Surround | None:
    return None if found is None else Surround(as_ids(found[0]), as_ids(found[1]))
