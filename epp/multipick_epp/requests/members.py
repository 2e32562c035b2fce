"""Where the members of a JSON object lie in its bytes, without decoding them.

A body that goes on must be the client's own, byte for byte, but for what is taken out: numbers written anew would lose
digits, and of a name that comes twice one would be lost. So members are found by their places. The bytes are expected
to be JSON; what is none ends in `NotJson` where that shows, and engines refuse it.
"""

import json
import re
from collections.abc import Iterator
from typing import NamedTuple

from multipick_epp.requests.body import SLICE_BYTES, count_of, outside_texts, without_escapes

_SPACE = re.compile(rb"[ \t\n\r]*")
_SCALAR = re.compile(rb"[^ \t\n\r,\]}]+")
_BRACKET_OR_QUOTE = re.compile(rb'[\[\]{}"]')

MAX_PARTS = 200_000
"""Brackets, or quotes, that are looked at: 0.1 s."""


class NotJson(Exception):  # noqa: N818  (a client's fault, no error of ours)
    """The bytes are no JSON."""


class TooMany(Exception):  # noqa: N818  (the same)
    """The JSON has so many parts that it would take long to look through."""


class Member(NamedTuple):
    """One member of an object, from its name's first quote to its value's end."""

    name: str
    start: int
    value: int  # where its value begins
    end: int


class Json:
    """UTF-8 JSON text whose members are asked for by place."""

    def __init__(self, text: bytes) -> None:
        """Raises TooMany."""
        self.text = text
        self._plain = without_escapes(text)
        if count_of(b'"', self._plain) > MAX_PARTS or count_of(b"[]{}", outside_texts(self._plain)) > MAX_PARTS:
            raise TooMany

    def _first(self, start: int) -> int:
        """The first place from `start` on that is no white space."""
        space = _SPACE.match(self._plain, start)
        return space.end() if space else start

    def members(self, start: int) -> Iterator[Member]:
        """The members of the object that begins at `start`. Raises NotJson."""
        at = self._first(start + 1)
        while self._byte(at) != b"}":
            name_end = self._end(at)
            colon = self._first(name_end)
            if self._byte(at) != b'"' or self._byte(colon) != b":":
                raise NotJson
            value = self._first(colon + 1)
            end = self._end(value)
            yield Member(self._name(at, name_end), at, value, end)
            at = self._next(end, b"}")

    def items(self, start: int) -> Iterator[int]:
        """Where the items of the list that begins at `start` begin. Raises NotJson."""
        at = self._first(start + 1)
        while self._byte(at) != b"]":
            yield at
            at = self._next(self._end(at), b"]")

    def _next(self, end: int, close: bytes) -> int:
        """The place behind the comma at `end`, or of `close`."""
        at = self._first(end)
        byte = self._byte(at)
        if byte == b",":
            return self._first(at + 1)
        if byte != close:
            raise NotJson
        return at

    def _end(self, start: int) -> int:
        """Where the value that begins at `start` ends. Raises NotJson."""
        byte = self._byte(start)
        if byte not in b'"[{' or not byte:
            scalar = _SCALAR.match(self._plain, start)
            if scalar is None:
                raise NotJson
            return scalar.end()
        depth, at = 0, start
        while True:
            at = self._bracket_or_quote(at)
            match self._byte(at):
                case b'"':
                    at = self._plain.find(b'"', at + 1)
                    if at < 0:
                        raise NotJson
                case b"[" | b"{":
                    depth += 1
                case _:
                    depth -= 1
            at += 1
            if depth == 0:
                return at

    def _bracket_or_quote(self, start: int) -> int:
        """Where the next one is. Raises NotJson."""
        for at in range(start, len(self._plain), SLICE_BYTES):
            if found := _BRACKET_OR_QUOTE.search(self._plain, at, at + SLICE_BYTES):
                return found.start()
        raise NotJson

    def _name(self, start: int, end: int) -> str:
        try:
            name: str = json.loads(self.text[start:end].decode("utf-8", "surrogatepass"))
        except ValueError as error:
            raise NotJson from error
        return name

    def _byte(self, at: int) -> bytes:
        return self._plain[at : at + 1]
