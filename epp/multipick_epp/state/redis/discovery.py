"""Asks Sentinels, or the nodes of a Cluster, where the store is. redis-py asks: it knows how these want to be asked.

Imported only where there is something to ask: redis-py takes 11 MB and 80 ms.
"""

import ssl
from binascii import crc_hqx
from typing import Any

from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from multipick_epp.state.redis import replies
from multipick_epp.state.redis.address import Server
from multipick_epp.state.redis.connection import LostError
from multipick_epp.state.redis.reasons import AWAY, DENIED, PROTOCOL, SLOW, reason_of

_DENIED = (
    exceptions.AuthenticationError,
    exceptions.AuthorizationError,
    exceptions.AuthenticationWrongNumberOfArgsError,
    exceptions.NoPermissionError,
)
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
    sentinel = server.kind == "sentinel"
    password = server.sentinel_password if sentinel else server.password
    tls = server.tls
    client = Redis(
        host=seed[0],
        port=seed[1],
        username=server.username if password else None,
        password=password,
        ssl=tls is not None,
        ssl_ca_certs=tls.ca if tls else None,
        ssl_certfile=tls.cert if tls else None,
        ssl_keyfile=tls.key if tls else None,
        protocol=2,
        retry=Retry(NoBackoff(), 0),
    )
    try:
        return await client.execute_command(*command)  # type: ignore[no-untyped-call]
    except _DENIED as error:
        raise LostError(DENIED, str(error)) from error
    except (exceptions.TimeoutError, TimeoutError) as error:
        raise LostError(SLOW, str(error)) from error
    except exceptions.ResponseError as error:
        raise LostError(reason_of(str(error)), str(error)) from error
    except (exceptions.ConnectionError, OSError) as error:
        denied = isinstance(error.__cause__, ssl.SSLError)
        raise LostError(DENIED if denied else AWAY, str(error)) from error
    except Exception as error:  # whatever its parser makes of bytes that are no reply
        raise LostError(PROTOCOL, repr(error)) from error
    finally:
        await client.aclose()


def _address(host: bytes, port: bytes) -> tuple[str, int]:
    try:
        number = int(port)
        name = host.decode("ascii")
    except ValueError as error:
        raise LostError(PROTOCOL, "not an address") from error
    if not name or not 0 < number < 1 << 16:
        raise LostError(PROTOCOL, "not an address")
    return name, number
