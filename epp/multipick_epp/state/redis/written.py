"""Watches over what this process wrote: whether the store still has it, and that it does not expire."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Final

from multipick_epp.state.redis import replies
from multipick_epp.state.redis.connection import Argument, Connection, WrongTypeError
from multipick_epp.state.redis.fences import Fences, position
from multipick_epp.state.redis.keys import KEEP_S, Keys
from multipick_epp.state.redis.scripts import install, load
from multipick_epp.types import Endpoint

REFRESH_S: Final = 60.0


class Written:
    """What it finds missing, it returns: no event may come for long, so the owner has to be told."""

    def __init__(self, keys: Keys) -> None:
        self._script = load("keep")
        self._fences = Fences(keys)
        self._keys = keys

    async def install(self, connection: Connection) -> None:
        """Make the server know the scripts."""
        await install(connection, self._script, self._fences.script)

    async def lacking(self, connection: Connection, wrote: Mapping[Endpoint, tuple[int, int]]) -> set[Endpoint]:
        """Those of which the store, which may be back with an older save, has less than the epoch and sequence given.

        Raises `LostError`.
        """
        reads = [connection.read("HMGET", self._keys.fence(endpoint), "epoch", "last") for endpoint in wrote]
        found = await asyncio.gather(*reads, return_exceptions=True)
        lacking = set()
        for (endpoint, ours), fence in zip(wrote.items(), found, strict=True):
            if isinstance(fence, BaseException) and not isinstance(fence, WrongTypeError):
                raise fence
            stands = position(fence)
            if stands is None or stands < ours:
                lacking.add(endpoint)
        return lacking

    async def keep(self, connection: Connection, endpoints: Iterable[Endpoint]) -> set[Endpoint]:
        """Let nothing of these expire; those of which something is lost. Raises `LostError`."""
        endpoints = list(endpoints)
        intact = await asyncio.gather(*(self._keep(connection, endpoint) for endpoint in endpoints))
        return {endpoint for endpoint, whole in zip(endpoints, intact, strict=True) if not whole}

    async def _keep(self, connection: Connection, endpoint: Endpoint) -> bool:
        pool = self._keys
        names = await self._fences.cache_names(connection, endpoint)
        own = pool.fence(endpoint), pool.notes(endpoint)
        keys: tuple[Argument, ...] = (pool.endpoints, *own, *map(pool.blocks, names))
        return bool(replies.number(await connection.call(*self._script.command(keys, endpoint, KEEP_S))))
