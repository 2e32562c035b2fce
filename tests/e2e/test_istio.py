"""Two pools behind one Gateway of Istio: its real control plane, and stock Envoys as it programs them.

The pickers of one speak plaintext, those of the other TLS; the operator tells Istio by a DestinationRule. Each pool has
two pickers, and no request may be lost while pickers and engines come and go, but what a killed picker had under way.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from operator import le
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from cluster.apiserver import ApiServer
from cluster.chats import ENDPOINT, PAUSE_S, WORKERS
from cluster.client import Namespace, until
from cluster.homes import Home
from cluster.istio import ADMIN_PORT
from cluster.kill import kill
from cluster.load import PATIENCE_S, Gateway, load
from cluster.pools import PICKER, engines, identities, pods, serves, spec
from cluster.release import Release

SAMPLE = Path(__file__).parents[2] / "manifests/gateways/istio/gateway.yaml"
NAME = "multipick-e2e-istio"
LARGE = 20 << 20  # bytes
MERGED_S = 1.0
"""Envoy's threads hear up to so much later that a picker is left out, if something else has changed just before: its
`update_merge_window`, which Istio lets nobody set."""

over_plaintext = pytest.mark.parametrize("front", ["plaintext"], indirect=True)  # what is spoken makes no difference


@dataclass(frozen=True, slots=True)
class Front:
    """A pool behind the Gateway; its model has its name."""

    pool: str
    prefix: str
    picker_tls: str
    tls: bool
    gateway: Gateway

    @property
    def namespace(self) -> Namespace:
        return self.gateway.namespace


@pytest.fixture(scope="module")
def shared(istio: ApiServer, multipick: Release) -> Iterator[Namespace]:
    """A namespace with the sample's Gateway in it."""
    path = f"/api/v1/namespaces/{NAME}"
    istio.apply(path, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAME}})
    found, gateway = Namespace(istio, NAME), sample("Gateway")
    istio.apply(found.path("gateways", gateway["metadata"]["name"], "gateway.networking.k8s.io/v1"), gateway)
    yield found
    istio.request("DELETE", path)


@pytest.fixture(params=["plaintext", "tls"])
async def front(request: pytest.FixtureRequest, cluster: Home, shared: Namespace) -> Front:
    return await made(cluster, shared, "secure" if request.param == "tls" else "demo")


async def made(cluster: Home, namespace: Namespace, pool: str) -> Front:
    """It serves, with two engines and two pickers."""
    tls = pool == "secure"
    prefix = "/secure" if tls else ""
    service = f"{sample('Gateway')['metadata']['name']}-istio"
    gateway = Gateway(namespace, service, cluster.image, prefix)
    found = Front(pool, prefix, "SelfSigned" if tls else "Auto", tls, gateway)
    await namespace.apply(pool, **behind(found))
    await serves(namespace, pool=pool)
    await namespace.reaches("RouteReady", "True", "Accepted", pool, PATIENCE_S)
    await until(gateway.answers, bool, PATIENCE_S)
    # the operator looks for Istio's kind of rule once a minute, and a rule that comes later ends what is under way
    await until(partial(cluster_of_pickers, found), lambda one: one and one["connect_timeout"] == "1s", PATIENCE_S)
    return found


def behind(front: Front, **picker: Any) -> dict[str, Any]:
    """The sample's route, to the pool of the other tests; its engines ask for no accelerator."""
    routing = sample("InferencePool")["spec"]["routing"]
    routing["gateway"]["pickerTLS"] = front.picker_tls
    routing["gateway"]["httpRoute"]["pathPrefix"] = f"{front.prefix}/v1"
    wanted = spec("", model={"uri": "/simulated", "name": front.pool})
    del wanted["resources"]
    return wanted | {"routing": routing | {"picker": wanted["routing"]["picker"] | {"replicas": 2} | picker}}


def sample(kind: str) -> Any:
    return next(one for one in yaml.safe_load_all(SAMPLE.read_text()) if one["kind"] == kind)


async def pickers(front: Front) -> list[dict[str, Any]]:
    return await pods(front.namespace, f"multipick.dev/pool={front.pool},{PICKER}")


async def envoy(front: Front) -> dict[str, Any]:
    """The Gateway's only pod."""
    name = sample("Gateway")["metadata"]["name"]
    (found,) = await pods(front.namespace, f"gateway.networking.k8s.io/gateway-name={name}")
    return found


