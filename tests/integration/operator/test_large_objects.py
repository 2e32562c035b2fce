"""Objects as large, and as deeply nested, as the API server lets them be: they cost their own pool at most."""

import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cluster.client import Namespace, until

Running = Callable[..., Any]
Program = Callable[..., Any]
LARGE = ["x" * 4000] * 200  # the Deployment has 0.8 MB: more than a line that aiohttp reads unless it is told so


async def test_a_large_pool_is_followed_like_any_other(
    namespace: Namespace, running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    large = namespace.path("deployments", "large-engine", "apps/v1")

    async def replicas(path: str, count: int) -> None:
        await until(lambda: namespace.find(path), lambda found: found and found["spec"]["replicas"] == count)

    async with running(resync_s=1000.0):
        await namespace.apply("large", engine={"args": LARGE})
        await namespace.reaches("Available", "False", "NoReadyReplicas", "large")
        for count in (3, 2):
            await namespace.patch(large, {"spec": {"replicas": 5}})
            await replicas(large, 1)
            await namespace.apply(replicas=count)
            await replicas(namespace.path("deployments", "p-engine", "apps/v1"), count)
    assert not [one for one in caplog.records if one.message == "watch fails"]


async def test_any_character_comes_to_the_engine_as_it_was_written(namespace: Namespace, running: Running) -> None:
    """A chat template may have emojis: written as two escapes, the API server would refuse them in an apply."""
    words = ["\U0001f600 \u2028 \x85 \x7f \ufeff \u00e4", "\\ud83d", "\"'\n{{ x }}: #"]
    manifest = {"apiVersion": "multipick.dev/v1alpha1", "kind": "InferencePool", "metadata": {"name": "p"}}
    spec = {"model": {"uri": "hf://org/m"}, "engine": {"args": words}}
    async with running():
        await namespace.call("POST", namespace.pool_path("").rstrip("/"), manifest | {"spec": spec})
        engine = await until(lambda: namespace.find(namespace.path("deployments", "p-engine", "apps/v1")))
        assert engine["spec"]["template"]["spec"]["containers"][0]["args"][-3:] == words
        await namespace.reaches("Accepted", "True", "Accepted")


@pytest.fixture
def nesting() -> Iterator[None]:
    """This process reads and writes what is nested deeply, too."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(30_000)
    yield
    sys.setrecursionlimit(before)


@pytest.mark.parametrize(
    ("where", "depth"),
    [("podTemplate", 500), ("podTemplate", 1500), ("podTemplate", 9993), ("routing", 1500), ("autoscaling", 1500)],
)
async def test_what_is_nested_beyond_sense_is_refused_in_words_and_costs_no_other_pool(
    namespace: Namespace, program: Program, nesting: None, where: str, depth: int
) -> None:
    nested: dict[str, Any] = {}
    for _ in range(depth):
        nested = {"a": nested}
    spec = {
        "podTemplate": {"podTemplate": nested},
        "routing": {"routing": {"picker": {"podTemplate": nested}}},
        "autoscaling": {"autoscaling": {"maxReplicas": 2, "backend": "KEDA", "triggers": [nested]}},
    }[where]
    pool = {"apiVersion": "multipick.dev/v1alpha1", "kind": "InferencePool", "metadata": {"name": "deep"}}
    spec |= {"model": {"uri": "hf://org/m"}}
    await namespace.call("POST", namespace.pool_path("").rstrip("/"), pool | {"spec": spec})
    try:
        async with program() as (_, log):
            await namespace.apply()
            await until(lambda: namespace.find(namespace.path("deployments", "p-engine", "apps/v1")))
            await namespace.reaches("Available", "False", "NoReadyReplicas")
            await namespace.reaches("Accepted", "False", "InvalidSpec", "deep")
            assert "Traceback" not in log.read_text()
    finally:  # operators within other tests' processes read no such thing
        await namespace.call("DELETE", namespace.pool_path("deep"))
