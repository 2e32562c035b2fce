"""What belongs to one pool is no other's: its keys in the shared store, and who may change it."""

import asyncio
import base64
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
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


async def test_a_pool_that_leaves_the_selector_keeps_its_user_of_the_store(
    namespace: Namespace, running: Running
) -> None:
    async with valkey({"requirepass": "admin"}) as store:
        defaults = {"state_url": store.url, "state_password": "admin", "state_users": True}
        async with running(defaults_changes=defaults, pool_selector="tier=gold", resync_s=0.2) as operator:
            await namespace.apply()
            await namespace.patch(namespace.pool_path(), {"metadata": {"labels": {"tier": "gold"}}})
            who = {"username": f"{namespace.name}.p", "password": (await secret(namespace))["password"]}

            async def let_in() -> bool:
                return await answers(store.url, **who)

            async def rounds() -> Any:
                return operator.resyncs

            await until(let_in)
            await namespace.patch(namespace.pool_path(), {"metadata": {"labels": {"tier": "silver"}}})
            begun = await rounds()
            await until(rounds, lambda found: found >= begun + 5)
            assert await let_in()
            await store.kill()
            await store.start()
            await until(let_in)


async def test_a_store_with_a_file_for_users_knows_them_after_a_restart_without_an_operator(
    namespace: Namespace, running: Running, tmp_path: Path
) -> None:
    file = tmp_path / "users.acl"
    file.write_text("user default on >admin ~* &* +@all\n")
    async with valkey({"aclfile": str(file)}) as store:
        defaults = {"state_url": store.url, "state_password": "admin", "state_users": True}
        async with running(defaults_changes=defaults):
            await namespace.apply()
            who = {"username": f"{namespace.name}.p", "password": (await secret(namespace))["password"]}

            async def let_in() -> bool:
                return await answers(store.url, **who)

            await until(let_in)
            name = f"user {namespace.name}.p "
            await until(lambda: asyncio.to_thread(file.read_text), lambda text: name in text)
        await store.kill()
        await store.start()
        assert await let_in()


async def test_the_charts_store_starts_with_the_users_of_its_secret_and_those_that_were_saved(tmp_path: Path) -> None:
    """The very lines that its container runs, with folders of this machine."""
    helm = pytest.importorskip("helm_python", reason="Helm's library is not to be had on this platform")
    with helm.Chart.load(str(Path(__file__).parents[3] / "charts/multipick")) as chart:
        text = next(t for n, t in chart.render({}, name="m", namespace="s").items() if n.endswith("valkey.yaml"))
    (made,) = [one for one in yaml.safe_load_all(text) if one and one["kind"] == "StatefulSet"]
    (container,) = made["spec"]["template"]["spec"]["containers"]
    (lines,) = container["args"]
    acl, data = tmp_path / "acl", tmp_path / "data"
    for folder in (acl, data):
        folder.mkdir()
    lines = lines.replace("/etc/valkey-acl", str(acl)).replace("/data", str(data)).partition("exec ")[0]
    (acl / "users.acl").write_text("user default on #new ~* &* +@all\n")

    def start() -> list[str]:
        subprocess.run([*container["command"], lines], check=True)
        return (data / "users.acl").read_text().splitlines()

    assert start() == ["user default on #new ~* &* +@all"]
    (data / "users.acl").write_text("user default on #old ~* &* +@all\nuser ns.p on #hash\n")
    assert start() == ["user default on #new ~* &* +@all", "user ns.p on #hash"]


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


async def test_a_pool_tells_why_its_user_can_not_be_made(namespace: Namespace, running: Running) -> None:
    async with valkey({"requirepass": "admin"}) as store:
        defaults = {"state_url": store.url, "state_password": "mistyped", "state_users": True}
        async with running(defaults_changes=defaults):
            await namespace.apply()
            await namespace.reaches("IndexReady", "False", "StoreUserFailed")
            told = str((await namespace.call("GET", namespace.pool_path()))["status"])
            assert f"the store at 127.0.0.1:{store.port}/0 can't be made: invalid username-password pair" in told
            assert "mistyped" not in told


async def test_a_password_is_in_no_representation() -> None:
    assert "secret" not in repr(StoreUser("ns.p", ("on", ">secret")))
