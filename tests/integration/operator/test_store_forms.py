"""Pools' users are made in every form of the store that a URL may name: TLS, Sentinel, an administrator by name."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from certificates import make_certificate
from cluster.client import until
from multipick_operator.children.store_user import StoreUser
from multipick_operator.store import StoreUsers
from multipick_sim.local.valkey import valkey
from redis.asyncio import Redis
from redis.exceptions import RedisError

MINE = StoreUser("ns.p", ("on", ">mine", "~{kv:ns/p}:*", "-@all", "+get"))


@asynccontextmanager
async def wanted(url: str, password: str | None) -> AsyncIterator[StoreUsers]:
    """The operator's part, with one user to make."""
    users = StoreUsers(url, password)
    users.want(MINE)
    task = asyncio.create_task(users.run())
    try:
        yield users
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def let_in(url: str) -> bool:
    client = Redis.from_url(url, username="ns.p", password="mine")
    try:
        return await client.get("{kv:ns/p}:nothing") is None
    except RedisError:
        return False
    finally:
        await client.aclose()


@asynccontextmanager
async def behind_tls(port: int, certificate: Path, key: Path) -> AsyncIterator[int]:
    """The server of the wheel has no TLS; this speaks it before it, and wants a certificate of the client, too."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(certificate))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(certificate, key)

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
        writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, forth = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pour(reader, forth), pour(back, writer))

    server = await asyncio.start_server(relay, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def test_users_are_made_over_tls_of_an_authority_and_with_a_certificate_of_ones_own(
    tmp_path: Path,
) -> None:
    made, key = make_certificate(tmp_path)
    async with valkey({"requirepass": "admin"}) as store, behind_tls(store.port, made, key) as port:
        async with wanted(f"rediss://127.0.0.1:{port}/0?ca={made}&cert={made}&key={key}", "admin") as users:
            await until(lambda: let_in(store.url))
            assert users.trouble is None
        async with wanted(f"rediss://127.0.0.1:{port}/0?ca={made.parent}/none.pem", "admin") as users:

            async def trouble() -> str | None:
                return users.trouble

            assert "No such file" in await until(trouble)


async def test_users_are_made_by_the_administrator_that_the_url_names() -> None:
    accounts = {"user": "root on >admin ~* &* +@all", "requirepass": "another"}
    async with valkey(accounts) as store, wanted(store.url.replace("://", "://root@"), "admin"):
        await until(lambda: let_in(store.url))


async def test_sentinels_that_can_not_be_asked_are_told_in_words() -> None:
    async with wanted("redis+sentinel://root@127.0.0.1:1,127.0.0.1:2/main", "admin") as users:

        async def trouble() -> str | None:
            return users.trouble

        assert await until(trouble) == "no Sentinel that answers knows a master of this name"


async def test_users_are_made_on_the_master_that_sentinels_name_and_on_the_next_one() -> None:
    passwords = {"requirepass": "admin", "primaryauth": "admin"}
    async with valkey(passwords) as master, valkey(passwords | {"replicaof": f"127.0.0.1 {master.port}"}) as standby:
        settings = {
            "sentinel monitor main 127.0.0.1": f"{master.port} 1",
            "sentinel auth-pass main": "admin",
            "sentinel down-after-milliseconds main": "300",
            "sentinel failover-timeout main": "3000",
        }
        async with valkey(settings, sentinel=True) as sentinel:
            asked: Any = Redis(port=sentinel.port)

            async def known() -> bool:
                return any(one["master-link-status"] == "ok" for one in await asked.sentinel_slaves("main"))

            await until(known)
            url = f"redis+sentinel://127.0.0.1:1,127.0.0.1:{sentinel.port}/main"
            async with wanted(url, "admin") as users:
                await until(lambda: let_in(master.url))
                await master.kill()
                await until(lambda: let_in(standby.url), patience_s=60)

                async def trouble() -> str | None:
                    return users.trouble

                await until(trouble, lambda found: found is None)
            await asked.aclose()
