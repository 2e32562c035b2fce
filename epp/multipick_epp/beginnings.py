"""Texts and token ids that begin alike: what was made of their beginnings, to be had without making it again.

A chat that grew by a message begins as it did before, and many chats begin with one system prompt. So what was made of
a text is kept stride by stride, in a tree: a stride is found by what stands before it and by its last items, and then
compared as a whole, so that no other is ever taken for it. To hash all of it would take ten times as long.
"""

import sys
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import count
from typing import Generic, NamedTuple, TypeVar

import msgspec

_TAIL = 64
"""Items at a stride's end that it is found by. Of two strides that are alike there and in what is before them, the
later is kept."""

_ENTRY_BYTES = 700
"""What an entry costs besides its stride and value: keys, numbers, and places in the table and in the order."""

V = TypeVar("V")
_Key = tuple[Hashable, str | bytes]  # a root or the number of the entry before; the tail


class Known(msgspec.Struct, Generic[V], frozen=True, gc=False):
    """The beginning of a text as far as it is known."""

    values: Sequence[V]  # of its strides, one after the other
    keys: Sequence[_Key]
    last: Hashable  # what the next stride stands behind
    stride: int


class _Entry(NamedTuple, Generic[V]):
    piece: str | bytes
    value: V
    number: int


class Beginnings(Generic[V]):
    """Strides -> values, least recently used out first. `find` may be called in any thread, `keep` in one alone."""

    def __init__(self, max_bytes: int, size_of: Callable[[V], int]) -> None:
        """`size_of`: the bytes that a value takes."""
        self._max_bytes = max_bytes
        self._size_of = size_of
        self._bytes = 0  # the sum of `_cost` over the entries; never above `_max_bytes` between two calls
        self._entries: OrderedDict[_Key, _Entry[V]] = OrderedDict()  # least recently used first
        self._numbers = count()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def size_bytes(self) -> int:
        """Memory that the entries take."""
        return self._bytes

    def find(self, root: tuple[Hashable, ...], whole: str | bytes, stride: int) -> Known[V]:
        """What is known of the beginning of `whole`, of those that were kept under this root, in strides of so many
        characters or bytes.
        """
        values: list[V] = []
        keys: list[_Key] = []
        last: Hashable = root, stride
        get = self._entries.get
        for start in range(0, len(whole) - stride + 1, stride):
            piece = whole[start : start + stride]
            key = last, piece[-_TAIL:]
            entry = get(key)
            if entry is None or entry.piece != piece:
                break
            values.append(entry.value)
            keys.append(key)
            last = entry.number
        return Known(values, keys, last, stride)

    def keep(self, known: Known[V], whole: str | bytes, values: Iterable[V]) -> None:
        """`known` is what `find` told, and was of use; `values` are those of the strides that follow."""
        used = self._entries.move_to_end
        for key in known.keys:
            try:
                used(key)
            except KeyError:  # it had to leave meanwhile
                continue
        last = known.last
        for value, start in zip(values, count(len(known.keys) * known.stride, known.stride), strict=False):
            last = self._put(last, whole[start : start + known.stride], value)
        while self._bytes > self._max_bytes:
            self._bytes -= self._cost(self._entries.popitem(last=False)[1])

    def _put(self, last: Hashable, piece: str | bytes, value: V) -> int:
        """The number of the stride's entry, which may have come meanwhile: another value has another number, so that no
        value is ever put behind one that it does not follow.
        """
        key = last, piece[-_TAIL:]
        old = self._entries.get(key)
        if old is not None and (old.piece, old.value) == (piece, value):
            return old.number
        if old is not None:
            self._bytes -= self._cost(self._entries.pop(key))
        entry = self._entries[key] = _Entry(piece, value, next(self._numbers))
        self._bytes += self._cost(entry)
        return entry.number

    def _cost(self, entry: _Entry[V]) -> int:
        return sys.getsizeof(entry.piece) + self._size_of(entry.value) + _ENTRY_BYTES
