"""TCP or a Unix socket, TLS, and the password: a connection to a server, whatever it is."""

import asyncio
import ssl

from multipick_epp.state.redis.address import Server
from multipick_epp.state.redis.connection import Connection, LostError
from multipick_epp.state.redis.reasons import AWAY, DENIED


async def dial(server: Server, host: str, port: int, password: str | None, stall_s: float) -> Connection:
    """Connect to this host in the way of this store. Raises `LostError`."""
    try:
        connection = await _connect(server, host, port, stall_s)
    except ssl.SSLError as error:
        raise LostError(DENIED, f"TLS: {error.reason or error}") from error
    except (OSError, UnicodeError) as error:  # the latter of a host name that is too long to be one
        raise LostError(AWAY, str(error)) from error
    try:
        if password is not None:
            await connection.call("AUTH", *([server.username] if server.username else []), password)
    except BaseException:
        connection.close()
        raise
    return connection


async def _connect(server: Server, host: str, port: int, stall_s: float) -> Connection:
    loop = asyncio.get_running_loop()
    if server.unix is not None:
        return (await loop.create_unix_connection(lambda: Connection(stall_s), server.unix))[1]
    tls = server.tls.context if server.tls else None
    return (await loop.create_connection(lambda: Connection(stall_s), host, port, ssl=tls))[1]
