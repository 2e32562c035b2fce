"""Which pods a pool is said to have."""

from collections.abc import Callable
from typing import Any

import pytest
from multipick_operator.adapters import Adapters
from multipick_operator.api.pool import Pool
from multipick_operator.children.context import Context
from multipick_operator.making import Turn
from multipick_operator.observing import Observer
from multipick_operator.probe import PodProbe

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
