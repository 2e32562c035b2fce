"""What is no longer wanted goes, but nothing that pods still need, or that the spec names by itself, and once only."""

from collections.abc import Callable
from typing import Any

import pytest
from cluster.client import Namespace, until

Running = Callable[..., Any]
AUTOSCALING = "autoscaling/v2"


async def seen(namespace: Namespace) -> None:
    """The operator has done all that the pool's spec asks for."""
    await until(
        lambda: namespace.call("GET", namespace.pool_path()),
        lambda pool: pool.get("status", {}).get("observedGeneration") == pool["metadata"]["generation"],
    )


@pytest.mark.parametrize(
    ("before", "after", "kept"),
    [
        (
            {"storage": {"cache": {"type": "PVC", "retention": "Delete"}}},
            {"storage": {"cache": {"type": "ExistingClaim", "claimName": "p-cache"}}},
            ("persistentvolumeclaims", "p-cache"),
        ),
        ({}, {"serviceAccount": {"name": "p-engine"}}, ("serviceaccounts", "p-engine")),
    ],
    ids=["claim", "account"],
)
async def test_what_the_spec_comes_to_name_itself_stays(
    namespace: Namespace,
    running: Running,
    serve: Callable[[int], Any],
    before: dict[str, Any],
    after: dict[str, Any],
    kept: tuple[str, str],
) -> None:
    async with running():
        await namespace.apply(**before)
        await serve(1)
        await namespace.reaches("Ready", "True", "Serving")
        await namespace.reaches("Progressing", "True", "RolloutComplete")
        await namespace.apply(**after)
        await seen(namespace)
        assert "deletionTimestamp" not in (await namespace.call("GET", namespace.path(*kept)))["metadata"]


async def test_what_pods_of_before_need_goes_when_they_are_gone(
    namespace: Namespace, running: Running, serve: Callable[[int], Any]
) -> None:
    account = namespace.path("serviceaccounts", "p-engine")
    other: dict[str, Any] = {"serviceAccount": {"name": "default"}}
    async with running():
        await namespace.apply()
        await serve(1)
        await namespace.reaches("Progressing", "True", "RolloutComplete")
        await namespace.apply(**other, rollout={"paused": True})
        await seen(namespace)
        assert await namespace.find(account)  # a pod of before that is evicted now is made anew with it
        await namespace.apply(**other)
        await serve(2)
        await until(lambda: namespace.find(account), lambda found: found is None)


async def test_a_child_that_others_hold_back_is_deleted_and_told_of_once(
    namespace: Namespace, running: Running
) -> None:
    """As KEDA's finalizer does, of a ScaledObject, when KEDA is gone."""
    scaler = namespace.path("horizontalpodautoscalers", "p-engine", AUTOSCALING)
    async with running(resync_s=0.2) as operator:
        await namespace.apply(autoscaling={"maxReplicas": 2})
        await until(lambda: namespace.find(scaler))
        await namespace.patch(scaler, {"metadata": {"finalizers": ["test.dev/hold"]}})
        await namespace.apply()
        await until(lambda: namespace.find(scaler), lambda found: "deletionTimestamp" in found["metadata"])
        resyncs = operator.resyncs

        async def looked() -> int:
            return int(operator.resyncs)

        await until(looked, lambda count: count >= resyncs + 5)
        told = [words for reason, words in await namespace.events() if reason == "ChildDeleted"]
        assert told == ["HorizontalPodAutoscaler p-engine"]
        await namespace.patch(scaler, {"metadata": {"finalizers": None}})
