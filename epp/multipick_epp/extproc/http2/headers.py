"""Header blocks: a request's, read and checked as RFC 9113 section 8 wants it, and ours, which are ready-made bytes.

We set SETTINGS_HEADER_TABLE_SIZE to 0. Once the peer says that its table is off, a block means the same whenever it
comes, and so does each field in it: a block that was read before is recognised by its bytes, and of a block that
differs in some fields (a trace id) only those are decoded. Until then, and for what is not recognised, `hpack` decodes.
We keep no table either: our fields are literals, or in HPACK's static table.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from hpack import Decoder
from hpack.exceptions import HPACKError, OversizedHeaderListError

from multipick_epp.extproc.http2.bounds import Allowance
from multipick_epp.extproc.http2.frames import Code, PeerError, StreamError

_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_VALUE: Final = re.compile(rb"(?:[^\0\r\n\t ](?:[^\0\r\n]*[^\0\r\n\t ])?)?")
_CONNECTION: Final = frozenset((b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"))
_PSEUDO: Final = frozenset((b":method", b":scheme", b":path", b":authority"))
_TIMEOUT: Final = re.compile(rb"(\d{1,8})([HMSmun])")
_UNIT_S: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_BLOCKS, _BLOCK_BYTES = 64, 1024  # remembered: a peer has a handful of kinds of calls
_FIELDS, _FIELD_BYTES = 256, 256
_TABLE_BYTES: Final = 4096  # of the peer's table until it has seen our settings: the protocol's default

Field = tuple[bytes, bytes]


class Request(NamedTuple):
    """What a call's headers say."""

    method: bytes
    path: str
    content_type: bytes = b""
    encoding: bytes = b""  # of messages
    content_length: int | None = None
    timeout_s: float | None = None


class TooLargeError(Exception):
    """The header list is above the bound; the connection goes on."""


class HeaderReader:
    """The blocks of one connection, in their order. Every block has to come through here: the table is state."""

    def __init__(self, max_list: int, allowance: Allowance) -> None:
        """`max_list` bounds a header list as RFC 9113 section 6.5.2 counts: 32 bytes a field, and its own.

        What has to be decoded takes from the allowance, some 0.5 us a byte as it costs.
        """
        self._allowance = allowance
        self._decoder = Decoder(max_list)
        self._decoder.max_allowed_table_size = _TABLE_BYTES
        self._max_list = max_list
        self._off = False  # the peer may not turn its table on again
        self._blocks: dict[bytes, Request] = {}
        self._fields: dict[bytes, Field] = {}

    def table_off(self) -> None:
        """The peer has seen our settings."""
        self._off = True

    def request(self, block: bytes) -> Request:
        """Of a new stream. Raises TooLargeError; StreamError for a malformed request; PeerError for broken bytes."""
        known = self._blocks.get(block)
        if known is not None:
            return known
        fields = self.fields(block)
        request = _request(fields)
        if self._stateless and len(block) <= _BLOCK_BYTES and len(self._blocks) < _BLOCKS:
            self._blocks[block] = request
        return request

    def fields(self, block: bytes) -> Sequence[Field]:
        """Name and value of each field. Raises TooLargeError, PeerError."""
        if self._stateless:
            pieces = list(_split(block))
            if pieces and sum(map(len, pieces)) == len(block):
                return self._from_pieces(pieces)
        return self._decode(block)

    @property
    def _stateless(self) -> bool:
        # Some clients don't heed the setting: then the table stays, with its first size.
        return self._off and self._decoder.header_table_size == 0

    def _from_pieces(self, pieces: Sequence[bytes]) -> Sequence[Field]:
        fields, size = [], 0
        for piece in pieces:
            field = self._fields.get(piece)
            if field is None:
                field = self._decode(piece)[0]
                if len(piece) <= _FIELD_BYTES and len(self._fields) < _FIELDS:
                    self._fields[piece] = field
            size += 32 + len(field[0]) + len(field[1])
            if size > self._max_list:
                raise TooLargeError
            fields.append(field)
        return fields

    def _decode(self, block: bytes) -> Sequence[Field]:
        self._allowance.take(len(block) / Allowance.DECODED)
        _check_updates(block, 0 if self._off else _TABLE_BYTES)
        try:
            return [(bytes(name), bytes(value)) for name, value in self._decoder.decode(block, raw=True)]
        except OversizedHeaderListError as error:
            if self._stateless:
                raise TooLargeError from error
            raise PeerError(Code.ENHANCE_YOUR_CALM, "header list too large") from error
        except HPACKError as error:
            raise PeerError(Code.COMPRESSION_ERROR, "header block can't be read") from error


