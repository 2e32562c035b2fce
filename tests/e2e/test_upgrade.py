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
from cluster.release import CHART, Release

ROOT = Path(__file__).parents[2]
BEFORE = os.environ.get("MULTIPICK_E2E_BEFORE", "bf07a03")  # a commit: the last one of the hand-written client
TAG = "before"
DRAIN_S = 60  # longer than any stream of the load: here Envoys are replaced, too


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
    older = {part: {"image": cluster.values[part]["image"] | {"tag": TAG}} for part in ("operator", "picker")}
    drain = {"gateway": {"drainSeconds": DRAIN_S}}

    async def move(chart: str, programs: dict[str, Any]) -> None:
        """Both releases to this chart, until nothing that takes requests or acts is of the other one."""
        old = [*await multipick.pods("operator"), *await gateway.pods("gateway"), *await pickers(namespace)]
        gone = {pod["metadata"]["uid"] for pod in old}
        await multipick.upgrade(chart, **programs)
        await gateway.upgrade(chart, **drain)

        async def left() -> set[str]:
            found = [*await multipick.pods("operator"), *await gateway.pods("gateway"), *await pickers(namespace)]
            return gone & {pod["metadata"]["uid"] for pod in found}

        await until(left, lambda found: not found, PATIENCE_S)
        await serves(namespace)

    await namespace.call("DELETE", namespace.pool_path(POOL))
    await until(lambda: engines(namespace), lambda found: not found, PATIENCE_S)
    for one in (gateway, multipick):
        await one.uninstall()
    try:
        await multipick.install(before, **older)
        await gateway.install(before, **drain)
        await namespace.apply(POOL, **spec(cluster.accelerator))
        await serves(namespace)
        await until(pool.answers, bool, PATIENCE_S)
        known = identities(await engines(namespace))
        async with load(pool, POOL) as tally:
            await move(CHART, {})
            await tally.more(100)
            assert identities(await engines(namespace)) == known
            await move(before, older)
            await tally.more(100)
            assert identities(await engines(namespace)) == known
        assert not tally.lost, tally.lost[:5]
    finally:
        for one in (gateway, multipick):
            await one.uninstall()
        for one in (multipick, gateway):
            await one.install()


async def pickers(namespace: Namespace) -> list[dict[str, Any]]:
    return await pods(namespace, f"multipick.dev/pool={POOL},{PICKER}")
