"""A real kube-apiserver for the tests of this folder; they are skipped, with the reason, where it can't be had."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cluster.apiserver import ApiServer
from cluster.build import UnavailableError
from cluster.client import Namespace
from kubernetes.aio.client import Configuration
from multipick_operator.api.crd import crd
from multipick_operator.api.engine import EngineType
from multipick_operator.app import Operator, Settings
from multipick_operator.children.context import Defaults
from multipick_sim.local.processes import held_port
from multipick_sim.local.processes import running as process

MULTIPICK = (sys.executable, "-c", "import sys; from multipick_cli.main import main; sys.exit(main())")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One worker runs them all, with one server; the first of them may have to build it."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("apiserver"))
            item.add_marker(pytest.mark.timeout(1800))


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    server = ApiServer(tmp_path_factory.mktemp("apiserver"))
    try:
        server.start([crd()])
    except UnavailableError as error:
        pytest.skip(str(error))
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def namespace(api: ApiServer, request: pytest.FixtureRequest) -> Namespace:
    name = "t" + format(abs(hash(request.node.nodeid)) % 16**10, "x")
    api.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    return Namespace(api, name)


@pytest.fixture
def settings(namespace: Namespace) -> Settings:
    return Settings(
        defaults=Defaults(
            picker_image="example.com/multipick:1",
            engine_images={EngineType.VLLM: "example.com/vllm:1", EngineType.SIMULATED: "example.com/multipick:1"},
        ),
        lease_namespace=namespace.name,
        lease_name="operator",
        identity="one",
        namespaces=(namespace.name,),
        resync_s=1.0,
        discovery_s=1.0,
        host="127.0.0.1",
        port=0,
    )


@pytest.fixture
def running(api: ApiServer, settings: Settings, caplog: pytest.LogCaptureFixture) -> Callable[..., Any]:
    """An operator of the test's namespace, as a context manager; arguments change its settings.

    No reconcile may fail, whatever the test does, unless it says so. `asked` gets every request but kopf's own.
    """
    caplog.set_level("INFO", "multipick_operator")  # what is not logged can't fail to be

    @asynccontextmanager
    async def run(
        token: str | None = None,
        url: str | None = None,
        defaults_changes: dict[str, Any] | None = None,
        may_fail: bool = False,
        asked: list[str] | None = None,
        **changes: Any,
    ) -> AsyncIterator[Operator]:
        trace = aiohttp.TraceConfig()

        async def note(_: Any, __: Any, begun: aiohttp.TraceRequestStartParams) -> None:
            if asked is not None:
                asked.append(f"{begun.method} {begun.url.path_qs}")

        trace.on_request_start.append(note)

        async def login() -> Configuration:
            return Configuration(
                host=url or api.url,
                ssl_ca_cert=str(api.ca),
                api_key={"BearerToken": f"Bearer {token or api.token}"},
                connection_pool_maxsize=0,
                trace_configs=[trace],
            )

        changed = replace(settings, **changes)
        operator = Operator(replace(changed, defaults=replace(changed.defaults, **defaults_changes or {})), login)
        stop = asyncio.Event()
        task = asyncio.create_task(operator.run(stop))
        try:
            yield operator
        finally:
            stop.set()
            await asyncio.wait_for(task, 120)
        failed = operator.metrics.registry.get_sample_value("multipick_operator_reconcile_total", {"result": "error"})
        assert may_fail or not failed, caplog.text[-3000:]

    return run


@pytest.fixture
def program(api: ApiServer, namespace: Namespace, tmp_path: Path) -> Callable[..., Any]:
    """The operator of the test's namespace as a process of its own, as a context manager: the process and its log."""

    @asynccontextmanager
    async def run(name: str = "operator", kubeconfig: Path | None = None) -> AsyncIterator[tuple[Any, Path]]:
        port, keeper = held_port()
        words = ["operator", "--picker-image", "example.com/m:1", "--vllm-image", "example.com/vllm:1"]
        words += ["--namespaces", namespace.name, "--lease-namespace", namespace.name, "--lease-name", "operator"]
        words += ["--host", "127.0.0.1", "--port", str(port), "--log-format", "text"]
        log = tmp_path / f"{name}.log"
        environment = os.environ | {"KUBECONFIG": str(kubeconfig or api.kubeconfig)}
        with keeper:
            async with process([*MULTIPICK, *words], log=log, env=environment) as child:
                yield child, log

    return run


@pytest.fixture
def serve(namespace: Namespace) -> Callable[[int], Any]:
    """What a kubelet would say: so many engines, and one picker, are ready."""
    ready = {
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-22T08:00:00Z"}],
    }

    async def pods(role: str) -> Any:
        selector = f"multipick.dev/pool=p,multipick.dev/role={role}"
        found = await namespace.call("GET", namespace.path("pods") + f"?labelSelector={selector}")
        return [pod for pod in found["items"] if "deletionTimestamp" not in pod["metadata"]]

    async def say(engines: int) -> None:
        for role, count in (("engine", engines), ("picker", 1)):
            while len(found := await pods(role)) < count:
                await asyncio.sleep(0.05)
            for pod in found:
                await namespace.patch(namespace.path("pods", pod["metadata"]["name"]) + "/status", {"status": ready})

    return say
