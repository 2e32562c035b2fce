"""What `kill -9` of a part costs: of an engine its own streams, of every other part nothing. Each comes back."""

import urllib.error
from typing import Any

import pytest
from cluster.chats import WORKERS
from cluster.client import Namespace, until
from cluster.homes import Home
from cluster.kill import kill
from cluster.load import PATIENCE_S, Gateway, load
from cluster.pools import PICKER, POOL, engine, engines, identities, pods, serves, spec
from cluster.release import Release

AS_BEFORE = (None, None, {"exact": 2})


async def test_of_an_engine_breaks_its_own_streams_alone(
    cluster: Home, multipick: Release, namespace: Namespace, pool: Gateway
) -> None:
    async with load(pool, POOL) as tally:
        victim, _ = await engines(namespace)
        await kill(multipick.namespace, victim, cluster.image)
        await serves(namespace)
        await tally.more()
    endpoint = f"{victim['status']['podIP']}:8000"
    others = [one for one in tally.lost if not one.may_be_of(endpoint)]
    assert not others, (endpoint, others[:5])
    assert len(tally.lost) <= WORKERS, tally.lost  # each had one request when the engine died


@pytest.mark.parametrize("part", ["picker", "valkey"])
async def test_of_the_picker_or_of_valkey_loses_nothing(
    cluster: Home, multipick: Release, namespace: Namespace, pool: Gateway, part: str
) -> None:
    async def victims() -> list[dict[str, Any]]:
        if part == "valkey":
            return await multipick.pods("valkey")
        return await pods(namespace, f"multipick.dev/pool={POOL},{PICKER}")

    untouched = identities(await engines(namespace))
    await until(lambda: told(namespace), lambda found: found == AS_BEFORE, PATIENCE_S)
    async with load(pool, POOL) as tally:
        (victim,) = await victims()
        await kill(multipick.namespace, victim, cluster.image)
        await until(victims, lambda found: len(found) == 1 and _ready(found[0]), PATIENCE_S)
        await serves(namespace)
        await until(lambda: told(namespace), lambda found: found == AS_BEFORE, PATIENCE_S)
        await tally.more(100)
    assert not tally.lost, tally.lost[:5]
    assert identities(await engines(namespace)) == untouched


async def test_of_the_operator_in_mid_rollout_loses_nothing_and_the_rollout_completes(
    cluster: Home, multipick: Release, namespace: Namespace, pool: Gateway
) -> None:
    old = identities(await engines(namespace))
    async with load(pool, POOL) as tally:
        (victim,) = await multipick.pods("operator")
        await namespace.apply(POOL, **spec(cluster.accelerator, engine=engine(args=["--seed", "8"])))
        await until(lambda: engines(namespace), lambda found: not identities(found).keys() <= old.keys(), PATIENCE_S)
        await kill(multipick.namespace, victim, cluster.image)
        await serves(namespace)
        assert not identities(await engines(namespace)).keys() & old.keys()
        # it acts again, and not only Kubernetes by itself
        await namespace.patch(namespace.pool_path(POOL) + "/scale", {"spec": {"replicas": 3}})
        await serves(namespace, 3)
    assert not tally.lost, tally.lost[:5]


async def told(namespace: Namespace) -> Any:
    """What the picker says of its store, of the events, and of how well it knows each engine's cache."""
    (picker,) = await pods(namespace, f"multipick.dev/pool={POOL},{PICKER}")
    path = namespace.path("pods", f"{picker['metadata']['name']}:9090") + "/proxy/status"
    try:
        found = await namespace.call("GET", path)
    except urllib.error.HTTPError:  # it does not answer yet
        return None
    return found["state"], found["ingest"], found["endpoints"]["modes"]


def _ready(pod: dict[str, Any]) -> bool:
    return any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"]["conditions"])
