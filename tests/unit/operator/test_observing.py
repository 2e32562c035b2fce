"""Which pods a pool is said to have."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest
from multipick_operator.adapters import Adapters
from multipick_operator.api.pool import Pool
from multipick_operator.children.context import Context
from multipick_operator.children.names import LWS_INDEX
from multipick_operator.making import Turn
from multipick_operator.observing import Observer
from multipick_operator.probe import PodProbe
from multipick_operator.status.adapters import Engine, Held

NOW = "2026-11-22T08:00:00Z"


def pod(name: str, phase: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": {"app": "x"}}, "status": {"phase": phase}}


PODS = [pod("a", "Running"), pod("b", "Failed"), pod("c", "Pending"), pod("d", "Succeeded"), pod("e", "Unknown")]


class Cluster:
    """A `View` of these pods."""

    async def pods(self, *_: str) -> list[dict[str, Any]]:
        return PODS

    async def pods_with(self, *_: Any) -> list[dict[str, Any]]:
        return PODS

    def pools(self) -> list[dict[str, Any]]:
        return []


@pytest.mark.parametrize("spec", [{}, {"existingPods": {"matchLabels": {"app": "x"}}}], ids=["own", "existing"])
async def test_a_pod_that_has_ended_is_none_of_the_pool(
    make_pool: Callable[..., Pool], context: Context, spec: dict[str, Any]
) -> None:
    probe = PodProbe()
    pool, turn = make_pool(**spec), Turn()
    cluster: Any = Cluster()
    observer = Observer(cluster, context.defaults, probe, Adapters(lambda _: None, 1.0), lambda: NOW)
    try:
        engines = await observer.engine_pods(pool, turn)
        seen = await observer.observe(pool, {"metadata": {"name": "p", "namespace": "ml"}}, context, engines, turn)
    finally:
        await probe.close()
    for found in (engines, seen.engine_pods, seen.picker_pods):
        assert [one["metadata"]["name"] for one in found] == ["a", "c", "e"]


class Unloaded:
    """`Adapters` of a pool all of whose engines have been asked, and have none."""

    def look(self, _: Any, __: Any, engines: Sequence[Engine]) -> dict[Engine, Held]:
        return {one: Held(frozenset(), {}) for one in engines}


async def test_an_adapter_that_all_leaders_have_unloaded_is_gone_although_nobody_asks_their_workers(
    make_pool: Callable[..., Pool], context: Context
) -> None:
    labels = {"multipick.dev/pool": "p", "multipick.dev/role": "engine"}
    status = {"podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]}
    ports = [{"name": "http", "containerPort": 8000}]
    group = [
        {
            "metadata": {"name": f"p-engine-0-{index}", "uid": index, "labels": labels | {LWS_INDEX: index}},
            "spec": {"containers": [{"name": "engine", "ports": ports if index == "0" else []}]},
            "status": status,
        }
        for index in ("0", "1")
    ]
    fields = dict.fromkeys(("replicas", "readyReplicas", "updatedReplicas", "availableReplicas"), 1)
    words = dict.fromkeys(("selector", "currentRevision", "updateRevision", "url"), "")
    known = [{"name": "old", "loaded": 1, "pods": [], "message": ""}]
    more = {"observedGeneration": 1, "picker": {"readyReplicas": 1, "service": ""}, "model": {"name": "m"}}
    before = fields | words | more | {"adapters": known, "conditions": []}
    manifest = {"metadata": {"name": "p", "namespace": "ml"}, "status": before}
    probe, cluster, adapters = PodProbe(), Cluster(), Unloaded()
    pool = make_pool(parallelism={"tensor": 2, "nodes": 2}, lora={"allowRuntimeUpdates": True})
    observer = Observer(cast("Any", cluster), context.defaults, probe, cast("Any", adapters), lambda: NOW)
    try:
        seen = await observer.observe(pool, manifest, context, group, Turn())
    finally:
        await probe.close()
    assert seen.adapters == ()
