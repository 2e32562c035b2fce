"""Bytes of one HTTP/1.1 answer -> its body, or why it is none. No I/O; `httptools` (llhttp) knows the grammar.

As `client` has it: 200 alone is an answer, redirects are none, what is compressed is not unpacked, sizes are bounded.
"""

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from multipick_epp.engines import bounds
from multipick_epp.engines.unanswered import COMPRESSED, Unanswered, Why, no_http, refused, too_long

_FINAL = 200  # statuses below it are interim: another one follows


class AnswerReader:
    """Of one connection: each answer begins with `begin`, and is over with the first result of `feed` or `end`."""

    def __init__(self, limit: int) -> None:
        """A body has `limit` bytes at most."""
        self.stays = True  # another question may be asked over this connection: all of the last answer was taken
        self._limit = limit
        self._parser = HttpResponseParser(self)
        self.begin()

    def begin(self) -> None:
        """Whatever comes from now on is the next answer."""
        self.stays = False
        self._came = 0  # bytes, with all that is around the body
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._status = 0  # 0 until the headers are complete
        self._refused: Unanswered | None = None  # for what its headers say
        self._sized = False  # they say where it ends; else it ends with the connection
        self._whole = False

    def feed(self, data: bytes) -> bytes | Unanswered | None:
        """None: more is to come."""
        self._came += len(data)
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            self.stays = False
            return no_http(error)
        if self._refused is not None:
            return self._refused
        if self._body_bytes > self._limit:
            return too_long(self._limit)
        if self._came - self._body_bytes > bounds.AROUND_BODY_BYTES:
            return no_http(f"more than {bounds.AROUND_BODY_BYTES} bytes around its body")
        return b"".join(self._body) if self._whole else None

    def end(self) -> bytes | Unanswered | None:
        """Its sender has closed the connection. None: before anything came."""
        return b"".join(self._body) if self._status >= _FINAL and not self._sized else self.lost()

    def lost(self) -> Unanswered | None:
        """The connection broke, or was closed here. None: before anything came."""
        return Unanswered(Why.AWAY, "closed before its answer was whole") if self._came else None

    # What the parser calls. Whatever is raised here ends `feed_data`.

    def on_message_begin(self) -> None:
        """The first line of an answer."""
        if self._whole:
            raise ValueError("more than one answer")
        self._status, self._sized = 0, False

    def on_header(self, name: bytes, value: bytes) -> None:
        """One of the headers, or of the trailers."""
        name = name.lower()
        if name in (b"content-length", b"transfer-encoding"):
            self._sized = True
        elif name == b"content-encoding" and value.strip() != b"identity":
            self._refused = COMPRESSED

    def on_headers_complete(self) -> None:
        """Nothing of the body was read yet."""
        self._status = self._parser.get_status_code()
        if self._status > _FINAL:
            self._refused = refused(self._status)

    def on_body(self, piece: bytes) -> None:
        """As large as it came, without what is around chunks."""
        self._body.append(piece)
        self._body_bytes += len(piece)

    def on_message_complete(self) -> None:
        """Where nothing says where an answer ends, this is not called."""
        if self._status >= _FINAL:
            self._whole = True
            self.stays = self._parser.should_keep_alive()
