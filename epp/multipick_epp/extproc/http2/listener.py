"""A port, and all connections to it: how many, how idle, how long silent, and how they end."""

import asyncio
import contextlib
import logging
import socket
import ssl
import time
from collections.abc import Callable
from typing import Final, Protocol

from multipick_epp.extproc.http2.bounds import Bounds, Shared
from multipick_epp.extproc.http2.connection import Connection
from multipick_epp.extproc.http2.frames import Code
from multipick_epp.extproc.http2.protocol import Http2Protocol, Refusal
from multipick_epp.extproc.http2.refusals import Refusals
from multipick_epp.extproc.http2.streams import Serve
from multipick_epp.extproc.listening import BACKLOG, listening

log = logging.getLogger(__name__)

_TICK_S: Final = 1.0
_RECENT_S: Final = 2.0  # since its last stream, or since it came, a connection counts as in use


class Refused(Protocol):
    """Who counts connections that were cut by us."""

    def refused(self, why: Refusal) -> None:
        """One more."""


class Listener:
    """One port and its connections."""

    def __init__(
        self,
        serve: Serve,
        observer: Refused,
        tls: Callable[[], ssl.SSLContext] | None = None,
        bounds: Bounds | None = None,
        clock: Callable[[], float] = time.monotonic,
        plaintext: bool = False,
    ) -> None:
        """`tls` is asked for each new connection; `plaintext`: a peer may speak that, too."""
        self.bounds = bounds or Bounds()
        self.shared = Shared(self.bounds, self._shed)
        self.peers: dict[Http2Protocol, None] = {}
        self.refusals = Refusals(clock)
        self._serve = serve
        self._observer = observer
        self._tls = tls
        self._plaintext = plaintext
        self._clock = clock
        self._server: asyncio.Server | None = None
        self._draining = False
        self._shut = False
        self._ticking: asyncio.TimerHandle | None = None
        self._empty = asyncio.Event()

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port, which port 0 leaves to the system. Raises RuntimeError where it can't be had."""
        port_socket = listening(host, port)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._protocol, sock=port_socket, backlog=BACKLOG)
        self._begin()
        bound: int = port_socket.getsockname()[1]
        return bound

    async def adopt(self, accepted: socket.socket) -> None:
        """Serve a connection that was accepted elsewhere, with a port of our own or without."""
        self._begin()
        accepted.setblocking(False)
        with contextlib.suppress(OSError):  # it is over already
            await asyncio.get_running_loop().connect_accepted_socket(self._protocol, accepted)

    @property
    def busy(self) -> int:
        """Connections that streams come on."""
        return sum(_used(peer.connection, self._clock() - _RECENT_S) for peer in self.peers)

    def shed(self) -> None:
        """Ask the peer that has most streams to come again with those that are new."""
        peers = [peer for peer in self.peers if peer.connection.expects_more]
        if peers:
            max(peers, key=lambda peer: len(peer.connection.streams.open)).connection.drain()

    def drain(self) -> None:
        """Ask all peers to go elsewhere, those that come later too; what they still begin is served."""
        self._draining = True
        for peer in tuple(self.peers):
            peer.connection.drain()

    @property
    def expects_more(self) -> bool:
        """A peer may begin calls that will be served."""
        return any(peer.connection.expects_more for peer in self.peers)

    def shut(self) -> None:
        """Take no new connections and calls; those that are open go on. Who comes later, for it was accepted before,
        is closed unread: a request that we took and could not answer would be asked again, and count twice.
        """
        self._take_no_more()
        for peer in tuple(self.peers):
            peer.connection.shut()

    async def stop(self, within_s: float) -> None:
        """End the calls that are left, write what is queued, and close."""
        self._take_no_more()
        for peer in tuple(self.peers):
            peer.connection.finish()
        if self.peers:
            self._empty.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), within_s)
        for peer in tuple(self.peers):
            peer.close()
        if self._ticking is not None:
            self._ticking.cancel()
            self._ticking = None

    def _begin(self) -> None:
        if self._ticking is None:
            self._ticking = asyncio.get_running_loop().call_later(_TICK_S, self._tick)

    def _take_no_more(self) -> None:
        self._shut = True
        if self._server is not None:
            self._server.close()

    def opened(self, peer: Http2Protocol) -> bool:
        """As `Owner.opened`."""
        if self._shut:
            peer.close()
            return True
        room = len(self.peers) < self.bounds.connections.most or self._make_room()
        self.peers[peer] = None
        if self._draining:
            peer.connection.drain()
        return room

    def closed(self, peer: Http2Protocol) -> None:
        """As `Owner.closed`."""
        self.peers.pop(peer, None)
        if not self.peers:
            self._empty.set()

    def refused(self, why: Refusal, peer: str, detail: str = "") -> None:
        """As `Owner.refused`."""
        self._observer.refused(why)
        self.refusals.note(why, peer, detail)

    def _protocol(self) -> Http2Protocol:
        tls = None if self._tls is None else self._tls()
        return Http2Protocol(self, tls, self._plaintext, self._connection)

    def _connection(self, wake: Callable[[], None]) -> Connection:
        return Connection(self._serve, self.bounds, self.shared, self._clock, wake)

    def _tick(self) -> None:
        self._ticking = asyncio.get_running_loop().call_later(_TICK_S, self._tick)
        for peer in tuple(self.peers):
            try:
                peer.tick()
            except Exception:
                log.exception("a connection failed and is closed")
                peer.close()

    def _make_room(self) -> bool:
        idle = [(since, peer) for peer in self.peers if (since := peer.connection.idle_since) is not None]
        if not idle:
            return False
        # First who has not even shaken hands: else a crowd of those would push out gateways that rest.
        _, peer = min(idle, key=lambda each: (each[1].connection.settled, each[0]))
        del self.peers[peer]
        peer.close()
        return True

    def _shed(self) -> None:
        """The stream that holds most, on the connection that holds most, is reset."""
        peer = max(self.peers, key=lambda each: each.connection.streams.held, default=None)
        if peer is not None and (largest := peer.connection.largest()) is not None:
            largest.reset(Code.ENHANCE_YOUR_CALM)


def _used(connection: Connection, since: float) -> bool:
    idle_since = connection.idle_since
    return connection.expects_more and (idle_since is None or idle_since >= since)
