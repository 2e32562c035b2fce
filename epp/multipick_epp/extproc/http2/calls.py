"""What can be called: `Process` of ext_proc, which is a `Conversation`, and the health service."""

import asyncio
from collections.abc import Callable
from typing import Final

from google.protobuf.message import DecodeError

from multipick_epp.extproc.health import EXT_PROC_SERVICE, Health, ServingStatus
from multipick_epp.extproc.http2.grpc import CallError, Status
from multipick_epp.extproc.http2.headers import Request
from multipick_epp.extproc.http2.stream import Call, Stream
from multipick_epp.proto.grpc_health_pb2 import HealthCheckRequest, HealthCheckResponse

PROCESS: Final = f"/{EXT_PROC_SERVICE}/Process"
CHECK: Final = "/grpc.health.v1.Health/Check"
WATCH: Final = "/grpc.health.v1.Health/Watch"

Method = Callable[[Stream], Call]


def serve(methods: dict[str, Method]) -> Callable[[Request, Stream], Call | CallError]:
    """Answers requests by these methods, by path."""
    unknown = CallError(Status.UNIMPLEMENTED, "unknown method")

    def answer(request: Request, stream: Stream) -> Call | CallError:
        method = methods.get(request.path)
        return unknown if method is None else method(stream)

    return answer


class _HealthCall:
    """A call of the health service: one message from the peer, which names a service."""

    def __init__(self, stream: Stream, health: Health) -> None:
        self._stream = stream
        self._health = health
        self._asked = False

    def message(self, data: bytes) -> None:
        """As `Call.message`."""
        if self._asked:
            self._stream.fail(CallError(Status.INTERNAL, "more than one request"))
            return
        self._asked = True
        try:
            service = HealthCheckRequest.FromString(data).service
        except DecodeError:
            self._stream.fail(CallError(Status.INTERNAL, "unreadable request"))
            return
        self.asked(service)

    def asked(self, service: str) -> None:
        """The peer asks for this service."""
        raise NotImplementedError

    def half_closed(self) -> None:
        """As `Call.half_closed`."""
        if not self._asked:
            self._stream.fail(CallError(Status.INTERNAL, "no request"))

    def closed(self) -> None:
        """As `Call.closed`."""

    def _tell(self, status: ServingStatus) -> None:
        self._stream.send(HealthCheckResponse(status=status.name).SerializeToString())


class CheckCall(_HealthCall):
    """The status, once."""

    def asked(self, service: str) -> None:
        """As `_HealthCall.asked`."""
        status = self._health.status(service)
        if status is ServingStatus.SERVICE_UNKNOWN:
            self._stream.fail(CallError(Status.NOT_FOUND, "unknown service"))
        else:
            self._tell(status)
            self._stream.end()


class WatchCall(_HealthCall):
    """The status now, and each that differs from the one before."""

    _watching: asyncio.Task[None] | None = None

    def asked(self, service: str) -> None:
        """As `_HealthCall.asked`."""
        self._watching = asyncio.get_running_loop().create_task(self._watch(service))

    def closed(self) -> None:
        """As `Call.closed`."""
        if self._watching is not None:
            self._watching.cancel()

    async def _watch(self, service: str) -> None:
        async for status in self._health.watch(service):
            self._tell(status)
