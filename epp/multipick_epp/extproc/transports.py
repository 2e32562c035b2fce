"""The two servers that can carry ext_proc and health: our own HTTP/2, and grpc.aio, which is the reference."""

from collections.abc import Mapping
from typing import Literal, Protocol

from multipick_epp.extproc.connections import Connections
from multipick_epp.extproc.driver import StreamOptions
from multipick_epp.extproc.health import Health
from multipick_epp.extproc.http2 import server as http2
from multipick_epp.extproc.http2.listener import Refused
from multipick_epp.extproc.interfaces import Observer as StreamObserver
from multipick_epp.extproc.pick import Picker
from multipick_epp.extproc.tls import Certificate

Transport = Literal["h2", "grpc"]


class Observer(StreamObserver, Refused, Protocol):
    """Who counts what happens on streams and to connections."""


class ExtProcServer(Protocol):
    """The ext_proc service, and health beside it on the same port."""

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port, which port 0 leaves to the system. Raises RuntimeError where it can't be had."""

    @property
    def refused(self) -> Mapping[str, str]:
        """Why connections were cut of late, each with the address of the last peer; grpc.aio tells nobody."""

    async def drain(self, deadline_s: float) -> None:
        """Not ready at once; answer on until nothing is open or the deadline is there; then end what is left.

        The streams end with status OK: a stream that breaks would break the response it accompanies.
        """


class HealthServer(Protocol):
    """Health alone, on a port of its own; always plaintext, as probes are."""

    async def start(self, host: str, port: int) -> int:
        """As `ExtProcServer.start`."""

    async def stop(self) -> None:
        """Close the port and end the watches."""


def ext_proc_server(
    transport: Transport,
    picker: Picker,
    health: Health,
    observer: Observer,
    settings: StreamOptions,
    certificate: Certificate | None = None,
    connections: Connections | None = None,
) -> ExtProcServer:
    """Not listening yet. Without a certificate, plaintext."""
    if transport == "grpc":
        from multipick_epp.extproc import server as grpc_aio  # only here, for it loads grpcio: 15 MB

        return grpc_aio.ExtProcServer(picker, health, observer, settings, certificate, connections)
    return http2.Http2ExtProcServer(picker, health, observer, settings, observer, certificate, connections)


def health_server(transport: Transport, health: Health, observer: Refused) -> HealthServer:
    """Not listening yet."""
    if transport == "grpc":
        from multipick_epp.extproc import server as grpc_aio

        return grpc_aio.HealthServer(health)
    return http2.Http2HealthServer(health, observer)
