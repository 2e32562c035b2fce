"""How a pod can be made sick, in dev mode only: for tests of whoever routes to it. The engine itself stays well."""

import asyncio
from enum import StrEnum
from typing import Annotated, Final

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from multipick_sim.pod.publisher import BUFFER_STEPS, EventFlow
from multipick_sim.pod.shapes import error_body

CONTROL: Final = "/sim/"
"""What begins so is answered whatever the pod suffers from."""


class Suffering(StrEnum):
    """Which requests a sick pod treats badly."""

    ALL = "all"
    POSTS = "posts"  # health, models and metrics look well


class Sickness(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `POST /sim/sick`; by default a pod is well."""

    status: Annotated[int, msgspec.Meta(ge=400, le=599)] | None = None  # answered at once, instead of what was asked
    hang: bool = False  # requests are accepted, and answered only when the pod is well again
    requests: Suffering = Suffering.ALL  # whom `status` and `hang` concern
    events: EventFlow = EventFlow.FLOWS
    replays: bool = True  # False: replay requests get no answer
    replay_batches: Annotated[int, msgspec.Meta(ge=1, le=BUFFER_STEPS)] = BUFFER_STEPS  # so many can be replayed


class Ward:
    """Keeps how the pod is sick, and treats its requests accordingly."""

    def __init__(self) -> None:
        self.sickness = Sickness()
        self.drawn = 0  # requests for answers that were treated badly, since the pod was last well
        self._changed = asyncio.Event()

    def fall(self, sickness: Sickness) -> None:
        """Be sick so from now on; what hung under another sickness goes on."""
        if sickness == Sickness():
            self.drawn = 0
        self.sickness = sickness
        self._changed.set()
        self._changed = asyncio.Event()

    @web.middleware
    async def treat(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """A middleware; see `Sickness`."""
        if self._suffers(request):
            self.drawn += request.method == "POST" and request.path.startswith("/v1/")
            while self.sickness.hang and self._suffers(request):
                await self._changed.wait()
            if (status := self.sickness.status) is not None and self._suffers(request):
                body = error_body(status, "InternalServerError", "This pod is sick.")
                return web.Response(status=status, body=body, content_type="application/json")
        return await handler(request)

    def _suffers(self, request: web.Request) -> bool:
        sick = self.sickness
        concerned = request.method == "POST" or sick.requests is Suffering.ALL
        return (sick.hang or sick.status is not None) and concerned and not request.path.startswith(CONTROL)
