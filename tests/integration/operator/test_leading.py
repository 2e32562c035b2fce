"""Who acts: exactly one, and after a farewell the next one at once."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from cluster.apiserver import ApiServer
from cluster.client import Namespace, until
from multipick_operator.app import LeaseLostError, Operator
from multipick_sim.local.processes import running as process

Running = Callable[..., Any]
MULTIPICK = (sys.executable, "-c", "import sys; from multipick_cli.main import main; sys.exit(main())")


def leads(operator: Operator) -> float:
    return operator.metrics.registry.get_sample_value("multipick_operator_leader") or 0


async def lease(namespace: Namespace) -> Any:
    return await namespace.find(namespace.path("leases", "operator", "coordination.k8s.io/v1"))


class Relay:
    """A way to the API server that can fall silent, with all its connections open."""

    def __init__(self, server: ApiServer) -> None:
        self._server = server
        self._open = asyncio.Event()
        self._open.set()

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        listener = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        try:
            yield f"https://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        finally:
            listener.close()
            self._open.set()

    def silence(self) -> None:
        self._open.clear()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection(self._server.address, self._server.port)

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                await self._open.wait()
                sink.write(data)
                await sink.drain()
            sink.close()

        await asyncio.gather(pump(reader, there[1]), pump(there[0], writer), return_exceptions=True)


async def test_a_holder_whose_calls_hang_has_let_go_before_the_next_one_acts(
    api: ApiServer, namespace: Namespace, running: Running
) -> None:
    relay = Relay(api)

    async def lose() -> None:
        async with relay.serve() as url, running(url=url, identity="one", lease_s=3.0) as first:
            await until(lambda: asyncio.sleep(0, leads(first)))
            async with running(identity="two", lease_s=3.0) as second:
                relay.silence()
                both: list[float] = []

                async def taken() -> float:
                    both.append(leads(first) + leads(second))
                    return leads(second)

                await until(taken)
                assert max(both) == 1
                await namespace.apply()
                await until(lambda: namespace.find(namespace.path("deployments", "p-epp", "apps/v1")))

    with pytest.raises(LeaseLostError):
        await lose()


async def test_the_process_ends_well_at_sigterm_and_leaves_the_lease(
    api: ApiServer, namespace: Namespace, tmp_path: Any
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["operator", "--picker-image", "example.com/m:1", "--namespaces", namespace.name]
    words += ["--lease-namespace", namespace.name, "--lease-name", "operator", "--host", "127.0.0.1"]
    words += ["--port", str(port), "--log-format", "text"]
    log = tmp_path / "operator.log"
    environment = os.environ | {"KUBECONFIG": str(api.kubeconfig)}
    async with process([*MULTIPICK, *words], log=log, env=environment) as child:
        await namespace.apply(engine={"image": "example.com/vllm:1"})
        await until(lambda: namespace.find(namespace.path("deployments", "p-engine", "apps/v1")))
        await namespace.reaches("Available", "False", "NoReadyReplicas")
        child.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(child.wait(), 30) == 0, log.read_text()
    assert (await lease(namespace))["spec"]["holderIdentity"] == ""
    assert "Traceback" not in log.read_text()
