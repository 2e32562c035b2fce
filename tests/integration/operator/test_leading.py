"""Who acts: exactly one, and after a farewell the next one at once."""

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cluster.apiserver import ApiServer
from cluster.client import Namespace, until
from cluster.relay import Relay
from multipick_operator.app import LeaseLostError, Operator

Running = Callable[..., Any]
Program = Callable[..., Any]


def leads(operator: Operator) -> float:
    return operator.metrics.registry.get_sample_value("multipick_operator_leader") or 0


async def lease(namespace: Namespace) -> Any:
    return await namespace.find(namespace.path("leases", "operator", "coordination.k8s.io/v1"))


async def made(namespace: Namespace) -> None:
    await until(lambda: namespace.find(namespace.path("deployments", "p-engine", "apps/v1")))


async def test_of_two_operators_one_acts_and_the_other_takes_over(namespace: Namespace, running: Running) -> None:
    async with running(identity="two", lease_s=3.0) as second:
        async with running(identity="one", lease_s=3.0) as first:
            await until(lambda: asyncio.sleep(0, [leads(first), leads(second)]), lambda found: sum(found) == 1)
            await namespace.apply()
            await made(namespace)
            assert leads(first) + leads(second) == 1
        await until(lambda: asyncio.sleep(0, leads(second)))
        await namespace.apply(replicas=3)
        await until(
            lambda: namespace.find(namespace.path("deployments", "p-engine", "apps/v1")),
            lambda found: found["spec"]["replicas"] == 3,
        )


async def test_the_lease_of_a_dead_operator_runs_out(namespace: Namespace, running: Running) -> None:
    lease = {
        "metadata": {"name": "operator"},
        "spec": {"holderIdentity": "dead", "leaseDurationSeconds": 2, "renewTime": "2026-11-22T08:00:00.000000Z"},
    }
    await namespace.call("POST", namespace.path("leases", group="coordination.k8s.io/v1"), lease)
    async with running(lease_s=2.0) as operator:
        await namespace.apply()
        await made(namespace)
        assert leads(operator)


async def test_an_operator_that_lost_its_lease_ends(namespace: Namespace, running: Running) -> None:
    async def lose() -> None:
        async with running(lease_s=3.0) as operator:
            await until(lambda: asyncio.sleep(0, leads(operator)))
            path = namespace.path("leases", "operator", "coordination.k8s.io/v1")
            await namespace.patch(path, {"spec": {"holderIdentity": "another", "leaseDurationSeconds": 600}})
            await until(lambda: asyncio.sleep(0, not leads(operator)))

    with pytest.raises(LeaseLostError):
        await lose()


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


async def test_the_process_ends_well_at_sigterm_and_leaves_the_lease(namespace: Namespace, program: Program) -> None:
    async with program() as (child, log):
        await namespace.apply()
        await until(lambda: namespace.find(namespace.path("deployments", "p-engine", "apps/v1")))
        await namespace.reaches("Available", "False", "NoReadyReplicas")
        child.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(child.wait(), 30) == 0, log.read_text()
    assert (await lease(namespace))["spec"]["holderIdentity"] == ""
    assert "Traceback" not in log.read_text()


async def logged(log: Path, words: str) -> None:
    await until(lambda: asyncio.to_thread(log.read_text), lambda found: words in found)


async def test_one_that_waits_for_the_lease_ends_well_and_takes_nothing(namespace: Namespace, program: Program) -> None:
    async with program("first") as (first, first_log):
        await logged(first_log, "acting")
        holder = (await lease(namespace))["spec"]["holderIdentity"]
        async with program("second") as (second, log):
            await logged(log, "waiting for the lease")
            second.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(second.wait(), 30) == 0, log.read_text()
        assert (await lease(namespace))["spec"]["holderIdentity"] == holder
        first.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(first.wait(), 30) == 0, first_log.read_text()
    assert "Traceback" not in log.read_text() + first_log.read_text()


async def test_one_whose_api_server_is_away_ends_well(api: ApiServer, program: Program, tmp_path: Path) -> None:
    relay = Relay(api)
    async with relay.serve() as url:
        kubeconfig = tmp_path / "kubeconfig"
        kubeconfig.write_text(api.kubeconfig.read_text().replace(api.url, url))
        async with program(kubeconfig=kubeconfig) as (child, log):
            await logged(log, "acting")
            relay.cut()
            await logged(log, "watch fails")
            child.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(child.wait(), 30) == 0, log.read_text()
    assert "Traceback" not in log.read_text()


async def test_one_that_stood_still_while_another_took_over_ends_and_has_written_nothing(
    namespace: Namespace, program: Program, running: Running
) -> None:
    async with program() as (child, log):
        await logged(log, "acting")
        child.send_signal(signal.SIGSTOP)
        async with running(identity="next") as following:
            await until(lambda: asyncio.sleep(0, leads(following)))
            await namespace.apply()
            child.send_signal(signal.SIGCONT)
            assert await asyncio.wait_for(child.wait(), 30) == 1
            assert leads(following)
            assert (await lease(namespace))["spec"]["holderIdentity"] == "next"
    assert "the lease is lost" in log.read_text()
    assert "Traceback" not in log.read_text()
