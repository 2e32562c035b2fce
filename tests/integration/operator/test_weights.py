"""The init step that fetches weights, as its container runs it: by the hub's own client, from a hub of this machine."""

import asyncio
import hashlib
import os
import random
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from cluster.client import Namespace, until
from multipick_operator import weights
from multipick_operator.status.fetching import progress
from multipick_sim.local.processes import held_port

Running = Callable[..., Any]
COMMIT = "a" * 40
FILES = {"config.json": b"{}", "model.safetensors": b"w" * (40 << 20), "sub/tokenizer.json": b"[]"}


class Hub:
    """`GET` of what there is and of files; it can be made to hold one back."""

    def __init__(self) -> None:
        self.url = ""
        self.token: str | None = None
        self.fetched: list[str] = []
        self.open = asyncio.Event()
        self.open.set()

    async def model(self, request: web.Request) -> web.Response:
        self.token = request.headers.get("authorization")
        files = [{"rfilename": name, "size": len(content)} for name, content in FILES.items()]
        return web.json_response({"id": "org/m", "sha": COMMIT, "siblings": files})

    async def tree(self, request: web.Request) -> web.Response:
        files = [
            {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
            for name, content in FILES.items()
        ]
        return web.json_response(files)

    async def file(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        content = FILES[name]
        headers = {"etag": f'"{hashlib.sha1(content).hexdigest()}"', "x-repo-commit": COMMIT}
        if request.method == "HEAD":
            return web.Response(headers=headers | {"content-length": str(len(content))})
        self.fetched.append(name)
        answer = web.StreamResponse(headers=headers | {"content-length": str(len(content))})
        await answer.prepare(request)
        await answer.write(content[: len(content) // 2])
        await self.open.wait()
        await answer.write(content[len(content) // 2 :])
        return answer


@pytest.fixture
async def hub() -> AsyncIterator[Hub]:
    made = Hub()
    app = web.Application()
    app.router.add_get("/api/models/org/m/revision/{revision}", made.model)
    app.router.add_get("/api/models/org/m/tree/{revision}", made.tree)
    app.router.add_route("*", "/org/m/resolve/{revision}/{name:.+}", made.file)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield made
    finally:
        made.open.set()
        await runner.cleanup()


@asynccontextmanager
async def step(hub: Hub, folder: Path, home: Path, port: int) -> AsyncIterator[asyncio.subprocess.Process]:
    """The step as a process; it ends with the block."""
    environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_TOKEN": "hf_secret"}
    code = (
        f"import sys; sys.path[:0] = {sys.path!r}; from multipick_operator import weights; from pathlib import Path; "
    )
    code += f"weights.main('hf://org/m', Path({str(folder)!r}), 'main', {port})"
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, env=environment, stdout=pipe, stderr=pipe
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def told(port: int) -> str:
    try:
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/") as answer:
            return progress(await answer.read())
    except aiohttp.ClientError:
        return ""


@pytest.fixture
def ports() -> Iterator[list[int]]:
    """Two that nobody else is given meanwhile."""
    held = [held_port() for _ in range(2)]
    yield [port for port, _ in held]
    for _, keeper in held:
        keeper.close()


async def test_of_two_pods_with_one_volume_one_fetches_and_says_how_far_it_is(
    hub: Hub, ports: list[int], tmp_path: Path
) -> None:
    folder = tmp_path / "weights" / "m"
    hub.open.clear()
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(step(hub, folder, tmp_path / "home", ports[0]))
        await until(lambda: told(ports[0]), lambda words: words.endswith("of 0.0 GB (50%)"))
        second = await stack.enter_async_context(step(hub, folder, tmp_path / "home", ports[1]))
        await until(lambda: told(ports[1]), lambda words: words == "waits for another pod that fetches")
        hub.open.set()
        for process in (first, second):
            _, errors = await process.communicate()
            assert process.returncode == 0, errors.decode()[-2000:]
    assert hub.token == "Bearer hf_secret"
    assert sorted(hub.fetched) == sorted(FILES)
    assert {name: (folder / name).read_bytes() for name in FILES} == FILES


async def test_one_that_died_amid_it_is_gone_on_from_and_what_is_there_is_not_fetched_again(
    hub: Hub, ports: list[int], tmp_path: Path
) -> None:
    folder, port = tmp_path / "weights" / "m", ports[0]
    hub.open.clear()
    async with step(hub, folder, tmp_path / "home", port):
        await until(lambda: told(port), lambda words: words.endswith("(50%)"))
    assert not (folder / weights.DONE).exists()
    hub.open.set()
    for _ in range(2):
        async with step(hub, folder, tmp_path / "home", port) as process:
            _, errors = await process.communicate()
            assert process.returncode == 0, errors.decode()[-2000:]
    assert {name: (folder / name).read_bytes() for name in FILES} == FILES
    assert max(hub.fetched.count(name) for name in FILES) == 2


async def test_a_model_that_is_not_there_is_the_steps_last_words(hub: Hub, ports: list[int], tmp_path: Path) -> None:
    hub.url += "/nowhere"
    async with step(hub, tmp_path / "weights" / "m", tmp_path / "home", ports[0]) as process:
        _, errors = await process.communicate()
        assert process.returncode == 1
        assert "404" in errors.decode()[-1000:]


async def test_a_port_that_another_pod_of_the_node_has_stops_no_step(hub: Hub, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        async with step(hub, tmp_path / "weights" / "m", tmp_path / "home", taken.getsockname()[1]) as process:
            words, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()[-2000:]
    assert "how far this is can't be asked" in words.decode()
    assert {name: (tmp_path / "weights" / "m" / name).read_bytes() for name in FILES} == FILES


async def test_a_bucket_is_fetched_by_its_prefix(ports: list[int], tmp_path: Path) -> None:
    pytest.importorskip("boto3", reason="it brings an older dateutil than the Kubernetes client takes: not among ours")
    asked: list[str] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        asked.append(request.headers.get("authorization", ""))
        if request.path == "/bucket" or request.path == "/bucket/":
            assert request.query["prefix"] == "models/m/"
            listed = "".join(
                f"<Contents><Key>models/m/{name}</Key><Size>{len(content)}</Size></Contents>"
                for name, content in FILES.items()
            )
            kind = "application/xml"
            return web.Response(text=f"<ListBucketResult>{listed}</ListBucketResult>", content_type=kind)
        content = FILES[request.path.removeprefix("/bucket/models/m/")]
        if wanted := request.http_range.start:
            stop = request.http_range.stop
            return web.Response(status=206, body=content[wanted:stop])
        if request.http_range.stop:
            return web.Response(status=206, body=content[: request.http_range.stop])
        return web.Response(body=content)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    code = (
        f"import sys; sys.path[:0] = {sys.path!r}; from multipick_operator import weights; from pathlib import Path; "
    )
    code += f"weights.main('s3://bucket/models/m', Path({str(tmp_path / 'm')!r}), None, {ports[0]})"
    environment = os.environ | {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{runner.addresses[0][1]}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "eu-1",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, env=environment, stderr=asyncio.subprocess.PIPE
    )
    _, errors = await process.communicate()
    await runner.cleanup()
    assert process.returncode == 0, errors.decode()[-2000:]
    assert {name: (tmp_path / "m" / name).read_bytes() for name in FILES} == FILES
    assert all("Credential=key/" in one for one in asked)


async def test_a_pool_says_how_far_its_pods_are(namespace: Namespace, running: Running, tmp_path: Path) -> None:
    address = "127." + ".".join(str(random.randrange(2, 250)) for _ in range(3))
    state = weights.Progress(tmp_path)
    state.state, state.total = "fetching", 4_000_000_000
    (tmp_path / "part").touch()
    os.truncate(tmp_path / "part", 1_000_000_000)

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=state.told())

    app = web.Application()
    app.router.add_get("/", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, address, weights.PORT).start()

    async def pods() -> Any:
        selector = "multipick.dev/pool=p,multipick.dev/role=engine"
        return (await namespace.call("GET", namespace.path("pods") + f"?labelSelector={selector}"))["items"]

    async def message() -> str:
        pool = await namespace.call("GET", namespace.pool_path())
        return next(str(one["message"]) for one in pool["status"]["conditions"] if one["type"] == "Available")

    try:
        async with running():
            fetch = {"secretName": "hub"}
            await namespace.apply(storage={"cache": {"type": "PVC"}, "fetch": fetch})
            await namespace.reaches("ResolvedRefs", "False", "SecretNotFound")
            [pod] = await until(pods)
            (init,) = pod["spec"]["initContainers"]
            assert init["args"][0] == "hf://org/m"
            assert init["envFrom"] == [{"secretRef": {"name": "hub"}}]
            script = await namespace.call("GET", namespace.path("configmaps", "p-weights"))
            assert "def main(uri: str" in script["data"]["weights.py"]
            known = {"name": "weights", "image": "i", "imageID": "", "ready": False, "restartCount": 0}
            known["state"] = {"running": {"startedAt": "2026-11-22T08:00:00Z"}}
            status = {"podIP": address, "podIPs": [{"ip": address}], "initContainerStatuses": [known]}
            path = namespace.path("pods", pod["metadata"]["name"]) + "/status"
            await namespace.patch(path, {"status": status | {"phase": "Pending"}})
            await namespace.reaches("Available", "False", "FetchingWeights")
            assert f"{pod['metadata']['name']}: 1.0 of 4.0 GB (25%)" in await until(message)
            os.truncate(tmp_path / "part", 3_000_000_000)
            await until(message, lambda words: "3.0 of 4.0 GB (75%)" in words)
            await namespace.apply(storage={"cache": {"type": "PVC"}})
            await until(pods, lambda found: any("initContainers" not in one["spec"] for one in found))
    finally:
        await runner.cleanup()
