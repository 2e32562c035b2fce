"""The chart's own life: an upgrade restarts what it changes, and pools outlive the release."""

from typing import Any

from cluster.client import Namespace, until
from cluster.homes import OURS
from cluster.load import PATIENCE_S, Gateway, load
from cluster.pools import PICKER, POOL, engines, identities, pods, serves
from cluster.release import Release


async def test_an_upgrade_restarts_no_pod_that_it_does_not_change(
    multipick: Release, gateway: Release, namespace: Namespace, pool: Gateway
) -> None:
    async def others() -> dict[str, int]:
        found = [*await engines(namespace), *await pickers(namespace)]
        return identities([*found, *await multipick.pods("valkey"), *await gateway.pods("gateway")])

    before, old = await others(), identities(await multipick.pods("operator"))
    image = (await engines(namespace))[0]["spec"]["containers"][0]["image"]
    async with load(pool, POOL) as tally:
        try:
            # a new default for engines is for new pools
            await multipick.upgrade(
                operator={"logLevel": "debug", "resyncSeconds": 60}, engines={"simulated": "localhost/nothing:1"}
            )
            await until(
                lambda: multipick.pods("operator"),
                lambda found: found and not identities(found).keys() & old.keys(),
                PATIENCE_S,
            )
            # the new operator acts, and an engine more is one like the others
            await namespace.patch(namespace.pool_path(POOL) + "/scale", {"spec": {"replicas": 3}})
            await serves(namespace, 3)
            assert {pod["spec"]["containers"][0]["image"] for pod in await engines(namespace)} == {image}
            after = await others()
            assert {uid: after.get(uid) for uid in before} == before
            await tally.more()
        finally:
            await multipick.upgrade()
    assert not tally.lost, tally.lost[:5]


async def test_pools_outlive_the_release_and_serve_on(multipick: Release, namespace: Namespace, pool: Gateway) -> None:
    before, front = identities(await engines(namespace)), identities(await pickers(namespace))
    async with load(pool, POOL) as tally:
        await multipick.uninstall()
        try:
            await until(lambda: leftovers(multipick), lambda found: not found, PATIENCE_S)
            await tally.more(100)
            assert (identities(await engines(namespace)), identities(await pickers(namespace))) == (before, front)
            assert "deletionTimestamp" not in (await namespace.call("GET", OURS))["metadata"]
            assert (await namespace.call("GET", namespace.pool_path(POOL)))["spec"]["replicas"] == 2
        finally:
            await multipick.install()
        # the new operator takes the pool over as it is
        await namespace.patch(namespace.pool_path(POOL) + "/scale", {"spec": {"replicas": 3}})
        await serves(namespace, 3)
        after = identities(await engines(namespace))
        assert {uid: after.get(uid) for uid in before} == before
    assert not tally.lost, tally.lost[:5]


async def pickers(namespace: Namespace) -> list[dict[str, Any]]:
    return await pods(namespace, f"multipick.dev/pool={POOL},{PICKER}")


async def leftovers(release: Release) -> list[dict[str, Any]]:
    return [*await release.pods("operator"), *await release.pods("valkey")]
