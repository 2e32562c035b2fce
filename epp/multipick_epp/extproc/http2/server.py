"""The ext_proc service and health over our own HTTP/2: what `extproc.server` is over grpc.aio."""

from collections.abc import Mapping
from typing import Final

from multipick_epp.extproc.connections import Connections
from multipick_epp.extproc.drain import stop_all
from multipick_epp.extproc.driver import Common, Conversation, StreamOptions
from multipick_epp.extproc.health import Health
from multipick_epp.extproc.http2 import calls
from multipick_epp.extproc.http2.bounds import Bounds
from multipick_epp.extproc.http2.listener import Listener, Refused
from multipick_epp.extproc.http2.stream import Stream
from multipick_epp.extproc.interfaces import Observer
from multipick_epp.extproc.pick import Picker
from multipick_epp.extproc.tls import Certificate
from multipick_epp.tasks.quiet import quiet

_MESSAGE_BYTES: Final = 128 << 20  # the largest message that is read at least, whatever the limit on bodies
_GOODBYE_S: Final = 2.0  # for the last writes, once every stream was told to end


class Http2ExtProcServer:
    """The ext_proc service, and health beside it on the same port."""

    def __init__(
        self,
        picker: Picker,
        health: Health,
        observer: Observer,
        settings: StreamOptions,
        refused: Refused,
        certificate: Certificate | None = None,
        connections: Connections | None = None,
    ) -> None:
        """Without a certificate, plaintext."""
        self._health = health
        common = Common(settings)
        self._open = common.open

        def process(stream: Stream) -> Conversation:
            return Conversation(stream, picker, observer, settings, common)

        # A body above the limit still gets in, to be answered with 413: an oversize message would be a broken stream.
        bounds = Bounds(connections or Connections(), message=max(2 * settings.bounds.max_body_bytes, _MESSAGE_BYTES))
        methods = _health_methods(health) | {calls.PROCESS: process}
        tls = None if certificate is None else certificate.context
        plaintext = certificate is None or certificate.plaintext
        self.listener = Listener(calls.serve(methods), refused, tls, bounds, plaintext=plaintext)

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port, which port 0 leaves to the system. Raises RuntimeError where it can't be had."""
        return await self.listener.start(host, port)

    @property
    def refused(self) -> Mapping[str, str]:
        """As `transports.ExtProcServer.refused`."""
        return self.listener.refusals.lately

    async def drain(self, deadline_s: float) -> None:
        """Not ready at once; answer on until nothing is open and all peers know, or the deadline is there; then end
        what is left.
        """
        self._health.drain()
        self.listener.drain()
        await quiet(lambda: self._open or self.listener.expects_more, deadline_s)
        self.listener.shut()
        await stop_all(self._open)
        await self.listener.stop(_GOODBYE_S)


class Http2HealthServer:
    """Health alone, on a port of its own; always plaintext, as probes are."""

    def __init__(self, health: Health, refused: Refused) -> None:
        bounds = Bounds(Connections(most=256), message=4096, streams=100)
        self.listener = Listener(calls.serve(_health_methods(health)), refused, None, bounds)

    async def start(self, host: str, port: int) -> int:
        """As `Http2ExtProcServer.start`."""
        return await self.listener.start(host, port)

    async def stop(self) -> None:
        """Close the port and end the watches."""
        await self.listener.stop(0)


def _health_methods(health: Health) -> dict[str, calls.Method]:
    return {
        calls.CHECK: lambda stream: calls.CheckCall(stream, health),
        calls.WATCH: lambda stream: calls.WatchCall(stream, health),
    }