async def test_engines_scaled_up_and_down_and_deleted_lose_nothing(front: Front) -> None:
    namespace, pool = front.namespace, front.pool
    scale = namespace.pool_path(pool) + "/scale"
    async with load(front.gateway, pool) as tally:
        await namespace.patch(scale, {"spec": {"replicas": 4}})
        await serves(namespace, 4, pool)
        deleted = (await engines(namespace, pool))[0]["metadata"]["name"]
        await namespace.call("DELETE", namespace.path("pods", deleted))

        def is_gone(found: list[dict[str, Any]]) -> bool:
            return deleted not in [pod["metadata"]["name"] for pod in found]

        await until(lambda: engines(namespace, pool), is_gone, PATIENCE_S)
        await serves(namespace, 4, pool)
        await namespace.patch(scale, {"spec": {"replicas": 2}})
        await serves(namespace, 2, pool)
        await tally.more()
    assert not tally.lost, tally.lost[:5]


async def test_pickers_that_are_rolled_lose_nothing(front: Front) -> None:
    old = identities(await pickers(front))
    async with load(front.gateway, front.pool) as tally:
        await front.namespace.apply(front.pool, **behind(front, logLevel="Warning"))
        await until(lambda: pickers(front), lambda found: not identities(found).keys() & old.keys(), PATIENCE_S)
        await serves(front.namespace, pool=front.pool)
        await tally.more(100)
    assert not tally.lost, tally.lost[:5]


async def test_a_picker_that_is_killed_costs_what_is_under_way_there_alone(
    cluster: Home, multipick: Release, front: Front
) -> None:
    """Istio has requests and answers pass through the picker, and Envoy ends those of one that is gone: 500, or cut."""
    async with load(front.gateway, front.pool) as tally:
        victim = next(pod for pod in await pickers(front) if "deletionTimestamp" not in pod["metadata"])
        await kill(multipick.namespace, victim, cluster.image)
        await until(lambda: pickers(front), lambda found: all(map(is_ready, found)), PATIENCE_S)
        await tally.more(100)
    assert len(tally.lost) <= WORKERS, tally.lost  # each had one request when the picker died


@over_plaintext
async def test_pickers_that_are_all_killed_cost_what_is_under_way_and_the_rest_fails_open(
    cluster: Home, multipick: Release, front: Front
) -> None:
    """Istio leaves out a picker that failed once, and without one that it could try, a body goes on, too."""
    before = await ejections(front)
    async with load(front.gateway, front.pool) as tally:
        victims = [pod for pod in await pickers(front) if "deletionTimestamp" not in pod["metadata"]]
        await asyncio.gather(*(kill(multipick.namespace, victim, cluster.image) for victim in victims))
        await until(lambda: pickers(front), lambda found: all(map(is_ready, found)), PATIENCE_S)
        await tally.more(100)
    # Each time that one was left out, every client had one request under way, and lost more until all threads knew.
    times = await ejections(front) - before
    cut = [loss for loss in tally.lost if loss.begun]
    assert len(cut) <= times * WORKERS, cut
    assert len(tally.lost) - len(cut) <= times * WORKERS * (1 + MERGED_S / PAUSE_S), tally.lost


async def ejections(front: Front) -> int:
    """How often Envoy has left out one of the pickers."""
    return await counted(front, cluster_name(front, front.tls), "outlier_detection.ejections_enforced_total")


@over_plaintext
async def test_where_no_picker_is_left_nothing_is_lost(multipick: Release, front: Front) -> None:
    scale = front.namespace.path("deployments", f"{front.pool}-epp", "apps/v1") + "/scale"
    async with without_operator(multipick), load(front.gateway, front.pool) as tally:
        await front.namespace.patch(scale, {"spec": {"replicas": 0}})
        await until(lambda: pickers(front), lambda found: not found, PATIENCE_S)
        assert [await asked(front, method) for method in ("GET", "POST", "GET", "POST")] == [(200, False)] * 4
        await tally.more(100)
        await front.namespace.patch(scale, {"spec": {"replicas": 2}})
        await until(lambda: asked(front, "POST"), lambda found: found == (200, True), PATIENCE_S)
        await tally.more(100)
    assert not tally.lost, tally.lost[:5]


async def asked(front: Front, method: str) -> tuple[int, bool]:
    """How a request ended, and whether a picker had it."""
    path, body = ("models", None) if method == "GET" else ("completions", {"model": front.pool, "prompt": "a question"})
    url = f"http://{(await envoy(front))['status']['podIP']}{front.prefix}/v1/{path}"
    async with aiohttp.ClientSession() as http, http.request(method, url, json=body) as answer:
        return answer.status, ENDPOINT in answer.headers


@asynccontextmanager
async def without_operator(multipick: Release) -> AsyncIterator[None]:
    """It would give a pool its pickers again."""
    scale = multipick.namespace.path("deployments", "multipick-operator", "apps/v1") + "/scale"
    replicas = (await multipick.namespace.call("GET", scale))["spec"]["replicas"]
    await multipick.namespace.patch(scale, {"spec": {"replicas": 0}})
    try:
        await until(lambda: multipick.pods("operator"), lambda found: not found, PATIENCE_S)
        yield
    finally:
        await multipick.namespace.patch(scale, {"spec": {"replicas": replicas}})


