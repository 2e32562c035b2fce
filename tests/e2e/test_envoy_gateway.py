"""A pool behind Envoy Gateway, as the sample has it: by policies of its own, since alone it knows no InferencePool.

Beside the sample's route, where bodies are buffered, there is one in full duplex.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import aiohttp
import pytest
import yaml
from cluster.apiserver import ApiServer
from cluster.build import UnavailableError
from cluster.chats import ENDPOINT
from cluster.client import Namespace, until
from cluster.envoy_gateway import SYSTEM, envoy_gateway
from cluster.homes import Home
from cluster.images import ROOT
from cluster.kill import kill
from cluster.load import PATIENCE_S, Gateway, load
from cluster.pools import PICKER, POOL, pods, serves, spec
from cluster.release import Release

SAMPLE = ROOT / "manifests/gateways/envoy-gateway/gateway.yaml"
NAME = "multipick-e2e-envoy-gateway"
PROXIES = "gateway.envoyproxy.io/owning-gateway-name=inference-gateway"
PORT = 10080  # of a proxy, for the Gateway's port 80
PLURALS = {
    "GatewayClass": "gatewayclasses",
    "Gateway": "gateways",
    "HTTPRoute": "httproutes",
    "ClientTrafficPolicy": "clienttrafficpolicies",
    "BackendTrafficPolicy": "backendtrafficpolicies",
    "EnvoyExtensionPolicy": "envoyextensionpolicies",
}
DUPLEX = "/duplex"
QUESTION = {"model": POOL, "max_tokens": 4, "messages": [{"role": "user", "content": "a question"}]}
LARGE = 20 << 20  # bytes


@pytest.fixture(scope="module")
def installed(cluster: Home, multipick: Release, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Namespace]:
    """Envoy Gateway, and a namespace with the sample in it, but for its pool."""
    if not isinstance(cluster.server, ApiServer):
        pytest.skip("Envoy Gateway's image is for the suite's own node only")
    made = envoy_gateway(cluster, tmp_path_factory.mktemp("envoy-gateway"))
    try:
        made.__enter__()
    except UnavailableError as error:
        pytest.skip(str(error))
    namespace, path = Namespace(cluster.server, NAME), f"/api/v1/namespaces/{NAME}"
    try:
        cluster.server.apply(path, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAME}})
        for manifest in (*sample(), *in_full_duplex()):
            if manifest["kind"] in PLURALS:
                cluster.server.apply(_path(namespace, manifest), manifest)
        yield namespace
    finally:
        cluster.server.request("DELETE", path)
        made.__exit__(None, None, None)


@pytest.fixture
async def pool(installed: Namespace) -> Namespace:
    """It has two engines and two pickers, and serves on both routes."""
    wanted = spec("", model={"uri": "/simulated", "name": POOL})
    del wanted["resources"]
    wanted["routing"] |= next(one for one in sample() if one["kind"] == "InferencePool")["spec"]["routing"]
    wanted["routing"]["picker"]["replicas"] = 2
    await installed.apply(POOL, **wanted)
    await serves(installed)
    for prefix in ("", DUPLEX):
        await until(partial(picks, installed, prefix), bool, PATIENCE_S)
    return installed


def sample() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(SAMPLE.read_text()))


def in_full_duplex() -> list[dict[str, Any]]:
    """The route and its two policies once more, for other paths."""
    found = [one for one in sample() if one["metadata"]["name"] == "demo" and one["kind"] in PLURALS]
    for one in found:
        one["metadata"]["name"] = "duplex"
        for target in one["spec"].get("targetRefs", []):
            target["name"] = "duplex"
        for rule in one["spec"].get("rules", []):
            rule["matches"] = [{"path": {"type": "PathPrefix", "value": f"{DUPLEX}/v1"}}]
            path = {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/v1"}
            rule["filters"] = [{"type": "URLRewrite", "urlRewrite": {"path": path}}]
        for each in one["spec"].get("extProc", []):
            body = {"body": "FullDuplexStreamed"}
            each |= {"processingMode": {"request": body, "response": body}, "failOpen": False}  # which it demands
    return found


def _path(namespace: Namespace, manifest: dict[str, Any]) -> str:
    plural, name, group = PLURALS[manifest["kind"]], manifest["metadata"]["name"], manifest["apiVersion"]
    if manifest["kind"] == "GatewayClass":
        return f"/apis/{group}/{plural}/{name}"
    return namespace.path(plural, name, group)


async def url(namespace: Namespace, prefix: str) -> str:
    """Of chats; empty where there is no proxy yet."""
    found = await pods(Namespace(namespace.server, SYSTEM), PROXIES)
    address = next((pod["status"]["podIP"] for pod in found if "podIP" in pod["status"]), "")
    return address and f"http://{address}:{PORT}{prefix}/v1/chat/completions"


async def picks(namespace: Namespace, prefix: str) -> bool:
    """Requests are answered, by an engine that a picker named."""
    if not (where := await url(namespace, prefix)):
        return False
    try:
        async with aiohttp.ClientSession() as http, http.post(where, json=QUESTION) as answer:
            return answer.status == 200 and ENDPOINT in answer.headers
    except aiohttp.ClientError:
        return False


@pytest.mark.parametrize("prefix", ["", DUPLEX], ids=["buffered", "full duplex"])
async def test_requests_of_every_size_are_picked_and_streams_that_clients_leave_end(
    pool: Namespace, prefix: str
) -> None:
    where = await url(pool, prefix)
    async with aiohttp.ClientSession() as http:
        for padding in (0, 100_000, LARGE):
            async with http.post(where, json={"metadata": {"padding": "x" * padding}} | QUESTION) as answer:
                assert answer.status == 200, await answer.text()
                assert ENDPOINT in answer.headers
                assert (await answer.json())["usage"]["completion_tokens"] == QUESTION["max_tokens"]
        async with http.post(where, json=QUESTION | {"stream": True}) as answer:
            assert "[DONE]" in await answer.text()
        for _ in range(10):
            async with http.post(where, json=QUESTION | {"stream": True, "max_tokens": 2000}) as answer:
                assert (await answer.content.readline()).startswith(b"data:")
                answer.close()
    await until(lambda: in_flight(pool), lambda found: found == 0, PATIENCE_S)


async def in_flight(pool: Namespace) -> int:
    """Requests on all engines, as the pickers know them together."""
    picker = (await pods(pool, f"multipick.dev/pool={POOL},{PICKER}"))[0]["metadata"]["name"]
    rows = await pool.call("GET", pool.path("pods", f"{picker}:9090") + "/proxy/endpoints")
    return sum(int(row["in_flight"]) for row in rows)


async def test_a_picker_that_is_killed_loses_nothing_where_bodies_are_buffered(
    cluster: Home, multipick: Release, pool: Namespace
) -> None:
    system = Namespace(pool.server, SYSTEM)
    (service,) = (await system.call("GET", system.path("services") + f"?labelSelector={PROXIES}"))["items"]
    async with load(Gateway(system, service["metadata"]["name"], cluster.image), POOL) as tally:
        victim = (await pods(pool, f"multipick.dev/pool={POOL},{PICKER}"))[0]
        await kill(multipick.namespace, victim, cluster.image)
        await tally.more(100)
    assert not tally.lost, tally.lost[:5]
