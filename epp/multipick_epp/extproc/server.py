"""Carries streams over gRPC: the server of grpc.aio, which moves bytes and knows nothing of their meaning.

Not limited: the number of streams. Envoy keeps one connection a worker thread and queues nothing: a refused stream is a
failed request. Limited: connections that are none of a gateway. One that has not said HTTP/2's first words in time is
closed; one that is quiet is asked whether it lives; one that long had no stream gets a GOAWAY, which loses no request.
"""

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any, Final

import grpc

from multipick_epp.extproc.connections import Connections
from multipick_epp.extproc.drain import UNDECIDED_S, stop_all
from multipick_epp.extproc.driver import Common, Conversation, StreamOptions
from multipick_epp.extproc.health import EXT_PROC_SERVICE, Health, ServingStatus
from multipick_epp.extproc.interfaces import Observer
from multipick_epp.extproc.pick import Picker
from multipick_epp.extproc.tls import Certificate
from multipick_epp.proto.grpc_health_pb2 import HealthCheckRequest, HealthCheckResponse
from multipick_epp.tasks.quiet import quiet

_OUTBOX: Final = 64  # messages that wait to be written before no more are read: 4 MB of body
_MESSAGE_BYTES: Final = 128 << 20  # the largest message that is read at least, whatever the limit on bodies
_GOODBYE_S: Final = 2.0  # for the last writes, once every stream was told to end


class ExtProcServer:
    """The ext_proc service, and health beside it on the same port."""

    def __init__(
        self,
        picker: Picker,
        health: Health,
        observer: Observer,
        settings: StreamOptions,
        certificate: Certificate | None = None,
        connections: Connections | None = None,
    ) -> None:
        """Without a certificate, plaintext."""
        self._picker = picker
        self._health = health
        self._observer = observer
        self._settings = settings
        self._certificate = certificate
        self._common = Common(settings)
        process = grpc.stream_stream_rpc_method_handler(self._process)
        handlers = (
            grpc.method_handlers_generic_handler(EXT_PROC_SERVICE, {"Process": process}),
            health_handler(health),
        )
        # A body above the limit still gets in, to be answered with 413: an oversize message would be a broken stream.
        self._server = _server(
            handlers, max(2 * settings.bounds.max_body_bytes, _MESSAGE_BYTES), connections or Connections()
        )

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port, which port 0 leaves to the system. Raises RuntimeError where it can't be had."""
        bound: int
        if self._certificate is None:
            bound = self._server.add_insecure_port(_address(host, port))
        else:
            bound = self._server.add_secure_port(_address(host, port), _credentials(self._certificate))
        await self._server.start()
        return bound

    @property
    def refused(self) -> Mapping[str, str]:
        """Not known: grpc.aio tells nobody."""
        return {}

    async def drain(self, deadline_s: float) -> None:
        """Not ready at once; answer on until nothing is open or the deadline is there; then end what is left."""
        self._health.drain()
        await quiet(lambda: self._common.open, deadline_s)
        stopping = asyncio.create_task(self._server.stop(UNDECIDED_S + _GOODBYE_S))
        await asyncio.sleep(0)  # from then on it takes no new calls
        await stop_all(self._common.open)
        await stopping

    async def _process(self, _requests: object, context: Any) -> None:
        wire = _Wire()
        conversation = Conversation(wire, self._picker, self._observer, self._settings, self._common)
        reading = asyncio.create_task(wire.read(context, conversation))
        try:
            with contextlib.suppress(Exception):  # the connection broke: no error of ours
                await wire.write(context)
        finally:  # also where the gateway cancelled
            reading.cancel()
            conversation.closed()


class HealthServer:
    """Health alone, on a port of its own."""

    def __init__(self, health: Health) -> None:
        self._server = _server((health_handler(health),), 4096, Connections(most=256))

    async def start(self, host: str, port: int) -> int:
        """As `ExtProcServer.start`."""
        bound: int = self._server.add_insecure_port(_address(host, port))
        await self._server.start()
        return bound

    async def stop(self) -> None:
        """Close the port and end the watches."""
        await self._server.stop(None)


def health_handler(health: Health) -> Any:
    """grpc.health.v1 over one `Health`."""

    async def check(data: bytes, context: Any) -> bytes:
        status = health.status(_service(data))
        if status is ServingStatus.SERVICE_UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return _health_reply(status)

    async def watch(data: bytes, context: Any) -> None:
        async for status in health.watch(_service(data)):
            await context.write(_health_reply(status))

    return grpc.method_handlers_generic_handler(
        "grpc.health.v1.Health",
        {"Check": grpc.unary_unary_rpc_method_handler(check), "Watch": grpc.unary_stream_rpc_method_handler(watch)},
    )


class _Wire:
    """The transport of one conversation: an outbox, and whether to read on."""

    def __init__(self) -> None:
        self._outbox: asyncio.Queue[bytes | None] = asyncio.Queue()  # None: the end
        self._may_read = asyncio.Event()  # clear while paused, or while the outbox is full
        self._may_read.set()
        self._paused = False

    def send(self, data: bytes) -> None:
        self._outbox.put_nowait(data)
        self._regulate()

    def end(self) -> None:
        self._outbox.put_nowait(None)

    def pause(self) -> None:
        self._paused = True
        self._regulate()

    def resume(self) -> None:
        self._paused = False
        self._regulate()

    async def read(self, context: Any, conversation: Conversation) -> None:
        """Hand over what arrives, until the gateway half-closes. Whether it is still there shows where we write."""
        with contextlib.suppress(Exception):  # the connection broke: no error of ours
            while (data := await context.read()) is not grpc.aio.EOF:
                conversation.message(data)
                await self._may_read.wait()
        conversation.half_closed()

    async def write(self, context: Any) -> None:
        """Send what comes into the outbox, until the end."""
        while (data := await self._outbox.get()) is not None:
            await context.write(data)
            self._regulate()

    def _regulate(self) -> None:
        if self._paused or self._outbox.qsize() >= _OUTBOX:
            self._may_read.clear()
        else:
            self._may_read.set()


def _server(handlers: tuple[Any, ...], max_message_bytes: int, connections: Connections) -> Any:
    options = (
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.so_reuseport", 0),  # a second picker on the port is a mistake, not a second listener
        ("grpc.http2.max_ping_strikes", 0),  # Envoy's keepalive pings on quiet streams are welcome
        ("grpc.max_allowed_incoming_connections", connections.most),
        ("grpc.server_handshake_timeout_ms", _ms(connections.handshake_s)),
        ("grpc.max_connection_idle_ms", _ms(connections.idle_s)),
        ("grpc.keepalive_time_ms", _ms(connections.ping_s)),
        ("grpc.keepalive_timeout_ms", _ms(connections.pong_s)),
        ("grpc.keepalive_permit_without_calls", 1),
    )
    server = grpc.aio.server(options=options)
    server.add_generic_rpc_handlers(handlers)
    return server


def _ms(seconds: float) -> int:
    return int(seconds * 1000)


def _credentials(certificate: Certificate) -> Any:
    """Credentials that are asked of the certificate again for each connection."""

    def current() -> Any:
        identity = certificate.identity
        return grpc.ssl_server_certificate_configuration([(identity.key, identity.cert)], identity.client_ca)

    return grpc.dynamic_ssl_server_credentials(
        current(), current, require_client_authentication=certificate.identity.client_ca is not None
    )


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _service(data: bytes) -> str:
    return HealthCheckRequest.FromString(data).service


def _health_reply(status: ServingStatus) -> bytes:
    return HealthCheckResponse(status=status.name).SerializeToString()
