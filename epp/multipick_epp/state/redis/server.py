"""A connection to the store: one server, the master that Sentinels know, or the node of a Cluster that has the keys."""

import asyncio

from multipick_epp.state.redis import replies
from multipick_epp.state.redis.address import Server
from multipick_epp.state.redis.connection import Connection, LostError
from multipick_epp.state.redis.dial import dial
from multipick_epp.state.redis.discovery import master_of, node_of
from multipick_epp.state.redis.reasons import DENIED, SLOW

OPEN_S = 2.0
"""For a usable connection to a server: its name, TCP, TLS, password."""
SEED_S = 1.0
"""For the answer of one Sentinel, or of one node of a Cluster; then the next one is asked."""


async def open_connection(server: Server, tag: str, stall_s: float) -> Connection:
    """A connection to the node that has the keys that begin with `tag`, braces and all. Raises `LostError`.

    Of several seeds each is asked in its turn until what it answers leads to a usable connection.
    """
    lost: LostError | None = None
    for seed in server.hosts or (("", 0),):
        try:
            return await _by_seed(server, seed, tag, stall_s)
        except LostError as error:
            if lost is None or lost.reason != DENIED:  # what somebody has to put right is told before all else
                lost = error
    assert lost is not None
    raise lost


async def _by_seed(server: Server, seed: tuple[str, int], tag: str, stall_s: float) -> Connection:
    try:
        async with asyncio.timeout(SEED_S):
            host, port = await _address(server, seed, tag)
    except TimeoutError as error:
        raise LostError(SLOW, f"{seed[0]}:{seed[1]} does not answer within {SEED_S:g} s") from error
    try:
        async with asyncio.timeout(OPEN_S):
            return await _usable(server, host, port, stall_s)
    except TimeoutError as error:
        raise LostError(SLOW, f"no connection within {OPEN_S:g} s") from error


async def _address(server: Server, seed: tuple[str, int], tag: str) -> tuple[str, int]:
    if not server.kind:
        return seed
    return await (master_of(server, seed) if server.kind == "sentinel" else node_of(server, seed, tag))


async def _usable(server: Server, host: str, port: int, stall_s: float) -> Connection:
    connection = await dial(server, host, port, server.password, stall_s)
    try:
        if server.database:
            await connection.call("SELECT", server.database)
        if server.kind == "sentinel" and replies.at_least(await connection.call("ROLE"), 1)[0] != b"master":
            raise LostError("moved", "Sentinel named a server that is no master")
    except BaseException:
        connection.close()
        raise
    return connection
