"""What belongs to one pool is no other's: its keys in the shared store, and who may change it."""

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from cluster.client import Namespace, until
from multipick_operator.children.store_user import StoreUser
from multipick_operator.store import StoreUsers
from multipick_sim.local.valkey import valkey
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, ConnectionError, NoPermissionError

Running = Callable[..., Any]


@asynccontextmanager
async def connected(url: str, **who: Any) -> AsyncIterator[Redis]:
    client = Redis.from_url(url, **who)
    try:
        yield client
    finally:
        await client.aclose()


async def secret(namespace: Namespace) -> dict[str, str]:
    found = await until(lambda: namespace.find(namespace.path("secrets", "p-epp")))
    return {name: base64.b64decode(value).decode() for name, value in found["data"].items()}


async def answers(url: str, **who: Any) -> bool:
    async with connected(url, **who) as client:
        try:
            await client.get("{kv:x}:nothing")
        except NoPermissionError:
            return True
        except (AuthenticationError, ConnectionError):
            return False
    raise AssertionError("another pool's keys can be read")


async def test_a_pools_password_opens_its_own_keys_alone_also_after_a_restart_of_the_store(
    namespace: Namespace, running: Running
) -> None:
    async with valkey({"requirepass": "admin"}) as store:
        defaults = {"state_url": store.url, "state_password": "admin", "state_users": True}
        async with running(defaults_changes=defaults):
            await namespace.apply()
            found = await secret(namespace)
            assert "admin" not in found.values()
            who = {"username": f"{namespace.name}.p", "password": found["password"]}

            async def let_in() -> bool:
                return await answers(store.url, **who)

            await until(let_in)
            async with connected(store.url, **who) as mine:
                await mine.set(f"{{kv:{namespace.name}/p}}:gen", "x")
                assert await mine.get(f"{{kv:{namespace.name}/p}}:gen") == b"x"
                for denied in (mine.get(f"{{kv:{namespace.name}/q}}:gen"), mine.flushall(), mine.keys("*")):
                    with pytest.raises(NoPermissionError):
                        await denied
            listed = namespace.path("configmaps") + "?labelSelector=multipick.dev/pool%3Dp"
            (config,) = (await namespace.call("GET", listed))["items"]
            assert f"redis://{namespace.name}.p@127.0.0.1" in config["data"]["epp.yaml"]
            await store.kill()
            await store.start()
            await until(let_in)
            await namespace.call("DELETE", namespace.pool_path())

            async def shut_out() -> bool:
                return not await answers(store.url, **who)

            await until(shut_out)


async def test_a_store_that_is_away_or_refuses_is_told_and_asked_again() -> None:
    async with valkey({"requirepass": "admin"}) as store:
        users = StoreUsers(store.url, "wrong")
        users.want(StoreUser("ns.p", ("on", "nopass")))
        task = asyncio.create_task(users.run())
        try:

            async def trouble() -> str | None:
                return users.trouble

            assert "WRONGPASS" in await until(trouble) or "invalid" in str(users.trouble)
        finally:
            task.cancel()


async def test_a_password_is_in_no_representation() -> None:
    assert "secret" not in repr(StoreUser("ns.p", ("on", ">secret")))
