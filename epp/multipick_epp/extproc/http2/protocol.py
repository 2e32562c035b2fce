"""A connection on a socket: asyncio around it, TLS in between where there is a certificate.

One read is handled whole, and all that it leads to goes out in one write. What other turns of the loop produce (the
picker's decisions) goes out together too, at the end of the turn.
"""

import asyncio
import ssl
from collections.abc import Callable
from enum import StrEnum
from typing import Any, Protocol

from multipick_epp.extproc.http2.connection import Connection
from multipick_epp.extproc.http2.frames import PREFACE, Code
from multipick_epp.extproc.http2.tls_pipe import TlsPipe

_TLS_HANDSHAKE = 0x16  # the first byte of whoever speaks TLS
_BUFFERED = 1 << 20  # bytes that wait in the transport before we produce no more


class Refusal(StrEnum):
    """Why a connection was cut by us."""

    TLS_ON_PLAINTEXT = "tls_on_plaintext"
    PLAINTEXT_ON_TLS = "plaintext_on_tls"
    TLS_FAILED = "tls_failed"
    NOT_HTTP2 = "not_http2"
    PROTOCOL = "protocol"  # a rule of HTTP/2 was broken
    FLOOD = "flood"
    SILENT = "silent"  # handshake, frame or sign of life did not come in time
    TOO_MANY = "too_many"


class Owner(Protocol):
    """Who holds all connections."""

    def opened(self, peer: "Http2Protocol") -> bool:
        """A new one; false where there is no room."""

    def closed(self, peer: "Http2Protocol") -> None:
        """It is gone."""

    def refused(self, why: Refusal, peer: str, detail: str = "") -> None:
        """It was cut by us; `detail` has the words of whoever noticed."""


class Http2Protocol(asyncio.Protocol):
    """One connection on a socket."""

    def __init__(
        self,
        owner: Owner,
        tls: ssl.SSLContext | None,
        plaintext: bool,
        connect: Callable[[Callable[[], None]], Connection],
    ) -> None:
        """`plaintext`: beside TLS, too."""
        self.connection = connect(self._wake)
        self._output = self.connection.output
        self._owner = owner
        self._tls = None if tls is None else TlsPipe(tls)
        self._plaintext = plaintext
        self._transport: Any = None
        self._peer = ""
        self._recognised = False  # by its first bytes
        self._reading = True
        self._closing = False  # since the last look at the clock
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: Any) -> None:
        """As `asyncio.Protocol.connection_made`."""
        self._transport = transport
        self._peer = str((transport.get_extra_info("peername") or ("?",))[0])
        transport.set_write_buffer_limits(_BUFFERED)
        if not self._owner.opened(self):
            self.cut(Refusal.TOO_MANY)

    def connection_lost(self, error: Exception | None) -> None:
        """As `asyncio.Protocol.connection_lost`."""
        self.connection.lost()
        self._owner.closed(self)

    def data_received(self, data: bytes) -> None:
        """As `asyncio.Protocol.data_received`."""
        if not self._recognised:
            refusal = self._recognise(data)
            if refusal is not None:
                self.cut(refusal)
                return
        self._output.awaited = True
        if self._tls is not None:
            try:
                data, out = self._tls.receive(data)
            except ssl.SSLError as error:
                self._transport.write(self._tls.alert())
                self._owner.refused(Refusal.TLS_FAILED, self._peer, error.reason or "")
                self._transport.close()
                return
            if out:
                self._transport.write(out)
        if data:
            self.connection.receive(data)
        self._flush()

    def pause_writing(self) -> None:
        """As `asyncio.Protocol.pause_writing`."""
        self.connection.writable(False)
        self._regulate()

    def resume_writing(self) -> None:
        """As `asyncio.Protocol.resume_writing`."""
        self.connection.writable(True)
        self._wake()

    def tick(self) -> None:
        """Look at the clock."""
        if self._transport.is_closing():  # else a peer that doesn't read would keep what is left to write
            if self._closing:
                self.close()
            self._closing = True
        elif not self.connection.tick():
            self.cut(Refusal.SILENT)

    def cut(self, why: Refusal) -> None:
        """End the connection at once."""
        self._owner.refused(why, self._peer)
        self._transport.abort()

    def close(self) -> None:
        """End the connection, whatever is left."""
        self._transport.abort()

    def _recognise(self, data: bytes) -> Refusal | None:
        self._recognised = True
        speaks_tls = data[0] == _TLS_HANDSHAKE
        if self._tls is None:
            return Refusal.TLS_ON_PLAINTEXT if speaks_tls else None
        if speaks_tls:
            return None
        if self._plaintext:
            self._tls = None
            return None
        return Refusal.PLAINTEXT_ON_TLS if data.startswith(PREFACE[: len(data)]) else Refusal.TLS_FAILED

    def _wake(self) -> None:
        if not self._output.awaited:
            self._output.awaited = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        connection, output, transport = self.connection, self._output, self._transport
        if not transport.is_closing():
            try:
                while data := connection.take():
                    transport.write(data if self._tls is None else self._tls.send(data))
                    if not output.waiting:
                        break
            except ssl.SSLError:  # TLS is over already
                transport.abort()
            if connection.closing:
                if connection.fault is not None:
                    self._owner.refused(_refusal(connection), self._peer)
                transport.close()
        output.awaited = False
        if connection.input.more or not (self._reading and output.writable):
            self._regulate()

    def _regulate(self) -> None:
        """Read unless the peer doesn't, or there is more from it than one turn may take."""
        connection = self.connection
        reading = connection.output.writable and not connection.more
        if reading != self._reading and not self._transport.is_closing():
            self._reading = reading
            if reading:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()
        if connection.more and connection.output.writable and not self._output.awaited:
            self._output.awaited = True
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._output.awaited = True
        self.connection.receive(b"")
        self._flush()


def _refusal(connection: Connection) -> Refusal:
    if connection.fault is not None and connection.fault.code is Code.ENHANCE_YOUR_CALM:
        return Refusal.FLOOD
    return Refusal.PROTOCOL if connection.settled else Refusal.NOT_HTTP2