def check_trailers(fields: Sequence[Field]) -> None:
    """Trailers mean nothing to us, but have to be well-formed. Raises StreamError."""
    for name, value in fields:
        _check(name, value)


def _request(fields: Sequence[Field]) -> Request:
    pseudo: dict[bytes, bytes] = {}
    regular: dict[bytes, bytes] = {}  # of a repeated field the first
    lengths = set()
    for name, value in fields:
        if name in _PSEUDO:
            if regular or name in pseudo:
                raise StreamError(Code.PROTOCOL_ERROR, "misplaced or repeated pseudo-header")
            pseudo[name] = value
            continue
        _check(name, value)
        regular.setdefault(name, value)
        if name == b"content-length":
            lengths.add(value)
    method, path = pseudo.get(b":method", b""), pseudo.get(b":path", b"")
    if method != b"CONNECT" and not (method and path and pseudo.get(b":scheme")):
        raise StreamError(Code.PROTOCOL_ERROR, "no method, scheme or path")
    return Request(
        method,
        path.decode("latin-1"),
        regular.get(b"content-type", b""),
        regular.get(b"grpc-encoding", b""),
        _length(lengths),
        _timeout(regular.get(b"grpc-timeout")),
    )


def _check(name: bytes, value: bytes) -> None:
    if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
        raise StreamError(Code.PROTOCOL_ERROR, "malformed field")  # unknown pseudo-headers among them
    if name in _CONNECTION or (name == b"te" and value != b"trailers"):
        raise StreamError(Code.PROTOCOL_ERROR, "field of a connection in a request")


def _length(values: set[bytes]) -> int | None:
    if not values:
        return None
    value = values.pop()
    if values or not value.isdigit() or len(value) > 18:
        raise StreamError(Code.PROTOCOL_ERROR, "malformed content-length")
    return int(value)


def _timeout(value: bytes | None) -> float | None:
    if value is None:
        return None
    parts = _TIMEOUT.fullmatch(value)
    if parts is None:
        raise StreamError(Code.PROTOCOL_ERROR, "malformed grpc-timeout")
    return int(parts[1]) * _UNIT_S[parts[2]]


def _check_updates(block: bytes, max_size: int) -> None:
    # RFC 7541 section 4.2 has no use for more than two; each costs a decoder time, and a block has room for thousands.
    updates = at = 0
    while at < len(block) and block[at] & 0xE0 == 0x20:
        updates += 1
        end = _after_integer(block, at, 0x1F)
        if updates > 2 or _integer(block[at:end], 0x1F) > max_size:
            raise PeerError(Code.COMPRESSION_ERROR, "table size update not allowed")
        at = end


def _split(block: bytes) -> Iterator[bytes]:
    """The bytes of each field, undecoded; stops before whatever is no whole field."""
    at, size = 0, len(block)
    while at < size:
        start, first = at, block[at]
        if first & 0x80:
            at = _after_integer(block, at, 0x7F)
        else:
            mask = 0x3F if first & 0x40 else 0x0F
            if first & 0xE0 == 0x20:
                return  # an update of the table
            at = _after_integer(block, at, mask)
            if not first & mask:
                at = _after_string(block, at)
            at = _after_string(block, at)
        if at > size:
            return
        yield block[start:at]


def _after_integer(block: bytes, at: int, mask: int) -> int:
    """Where the integer at `at` ends; past the block for one that is cut."""
    if at >= len(block):
        return at + 1
    if block[at] & mask != mask:
        return at + 1
    for end in range(at + 1, min(at + 6, len(block))):
        if block[end] < 0x80:
            return end + 1
    return len(block) + 1  # cut, or larger than anything that fits


def _integer(data: bytes, mask: int) -> int:
    """The integer that these bytes are (RFC 7541 section 5.1)."""
    return (data[0] & mask) + sum((byte & 0x7F) << 7 * place for place, byte in enumerate(data[1:]))


def _after_string(block: bytes, at: int) -> int:
    end = _after_integer(block, at, 0x7F)
    return end if end > len(block) else end + _integer(block[at:end], 0x7F)


def literal(name: bytes, value: bytes) -> bytes:
    """A field that goes into no table. Name and value of at most 126 bytes."""
    return b"\x00" + bytes((len(name),)) + name + bytes((len(value),)) + value


def status(code: int) -> bytes:
    """The field `:status`, which comes first."""
    return b"\x88" if code == 200 else b"\x08\x03%d" % code


GRPC_RESPONSE: Final = status(200) + literal(b"content-type", b"application/grpc")
"""The block that opens every answer to a call."""
