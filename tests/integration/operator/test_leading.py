"""Who acts: exactly one, and after a farewell the next one at once."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

import pytest
from cluster.apiserver import ApiServer
from cluster.client import Namespace, until
from cluster.relay import Relay
from multipick_operator.app import LeaseLostError, Operator
from multipick_sim.local.processes import running as process

Running = Callable[..., Any]
MULTIPICK = (sys.executable, "-c", "import sys; from multipick_cli.main import main; sys.exit(main())")


def leads(operator: Operator) -> float:
    return operator.metrics.registry.get_sample_value("multipick_operator_leader") or 0


async def lease(namespace: Namespace) -> Any:
    return await namespace.find(namespace.path("leases", "operator", "coordination.k8s.io/v1"))


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
