"""One request on its way through a rank, as its HTTP handler sees it."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from multipick_sim.engine.values import Request
from multipick_sim.pod.kv_events import Content


@dataclass(slots=True, eq=False)
class Flow:
    """Tokens come in at the pace of the engine; a handler waits for as many as it wants to send at once.

    Times are engine seconds; None: not yet.
    """

    request: Request
    content: Content
    answer: Sequence[int]
    ends: bool  # the answer closes the turn: it stops by itself, not at a limit
    arrived_s: float
    admitted_s: float | None = None
    first_token_s: float | None = None
    finished_s: float | None = None
    hit_tokens: int = 0
    tokens: int = 0
    finish_reason: str | None = None
    _wanted: int = 1
    _wake: asyncio.Future[None] | None = field(default=None, repr=False)

    async def wait(self, tokens: int) -> None:
        """Return when so many tokens are there, or the request has ended."""
        if self.tokens < tokens and self.finish_reason is None:
            self._wanted = tokens
            self._wake = asyncio.get_running_loop().create_future()
            await self._wake

    async def wait_to_end(self) -> None:
        """Return when the request has ended."""
        await self.wait(self.request.output_tokens)

    def receive(self, tokens: int) -> None:
        """So many tokens are there by now."""
        self.tokens = tokens
        if tokens >= self._wanted:
            self._notify()

    def finish(self, reason: str) -> None:
        """No more tokens will come."""
        self.finish_reason = reason
        self._notify()

    def _notify(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)
