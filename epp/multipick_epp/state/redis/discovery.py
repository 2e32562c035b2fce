"""Asks Sentinels, or the nodes of a Cluster, where the store is."""

from binascii import crc_hqx
from typing import Any

from multipick_epp.state.redis import replies
from multipick_epp.state.redis.address import Server
from multipick_epp.state.redis.connection import LostError
from multipick_epp.state.redis.dial import dial
from multipick_epp.state.redis.reasons import AWAY, PROTOCOL

_STALL_S = 5.0  # the caller waits less
SLOTS = 16384


async def master_of(server: Server, seed: tuple[str, int]) -> tuple[str, int]:
    """The master of the service, by one of its Sentinels. Raises `LostError`."""
    reply = await _ask(server, seed, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", server.service)
    if reply is None:
        raise LostError(AWAY, f"the Sentinel knows no {server.service!r}")
    host, port = map(replies.string, replies.listed(reply, 2))
    return _address(host, port)


async def node_of(server: Server, seed: tuple[str, int], tag: str) -> tuple[str, int]:
    """The node of the Cluster that has the keys with this hash tag, by one of its nodes. Raises `LostError`."""
    slot = crc_hqx(tag.strip("{}").encode(), 0) % SLOTS
    for entry in replies.listed(await _ask(server, seed, "CLUSTER", "SLOTS")):
        first, last, master, *_ = replies.at_least(entry, 3)
        if replies.number(first) <= slot <= replies.number(last):
            host, port, *_ = replies.at_least(master, 2)
            # A node that does not know its own name leaves it to who found it.
            return _address(host if host not in (None, b"", b"?") else seed[0].encode(), b"%d" % replies.number(port))
    raise LostError(AWAY, f"no node has slot {slot}")


async def _ask(server: Server, seed: tuple[str, int], *command: str) -> Any:
    password = server.sentinel_password if server.kind == "sentinel" else server.password
    connection = await dial(server, *seed, password, _STALL_S)
    try:
        return await connection.call(*command)
    finally:
        connection.close()


def _address(host: bytes, port: bytes) -> tuple[str, int]:
    try:
        number = int(port)
        name = host.decode("ascii")
    except ValueError as error:
        raise LostError(PROTOCOL, "not an address") from error
    if not name or not 0 < number < 1 << 16:
        raise LostError(PROTOCOL, "not an address")
    return name, number
