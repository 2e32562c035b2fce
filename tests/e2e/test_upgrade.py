"""From an earlier version of the chart to this one and back, under load: no request is lost, no engine restarts."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster.build import UnavailableError
from cluster.client import Namespace, until
from cluster.homes import Home
from cluster.images import programs
from cluster.load import PATIENCE_S, Gateway, load
from cluster.pools import PICKER, POOL, engines, identities, pods, serves, spec
from cluster.release import CHART, Release, gone

ROOT = Path(__file__).parents[2]
BEFORE = os.environ.get("MULTIPICK_E2E_BEFORE", "bf07a03")  # a commit: the last one of the hand-written client
TAG = "before"
DRAIN_S = 30  # longer than any stream of the load


@pytest.fixture(scope="module")
def before(cluster: Home, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The earlier chart; the node has its images."""
    if cluster.load is None:
        pytest.skip("the earlier version's images are in no registry")
    tree = tmp_path_factory.mktemp("before") / "tree"
    git = ["git", "-C", str(ROOT), "worktree"]
    made = subprocess.run([*git, "add", "--detach", str(tree), BEFORE], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"no earlier version to be had: {made.stderr[-300:]}")
    try:
        for image in programs(TAG, tree):
            cluster.load(image)
        yield str(tree / "charts/multipick")
    except UnavailableError as error:
        pytest.skip(str(error))
    finally:
        subprocess.run([*git, "remove", "--force", str(tree)], check=True)


async def test_to_this_version_and_back_loses_nothing(
    cluster: Home, multipick: Release, gateway: Release, namespace: Namespace, pool: Gateway, before: str
) -> None:
    """Gateways move between the loads: an Envoy of the earlier chart cuts connections that clients keep, as it ends."""
    older = {part: {"image": cluster.values[part]["image"] | {"tag": TAG}} for part in ("operator", "picker")}

    async def front(chart: str) -> None:
        old = {pod["metadata"]["uid"] for pod in await gateway.pods("gateway")}
        await gateway.upgrade(chart)
        await gone(old, lambda: gateway.pods("gateway"))
        await until(pool.answers, bool, PATIENCE_S)

    async def move(chart: str, programs: dict[str, Any]) -> None:
        """Operator, store and pickers to this chart, under load."""
        known = identities(await engines(namespace))
        async with load(pool, POOL) as tally:
            operators, fronts = await multipick.pods("operator"), await pickers(namespace)
            await multipick.upgrade(chart, **programs)
            await gone({pod["metadata"]["uid"] for pod in operators}, lambda: multipick.pods("operator"))
            await gone({pod["metadata"]["uid"] for pod in fronts}, lambda: pickers(namespace))
            await serves(namespace)
            await tally.more(100)
        assert not tally.lost, tally.lost[:5]
        assert identities(await engines(namespace)) == known

    await namespace.call("DELETE", namespace.pool_path(POOL))
    await until(lambda: engines(namespace), lambda found: not found, PATIENCE_S)
    for one in (gateway, multipick):
        await one.uninstall()
    try:
        await multipick.install(before, **older)
        await gateway.install(before)
        await namespace.apply(POOL, **spec(cluster.accelerator))
        await serves(namespace)
        await until(pool.answers, bool, PATIENCE_S)
        await move(CHART, {})
        await front(CHART)
        await move(before, older)
        await front(before)
    finally:
        for one in (gateway, multipick):
            await one.uninstall()
        for one in (multipick, gateway):
            await one.install()


async def test_a_rollout_of_the_gateway_cuts_no_client_that_keeps_its_connection(
    gateway: Release, namespace: Namespace, pool: Gateway
) -> None:
    drain = {"drainSeconds": DRAIN_S}
    try:
        await gateway.replace("gateway", gateway=drain)
        await until(pool.answers, bool, PATIENCE_S)
        async with load(pool, POOL) as tally:
            await gateway.replace("gateway", gateway=drain | {"retries": 3})
            await tally.more(100)
        assert not tally.lost, tally.lost[:5]
    finally:
        await gateway.replace("gateway")


async def pickers(namespace: Namespace) -> list[dict[str, Any]]:
    return await pods(namespace, f"multipick.dev/pool={POOL},{PICKER}")
