"""Two pools of one name in two namespaces: each answers its own model, and one goes without a trace."""

from cluster.client import Namespace, until
from cluster.homes import Home
from cluster.load import PATIENCE_S, Gateway, load
from cluster.pools import POOL, serves, spec
from cluster.release import Release


async def test_two_pools_keep_apart_and_the_deletion_of_one_leaves_nothing_of_it(
    cluster: Home, pool: Gateway, neighbours: Namespace, neighbours_gateway: Release
) -> None:
    before = await until(neighbours.inventory, _has_what_every_namespace_has, PATIENCE_S)
    side = Gateway(neighbours_gateway.namespace, "side-multipick-gateway", cluster.image)
    model = {"uri": "/simulated", "name": "other"}
    async with load(pool, POOL) as tally:
        await neighbours.apply(POOL, **spec(cluster.accelerator, replicas=1, model=model))
        await serves(neighbours, 1)
        await until(side.answers, bool, PATIENCE_S)
        async with load(side, "other") as others:
            await tally.more()
            assert (await pool.models(), await side.models()) == ([POOL], ["other"])
        assert not others.lost, others.lost[:5]
        assert await neighbours.inventory() > before
        await neighbours.call("DELETE", neighbours.pool_path(POOL))
        await until(neighbours.inventory, lambda found: found == before, PATIENCE_S)
        await tally.more()
    assert not tally.lost, tally.lost[:5]


def _has_what_every_namespace_has(found: set[tuple[str, str]]) -> bool:
    return found == {("serviceaccounts", "default"), ("configmaps", "kube-root-ca.crt")}
