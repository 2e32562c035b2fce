"""What an owner asks of the store, as calls of the scripts."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from multipick_epp.state.caches import CACHES_AT_MOST
from multipick_epp.state.protocol import Applied
from multipick_epp.state.redis import fences, notes, replies
from multipick_epp.state.redis.connection import Argument, Connection, LostError, WrongTypeError
from multipick_epp.state.redis.inherit import inherit
from multipick_epp.state.redis.keys import KEEP_S, LOG_ENTRIES, Keys
from multipick_epp.state.redis.malformed import Malformed
from multipick_epp.state.redis.parts import Part
from multipick_epp.state.redis.reasons import AWAY, PROTOCOL
from multipick_epp.state.redis.records import cache_name, delta_record, mode_named, mode_record, owner_record
from multipick_epp.state.redis.scripts import install, load
from multipick_epp.state.redis.sets import NAMES_AT_MOST
from multipick_epp.state.succession import Inheritance, Notes, Position, Tenure
from multipick_epp.types import Endpoint, Mode, ReplicaId

_TRIES: Final = 5
MID_WRITE_S: Final = 0.5
"""Blocks and what belongs to them are written one after the other: a living owner is through with both within this."""
_LOOK_S: Final = 0.01
INHERIT_S: Final = 0.7
"""So long does the mode that an endpoint had stand while what was left of it is read: nobody writes there meanwhile."""


def now_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class Taken(NamedTuple):
    """What `lua/take.lua` tells of the endpoint: not what its notes say, but whether there are any to be read."""

    epoch: int
    last: int
    position: Position | None
    mode: Mode | None

    def tenure(self, left: Inheritance | None) -> Tenure:
        """With what its notes say."""
        return Tenure(self.epoch, self.last, self.mode, left)


class Calls:
    """Each raises `LostError`; where there is no `connection`, with the reason `away`."""

    def __init__(self, keys: Keys, replica: ReplicaId, malformed: Malformed) -> None:
        self.connection: Connection | None = None
        self._keys = keys
        self._fences = fences.Fences(keys)
        self._replica = replica
        self._malformed = malformed
        names = ("take", "apply", "note", "clear", "replace", "drop")
        self._scripts = {name: load(name) for name in names}
        self._scripts["mode"] = load("mode", when_full=True)  # a full store is when it has to be said

    async def install(self, connection: Connection) -> None:
        """Make the server know the scripts."""
        await install(connection, *self._scripts.values(), self._fences.script)

    async def holder(self, endpoint: Endpoint) -> bytes | None:
        """Who owns the endpoint."""
        try:
            name = await self._connected().read("HGET", self._keys.holders, endpoint)
        except WrongTypeError:
            return None
        return None if name is None else replies.string(name)

    async def take_over(self, endpoint: Endpoint, keeps: bool) -> Tenure:
        """Become the endpoint's owner, and read what the last one left.

        `keeps`: the last one still followed it, so that what he said of it stands.
        """
        taken = await self._take(endpoint, keeps)
        return taken.tenure(None) if taken.position is None else await self._inherit(endpoint, taken, taken.position)

    def apply(self, parts: Sequence[Part]) -> "asyncio.Future[Any]":
        """Write one call's parts. Gives an outcome for each."""
        pool = self._keys
        keys: list[Argument] = [pool.log]
        arguments: list[Argument] = [LOG_ENTRIES, CACHES_AT_MOST, KEEP_S]
        for part in parts:
            name, endpoint = cache_name(part.cache), part.cache.endpoint
            keys += (pool.fence(endpoint), pool.notes(endpoint), pool.blocks(name))
            arguments += (name, part.epoch, part.first, part.last, len(part.stored), len(part.removed))
            arguments.append(delta_record(part.cache, part.stored, part.removed))
        return self._call("apply", tuple(keys), *arguments)

    def note(self, endpoint: Endpoint, epoch: int, news: Notes) -> "list[asyncio.Future[Any]]":
        """Write the notes. Each gives an outcome."""
        keys = (self._keys.fence(endpoint), self._keys.notes(endpoint))
        return [self._call("note", keys, *arguments) for arguments in notes.calls_of(epoch, news)]

    async def clear(self, endpoint: Endpoint, epoch: int, seq: int, medium: str | None) -> Applied:
        """Empty the caches on a medium, or all."""
        pool = self._keys
        names = [name for name in await self._caches(endpoint) if fences.is_on(medium, name, self._malformed)]
        keys: tuple[Argument, ...] = (pool.log, pool.fence(endpoint), pool.notes(endpoint), *map(pool.blocks, names))
        return replies.outcome(await self._call("clear", keys, LOG_ENTRIES, epoch, seq, KEEP_S, *names))

    async def void(self, endpoint: Endpoint, epoch: int, seq: int) -> bool:
        """Void all that is known of the endpoint; False where somebody else has taken it over."""
        pool = self._keys
        fixed = (pool.log, pool.endpoints, pool.fence(endpoint), pool.notes(endpoint))
        for _ in range(_TRIES):
            names = await self._caches(endpoint)
            keys: tuple[Argument, ...] = (*fixed, *map(pool.blocks, names))
            done = await self._call("replace", keys, LOG_ENTRIES, endpoint, epoch, seq, KEEP_S, *names)
            if replies.number(done) != -1:
                return bool(done)
        raise LostError("busy", f"{endpoint} has two writers")

    async def drop(self, endpoint: Endpoint) -> None:
        """Forget the endpoint."""
        pool = self._keys
        fixed = (pool.log, pool.endpoints, pool.modes, pool.holders, pool.fence(endpoint), pool.notes(endpoint))
        for _ in range(_TRIES):
            names = await self._caches(endpoint)
            keys: tuple[Argument, ...] = (*fixed, *map(pool.blocks, names))
            if await self._call("drop", keys, LOG_ENTRIES, endpoint, *names) == 1:
                return
        raise LostError("busy", f"{endpoint} is written while it is dropped")

    def mode(self, endpoint: Endpoint, epoch: int, mode: Mode) -> "asyncio.Future[Any]":
        """Say how well the endpoint is known, here and now: what is said later is to stand. Gives an outcome."""
        keys = (self._keys.log, self._keys.modes, self._keys.holders, self._keys.fence(endpoint))
        said = str(mode), mode_record(endpoint, mode), self._replica, owner_record(self._replica, endpoint)
        return self._call("mode", keys, LOG_ENTRIES, endpoint, epoch, *said, NAMES_AT_MOST)

    async def _take(self, endpoint: Endpoint, keeps: bool) -> Taken:
        """Between two writes of the owner before us, if it lives: what is torn can't be gone on from."""
        pool, loop = self._keys, asyncio.get_running_loop()
        keys = (pool.log, pool.endpoints, pool.modes, pool.holders, pool.fence(endpoint), pool.notes(endpoint))
        doubt = str(Mode.APPROX), mode_record(endpoint, Mode.APPROX)
        record = owner_record(self._replica, endpoint)
        fixed = (LOG_ENTRIES, endpoint, self._replica, *doubt, record, KEEP_S, int(keeps))
        until = loop.time() + MID_WRITE_S
        while loop.time() < until:
            if reply := replies.listed(await self._call("take", keys, *fixed, 1, now_ms())):
                return _taken(reply)
            await asyncio.sleep(_LOOK_S)
        return _taken(await self._call("take", keys, *fixed, 0, now_ms()))

    async def _inherit(self, endpoint: Endpoint, taken: Taken, position: Position) -> Tenure:
        reading = asyncio.ensure_future(
            inherit(self._connected(), self._keys, self._fences, endpoint, position, self._malformed)
        )
        try:
            done, _ = await asyncio.wait([reading], timeout=INHERIT_S)
            if not done and taken.mode is Mode.EXACT:
                taken = taken._replace(mode=Mode.APPROX)
                await self.mode(endpoint, taken.epoch, Mode.APPROX)
            return taken.tenure(await reading)
        finally:
            reading.cancel()

    async def _caches(self, endpoint: Endpoint) -> list[bytes]:
        return await self._fences.cache_names(self._connected(), endpoint)

    def _connected(self) -> Connection:
        if self.connection is None:
            raise LostError(AWAY)
        return self.connection

    def _call(self, name: str, keys: tuple[Argument, ...], *arguments: Argument) -> "asyncio.Future[Any]":
        if self.connection is None:
            away: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            away.set_exception(LostError(AWAY))
            return away
        return self.connection.call(*self._scripts[name].command(keys, *arguments))


def _taken(reply: object) -> Taken:
    epoch, last, position, mode = map(replies.string, replies.listed(reply, 4))
    number = fences.position([epoch, last])
    if number is None:
        raise LostError(PROTOCOL, "an epoch that is none")
    return Taken(*number, notes.position_of(position) if position else None, mode_named(mode))
