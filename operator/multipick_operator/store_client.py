"""A connection to the shared store as its administrator. URLs say what they say to pickers (docs/state.md)."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

if TYPE_CHECKING:
    from redis.asyncio import Redis

CALL_S = 5.0
SENTINEL_S = 1.0  # for the answer of one; then the next is asked
SENTINEL_PORT = 26379
_SENTINEL = "redis+sentinel://"
_FILES = {"ca": "ssl_ca_certs", "cert": "ssl_certfile", "key": "ssl_keyfile"}


@asynccontextmanager
async def administrator(url: str, password: str | None) -> AsyncIterator["Redis"]:
    """One connection: to the URL's server, or to the master that its Sentinels name. It is never made anew in silence.

    `url`: a `StoreUrl`. Raises what `redis` raises, and OSError for a file of certificates that can't be read.
    """
    from redis.asyncio.sentinel import MasterNotFoundError

    client, sentinels = client_of(url, password)
    async with AsyncExitStack() as stack:
        for one in sentinels:
            stack.push_async_callback(one.aclose)
        try:
            connection = await stack.enter_async_context((await stack.enter_async_context(client)).client())
        except MasterNotFoundError:  # its text has all that the clients are made of
            raise ConnectionError("no Sentinel that answers knows a master of this name") from None
        yield connection


def client_of(url: str, password: str | None) -> tuple["Redis", list["Redis"]]:
    """A client that is not connected yet, and those of the Sentinels that it asks."""
    from redis.asyncio import Redis
    from redis.asyncio.retry import Retry
    from redis.asyncio.sentinel import Sentinel
    from redis.backoff import NoBackoff

    once = Retry(NoBackoff(), 0)  # the server of the next connection may be one without our users
    options: dict[str, Any] = {"socket_timeout": CALL_S, "socket_connect_timeout": CALL_S, "retry": once}
    if not url.startswith(_SENTINEL):
        address, _, query = url.partition("?")
        options |= {_FILES[name]: values[-1] for name, values in parse_qs(query).items()}
        return Redis.from_url(address, password=password, **options), []
    credentials, _, path = url.removeprefix(_SENTINEL).partition("/")
    user, _, named = credentials.rpartition("@")
    service, _, database = path.partition("/")
    hosts = [urlsplit(f"//{host}") for host in named.split(",")]
    asked = options | {"socket_timeout": SENTINEL_S, "socket_connect_timeout": SENTINEL_S}
    addresses = [(one.hostname, one.port or SENTINEL_PORT) for one in hosts]
    sentinels = Sentinel(addresses, sentinel_kwargs=asked)  # type: ignore[no-untyped-call]
    options |= {"username": unquote(user) or None, "password": password, "db": int(database or 0)}
    return sentinels.master_for(service, **options), sentinels.sentinels
