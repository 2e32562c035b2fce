"""Where the store is: one server, the master that Sentinels know, or the node of a Cluster that has the pool's keys."""

import asyncio
import ssl
from binascii import crc_hqx
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit

from multipick_epp.state.redis.connection import Connection, LostError

OPEN_S = 2.0
"""For the way to a usable connection: name, TCP, TLS, password, Sentinel or Cluster."""
_PORTS = {"": 6379, "sentinel": 26379, "cluster": 6379}


@dataclass(frozen=True, slots=True)
class Server:
    """A parsed URL. `repr` shows no password."""

    hosts: tuple[tuple[str, int], ...]
    kind: str = ""  # "sentinel", "cluster" or "": one server
    service: str = ""  # the master's name, Sentinel only
    unix: str | None = None
    database: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    sentinel_password: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = None


def parse_url(url: str) -> Server:
    """`redis://[user:password@]host[:port][/database]`, `rediss://` for TLS, `unix:///path`.

    With `+sentinel` after the scheme: `redis+sentinel://host:26379,host/service[/database]`; with `+cluster`:
    `redis+cluster://host,host`. Options: `?ca=FILE` trusts the authorities in that file alone, `cert` and `key` are
    the client's; `sentinel_password`. Raises ValueError, which never shows the URL's password.
    """
    scheme, _, rest = url.partition("://")
    protocol, _, kind = scheme.partition("+")
    if protocol not in ("redis", "rediss", "unix") or kind not in _PORTS or not rest:
        raise ValueError("a Redis URL begins with redis://, rediss://, unix:// or redis+sentinel://, redis+cluster://")
    parts = urlsplit(f"x://{rest}")
    options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    credentials, _, hosts = parts.netloc.rpartition("@")
    username, _, password = credentials.partition(":")
    path = [step for step in parts.path.split("/") if step]
    service = path.pop(0) if kind == "sentinel" and path else ""
    if kind == "sentinel" and not service:
        raise ValueError("a Sentinel URL names the service: redis+sentinel://host:26379/mymaster")
    unix = unquote(parts.path) if protocol == "unix" else None
    return Server(
        () if unix else tuple(_host(host, _PORTS[kind]) for host in hosts.split(",")),
        kind,
        service,
        unix,
        _database(options.get("db", "0") if unix else (path or ["0"])[0]),
        unquote(username) or None,
        unquote(password) or None,
        options.get("sentinel_password"),
        _tls(options) if protocol == "rediss" else None,
    )


async def open_connection(server: Server, tag: str, stall_s: float) -> Connection:
    """A connection to the node that has the keys that begin with `tag`, braces and all. Raises `LostError`."""
    try:
        async with asyncio.timeout(OPEN_S):
            if server.kind == "sentinel":
                host, port = await _master(server)
            elif server.kind == "cluster":
                host, port = await _node(server, tag)
            else:
                host, port = server.hosts[0] if server.hosts else ("", 0)
            return await _dial(server, host, port, stall_s)
    except TimeoutError as error:
        raise LostError("slow", f"no connection within {OPEN_S:g} s") from error
    except ssl.SSLError as error:
        raise LostError("denied", f"TLS: {error.reason or error}") from error
    except OSError as error:
        if isinstance(error, LostError):
            raise
        raise LostError("away", str(error)) from error


async def _dial(server: Server, host: str, port: int, stall_s: float) -> Connection:
    loop = asyncio.get_running_loop()
    if server.unix is not None:
        _, connection = await loop.create_unix_connection(lambda: Connection(stall_s), server.unix)
    else:
        _, connection = await loop.create_connection(lambda: Connection(stall_s), host, port, ssl=server.tls)
    try:
        if server.password is not None:
            await connection.call("AUTH", *([server.username] if server.username else []), server.password)
        if server.database:
            await connection.call("SELECT", server.database)
        if server.kind == "sentinel" and (await connection.call("ROLE"))[0] != b"master":
            raise LostError("moved", "Sentinel named a server that is no master")
    except BaseException:
        connection.close()
        raise
    return connection


async def _master(server: Server) -> tuple[str, int]:
    for host, port in server.hosts:
        try:
            connection = await _dial(_asked(server, server.sentinel_password), host, port, OPEN_S)
        except OSError:
            continue
        try:
            address = await connection.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", server.service)
        except LostError:
            continue
        finally:
            connection.close()
        if address:
            return address[0].decode(), int(address[1])
    raise LostError("away", f"no Sentinel knows {server.service!r}")


async def _node(server: Server, tag: str) -> tuple[str, int]:
    slot = crc_hqx(tag.strip("{}").encode(), 0) % 16384
    for host, port in server.hosts:
        try:
            connection = await _dial(_asked(server, server.password), host, port, OPEN_S)
        except OSError:
            continue
        try:
            ranges = await connection.call("CLUSTER", "SLOTS")
        except LostError:
            continue
        finally:
            connection.close()
        for first, last, master, *_ in ranges:
            if first <= slot <= last:
                return (master[0] or b"").decode() or host, int(master[1])
    raise LostError("away", f"no node has slot {slot}")


def _asked(server: Server, password: str | None) -> Server:
    """`server` as one asks it the way: a Sentinel or any node of the Cluster."""
    return Server(server.hosts, username=server.username if password else None, password=password, tls=server.tls)


def _host(text: str, default_port: int) -> tuple[str, int]:
    try:
        parts = urlsplit(f"x://{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None  # its message may quote a password that was not percent-encoded
    if not host:
        raise ValueError("a Redis URL has host[:port]; special characters in a password are percent-encoded") from None
    return host, port or default_port


def _database(text: str) -> int:
    if not text.isdecimal():
        raise ValueError("the path of a Redis URL is the number of a database")
    return int(text)


def _tls(options: dict[str, str]) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=options.get("ca"))
    if "cert" in options:
        context.load_cert_chain(options["cert"], options.get("key"))
    return context
