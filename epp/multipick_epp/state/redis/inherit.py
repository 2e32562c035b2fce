"""Reads what an endpoint's last owner left, once nobody but the reader writes there any more."""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from multipick_epp.state.cache import Cache
from multipick_epp.state.caches import CACHES_AT_MOST
from multipick_epp.state.redis import replies
from multipick_epp.state.redis.connection import Connection, WrongTypeError
from multipick_epp.state.redis.fences import Fences
from multipick_epp.state.redis.keys import Keys
from multipick_epp.state.redis.malformed import Malformed
from multipick_epp.state.redis.notes import NotesRead
from multipick_epp.state.redis.records import MALFORMED, cache_name, cache_named, read_members
from multipick_epp.state.succession import Inheritance, Position
from multipick_epp.types import BlockKey, Endpoint

FIELDS_A_SCAN: Final = 4_000
"""A millisecond of the server's time. On a busy machine it is the round trips that take long."""
ENTRIES_AT_MOST: Final = 1 << 22
"""As many blocks, or names, as an ingest holds of one endpoint."""


async def inherit(
    connection: Connection, keys: Keys, fences: Fences, endpoint: Endpoint, position: Position, malformed: Malformed
) -> Inheritance | None:
    """All of it, or None where something is missing, or not as we write it. Raises `LostError`."""
    try:
        caches = await _caches(connection, fences, endpoint)
        reading = asyncio.gather(*(_blocks(connection, keys, cache) for cache in caches))
        notes, blocks = await asyncio.gather(_notes(connection, keys, endpoint), reading)
    except (*MALFORMED, WrongTypeError) as error:
        malformed.skip("notes", endpoint, error)
        return None
    return Inheritance(position, dict(zip(caches, blocks, strict=True)), notes.names, notes.copies)


async def _notes(connection: Connection, keys: Keys, endpoint: Endpoint) -> NotesRead:
    notes = NotesRead()
    async for step in _scan(connection, "HSCAN", keys.notes(endpoint)):
        notes.add(dict(zip(step[::2], step[1::2], strict=True)))
        if notes.length > ENTRIES_AT_MOST:
            raise ValueError("too many names")
        await asyncio.sleep(0)
    if not notes.complete:
        raise ValueError("the notes were evicted")
    return notes


async def _caches(connection: Connection, fences: Fences, endpoint: Endpoint) -> list[Cache]:
    names = await fences.cache_names(connection, endpoint)
    caches = [cache_named(name) for name in names]
    if len(caches) > CACHES_AT_MOST or any(
        cache.endpoint != endpoint or cache_name(cache) != name for cache, name in zip(caches, names, strict=True)
    ):
        raise ValueError("caches that are not ours")
    return caches


async def _blocks(connection: Connection, keys: Keys, cache: Cache) -> set[BlockKey]:
    blocks: set[BlockKey] = set()
    complete = False
    async for members in _scan(connection, "SSCAN", keys.blocks(cache_name(cache))):
        found, others = read_members(members)
        blocks.update(found)
        complete = complete or b"" in members
        if others or len(blocks) > ENTRIES_AT_MOST:
            raise ValueError("members that are no block keys, or too many")
        await asyncio.sleep(0)
    if not complete:
        raise ValueError("a cache's blocks were evicted")
    return blocks


async def _scan(connection: Connection, command: str, key: str | bytes) -> AsyncIterator[list[bytes]]:
    cursor = b""
    while cursor != b"0":
        step = await connection.read(command, key, cursor or 0, "COUNT", FIELDS_A_SCAN)
        cursor, found = replies.scanned(step)
        yield found