def is_ready(pod: dict[str, Any]) -> bool:
    return any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"]["conditions"])


async def test_istio_follows_the_rule_that_the_operator_writes(front: Front) -> None:
    pool = await front.namespace.call("GET", front.namespace.pool_path(front.pool))
    assert pool["status"]["picker"]["service"].endswith(f":{9443 if front.tls else 9002}")
    found = await cluster_of_pickers(front)
    assert found["connect_timeout"] == "1s"
    assert found["outlier_detection"]["consecutive_5xx"] == 1
    assert found["outlier_detection"]["base_ejection_time"] == "5s"
    assert found["outlier_detection"]["max_ejection_percent"] == 100
    assert ("tls" in json.dumps(found.get("transport_socket", {}))) == front.tls
    assert bool(await counted(front, cluster_name(front, front.tls), "ssl.handshake")) == front.tls


async def cluster_of_pickers(front: Front) -> Any:
    """As the Gateway's Envoy has it; None where it knows none."""
    found = await admin(front, "config_dump?resource=dynamic_active_clusters")
    name = cluster_name(front, front.tls)
    return next((one["cluster"] for one in found["configs"] if one["cluster"]["name"] == name), None)


async def admin(front: Front, path: str) -> Any:
    """What the Gateway's Envoy says of itself."""
    where = front.namespace.path("pods", f"{(await envoy(front))['metadata']['name']}:{ADMIN_PORT}")
    return await front.namespace.call("GET", f"{where}/proxy/{path}")


async def counted(front: Front, cluster: str, what: str) -> int:
    """By the Gateway's Envoy."""
    stats = (await admin(front, f"stats?format=json&filter={what}"))["stats"]
    return sum(one["value"] for one in stats if cluster in one["name"])


def cluster_name(front: Front, tls: bool) -> str:
    """What Istio calls one port of the pickers' Service."""
    return f"outbound|{9443 if tls else 9002}||{front.pool}-epp.{front.namespace.name}.svc.cluster.local"


async def test_what_is_spoken_to_the_pickers_changes_and_nothing_is_lost(front: Front) -> None:
    """Another port of theirs is asked: no picker is replaced, and no rule of Istio's changes."""
    before = identities(await pickers(front))
    async with load(front.gateway, front.pool) as tally:
        for tls in (not front.tls, front.tls):
            name = cluster_name(front, tls)
            enough = await counted(front, name, "upstream_rq_total") + 50
            await front.namespace.apply(front.pool, **behind(replace(front, picker_tls="SelfSigned" if tls else "Off")))
            await until(partial(counted, front, name, "upstream_rq_total"), partial(le, enough), PATIENCE_S)
        assert identities(await pickers(front)) == before
    assert not tally.lost, tally.lost[:5]


async def test_bodies_of_20_mb_and_streams_that_clients_leave(front: Front) -> None:
    address = (await envoy(front))["status"]["podIP"]
    body = {"model": front.pool, "max_tokens": 4, "messages": [{"role": "user", "content": "a question"}]}
    url = f"http://{address}{front.prefix}/v1/chat/completions"
    async with aiohttp.ClientSession() as http:
        async with http.post(url, json=body) as answer:
            small = await answer.json()
        async with http.post(url, json={"metadata": {"padding": "x" * LARGE}} | body) as answer:
            assert answer.status == 200, await answer.text()
            read = (await answer.json())["usage"]["prompt_tokens"]
            assert read == small["usage"]["prompt_tokens"]  # what stands behind the 20 MB arrived
        for _ in range(10):
            async with http.post(url, json=body | {"stream": True, "max_tokens": 2000}) as answer:
                assert answer.status == 200
                assert (await answer.content.readline()).startswith(b"data:")
                answer.close()
    await until(lambda: in_flight(front), lambda found: found == 0, PATIENCE_S)


async def in_flight(front: Front) -> int:
    """Requests on all engines, as the pickers know them together."""
    picker = (await pickers(front))[0]["metadata"]["name"]
    rows = await front.namespace.call("GET", front.namespace.path("pods", f"{picker}:9090") + "/proxy/endpoints")
    return sum(int(row["in_flight"]) for row in rows)


async def test_two_pools_of_one_gateway_answer_their_own_models(cluster: Home, shared: Namespace) -> None:
    plain, secure = await made(cluster, shared, "demo"), await made(cluster, shared, "secure")
    async with load(plain.gateway, "demo") as tally, load(secure.gateway, "secure") as other:
        assert (await plain.gateway.models(), await secure.gateway.models()) == (["demo"], ["secure"])
        await asyncio.gather(tally.more(50), other.more(50))
    assert not tally.lost + other.lost, (tally.lost[:5], other.lost[:5])
