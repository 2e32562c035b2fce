"""Which models each engine serves now: adapters come and go while it runs (`/v1/load_lora_adapter`).

The engine's own list is the truth, and each picker reads it: `vllm:lora_requests_info` shows only adapters that have
requests at the moment.
"""

import asyncio
from contextlib import suppress

from multipick_epp.engines import EngineClient, Unanswered
from multipick_epp.pods.each import EachEngine
from multipick_epp.pods.registry import Registry
from multipick_epp.tasks.supervisor import Supervisor
from multipick_epp.types import Endpoint

LOOK_S = 5.0
FIRST_LOOK_S = 1.0  # until an engine has answered, once an incarnation


class ModelWatch:
    """Keeps the registry's word of what each engine serves true."""

    def __init__(self, registry: Registry, engines: EngineClient, supervisor: Supervisor) -> None:
        self._registry = registry
        self._engines = engines
        self._doubts: dict[Endpoint, asyncio.Event] = {}
        self._each = EachEngine(registry, supervisor, "model watch", self._watch)

    def start(self) -> None:
        """For the registry's engines, and those that come later."""
        self._each.start()

    async def close(self) -> None:
        """End it."""
        await self._each.close()

    def doubt(self, address: Endpoint) -> None:
        """It may serve something else by now: it answered 404. Look at once."""
        if doubt := self._doubts.get(address):
            doubt.set()

    async def _watch(self, address: Endpoint) -> None:
        doubt = self._doubts[address] = asyncio.Event()
        try:
            while True:
                engine = self._registry.engine(address)
                incarnation = engine.incarnation if engine else None
                answer = await self._engines.models(address)
                if not isinstance(answer, Unanswered) and engine and engine.incarnation == incarnation:
                    self._registry.serves(address, answer)
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S if engine and engine.served else FIRST_LOOK_S):
                        await doubt.wait()
                doubt.clear()
        finally:
            self._doubts.pop(address, None)
