"""The Gateway API and its inference extension, whose CRDs come from their Go modules: missing, then there."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import yaml
from cluster.apiserver import ApiServer
from cluster.build import UnavailableError, module_folder
from cluster.client import Namespace, until
from multipick_operator.children import Ref
from multipick_operator.cluster.client import ApiError, Kube

Running = Callable[..., Any]
GIE = "inference.networking.k8s.io/v1"
GATEWAY = "gateway.networking.k8s.io/v1"
ROUTED: dict[str, Any] = {
    "routing": {"gateway": {"httpRoute": {"create": True, "parentRefs": [{"name": "gw"}], "hostnames": ["h.test"]}}}
}


def crds() -> list[dict[str, Any]]:
    """Gateway, HTTPRoute and the GIE InferencePool."""
    gateway = module_folder("sigs.k8s.io/gateway-api", "v1.6.1") / "config/crd/standard"
    extension = module_folder("sigs.k8s.io/gateway-api-inference-extension", "v1.5.0") / "config/crd/bases"
    files = [
        gateway / "gateway.networking.k8s.io_gateways.yaml",
        gateway / "gateway.networking.k8s.io_httproutes.yaml",
        extension / "inference.networking.k8s.io_inferencepools.yaml",
    ]
    return [yaml.safe_load(file.read_text()) for file in files]


@pytest.fixture
async def gateway_api(api: ApiServer) -> AsyncIterator[Callable[[], None]]:
    """A function that installs the kinds; they go again after the test."""
    try:
        found = crds()
    except UnavailableError as error:
        pytest.skip(str(error))

    def install() -> None:
        for crd in found:
            api.install(crd)

    yield install
    for crd in found:
        api.request("DELETE", f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{crd['metadata']['name']}")


def parents(**conditions: str) -> dict[str, Any]:
    """What a gateway writes into a status."""
    time = "2026-11-22T08:00:00Z"
    listed = [
        {"type": name, "status": status, "reason": name, "message": "m", "lastTransitionTime": time}
        for name, status in conditions.items()
    ]
    ref = {"name": "gw"}
    return {"status": {"parents": [{"parentRef": ref, "controllerName": "test.dev/gateway", "conditions": listed}]}}


ROUTE_TAKEN = parents(Accepted="True", ResolvedRefs="True")


async def test_a_route_asks_for_what_the_pool_says_and_the_api_takes_it(
    namespace: Namespace, running: Running, gateway_api: Callable[[], None]
) -> None:
    gateway_api()
    asked = {
        "create": True,
        "parentRefs": [{"name": "gw", "namespace": "infra", "sectionName": "https", "port": 443}],
        "hostnames": ["a.test", "*.b.test"],
        "pathPrefix": "/team/v1",
        "rewritePathPrefix": "/v1",
        "headers": [{"name": "x-tier", "value": "gold"}, {"name": "x-team", "value": "red"}],
        "requestTimeoutSeconds": 600,
        "canary": {"pool": "q", "percent": 10},
    }
    route = namespace.path("httproutes", "p", GATEWAY)
    async with running():
        await namespace.apply(routing={"gateway": {"httpRoute": asked}})
        found = (await until(lambda: namespace.find(route)))["spec"]
        gateway = {"group": GATEWAY.partition("/")[0], "kind": "Gateway"}
        assert found["parentRefs"] == [gateway | asked["parentRefs"][0]]  # type: ignore[index]
        assert found["hostnames"] == ["a.test", "*.b.test"]
        (rule,) = found["rules"]
        path = {"type": "PathPrefix", "value": "/team/v1"}
        headers = [{"type": "Exact", "name": "x-tier", "value": "gold"}]
        headers += [{"type": "Exact", "name": "x-team", "value": "red"}]
        assert rule["matches"] == [{"path": path, "headers": headers}]
        rewrite = {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/v1"}}
        assert rule["filters"] == [{"type": "URLRewrite", "urlRewrite": rewrite}]
        pools = {"group": GIE.partition("/")[0], "kind": "InferencePool"}
        assert rule["backendRefs"] == [pools | {"name": "p", "weight": 90}, pools | {"name": "q", "weight": 10}]
        assert rule["timeouts"] == {"request": "600s"}
        await namespace.apply(routing={"gateway": {"httpRoute": {"create": True, "parentRefs": [{"name": "gw"}]}}})
        plain = await until(lambda: namespace.find(route), lambda one: "hostnames" not in one["spec"])
        (rule,) = plain["spec"]["rules"]
        assert rule["matches"] == [{"path": {"type": "PathPrefix", "value": "/v1"}}]
        assert "filters" not in rule
        assert rule["backendRefs"] == [pools | {"name": "p", "weight": 1}]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pathPrefix": "/a//b"}, "path"),
        ({"pathPrefix": "/a/../b"}, "path"),
    ],
    ids=["empty", "upwards"],
)
async def test_a_route_that_the_gateway_api_would_refuse_is_told_in_words(
    namespace: Namespace, running: Running, gateway_api: Callable[[], None], changes: dict[str, Any], words: str
) -> None:
    gateway_api()
    route = {"create": True, "parentRefs": [{"name": "gw"}]} | changes
    async with running():
        await namespace.apply(routing={"gateway": {"httpRoute": route}})
        await namespace.reaches("Accepted", "False", "InvalidSpec")
        pool = await namespace.call("GET", namespace.pool_path())
        (message,) = [one["message"] for one in pool["status"]["conditions"] if one["type"] == "Accepted"]
        assert words in message


async def test_kinds_that_come_later_are_found_and_gateways_have_the_last_word(
    namespace: Namespace, running: Running, gateway_api: Callable[[], None]
) -> None:
    route = namespace.path("httproutes", "p", GATEWAY)
    extension = namespace.path("inferencepools", "p", GIE)
    async with running():
        await namespace.apply(**ROUTED)
        await namespace.reaches("RouteReady", "False", "KindNotInstalled")
        gateway_api()
        await namespace.reaches("RouteReady", "False", "Pending")
        await namespace.reaches("ResolvedRefs", "False", "GatewayNotFound")
        spec = {"gatewayClassName": "c", "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}]}
        gateway = {"apiVersion": GATEWAY, "kind": "Gateway", "metadata": {"name": "gw"}, "spec": spec}
        await namespace.call("POST", namespace.path("gateways", group=GATEWAY), gateway)
        await namespace.reaches("ResolvedRefs", "True", "ResolvedRefs")
        made = await until(lambda: namespace.find(extension))
        assert made["spec"]["endpointPickerRef"]["name"] == "p-epp"
        assert (await namespace.call("GET", namespace.pool_path()))["status"]["url"] == ""
        await namespace.patch(extension + "/status", parents(Accepted="True", ResolvedRefs="True"))
        await namespace.patch(route + "/status", parents(Accepted="False"))
        await namespace.reaches("RouteReady", "False", "Accepted")
        await until(namespace.events, lambda found: "RouteRejected" in [reason for reason, _ in found])
        await namespace.patch(route + "/status", parents(Accepted="True", ResolvedRefs="True"))
        await namespace.reaches("RouteReady", "True", "Accepted")
        pool = await namespace.call("GET", namespace.pool_path())
        assert pool["status"]["url"] == "http://h.test/v1"
        tls = {"name": "https", "port": 443, "protocol": "HTTPS", "tls": {"certificateRefs": [{"name": "c"}]}}
        await namespace.patch(namespace.path("gateways", "gw", GATEWAY), {"spec": {"listeners": [tls]}})
        await until(
            lambda: namespace.call("GET", namespace.pool_path()),
            lambda found: found["status"]["url"] == "https://h.test/v1",
        )
        await namespace.apply("q", **ROUTED)
        await namespace.reaches("RouteReady", "False", "Pending", "q")
        await namespace.patch(namespace.path("inferencepools", "q", GIE) + "/status", ROUTE_TAKEN)
        await namespace.patch(namespace.path("httproutes", "q", GATEWAY) + "/status", ROUTE_TAKEN)
        await namespace.reaches("RouteReady", "False", "Shadowed", "q")
        await namespace.call("DELETE", namespace.pool_path("q"))
        await namespace.apply(**ROUTED, engine={"port": 9000})
        both = [{"number": 9000}, {"number": 8000}]  # the old pod is not gone, since the new one isn't ready
        await until(lambda: namespace.find(extension), lambda found: found["spec"]["targetPorts"] == both)
        assert len((await namespace.find(extension))["status"]["parents"]) == 1
        await namespace.apply(routing={"gateway": {"createInferencePool": False}})
        await until(lambda: namespace.find(extension), lambda found: found is None)
        await until(lambda: namespace.find(route), lambda found: found is None)


@pytest.mark.parametrize("status", [500, 403, 404])
async def test_a_gateway_that_can_not_be_read_for_a_moment_changes_nothing_for_gateways_and_pickers(
    namespace: Namespace,
    running: Running,
    gateway_api: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
    status: int,
) -> None:
    """By its class the pickers speak TLS: plaintext instead would be a 500 for every request."""
    gateway_api()
    spec = {"gatewayClassName": "envoy-gateway", "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}]}
    gateway = {"apiVersion": GATEWAY, "kind": "Gateway", "metadata": {"name": "gw"}, "spec": spec}
    await namespace.call("POST", namespace.path("gateways", group=GATEWAY), gateway)
    read = Kube.get

    async def unreadable(self: Kube, ref: Ref, *more: Any, **options: Any) -> Any:
        if ref.kind != "Gateway":
            return await read(self, ref, *more, **options)
        if status == 404:
            return None
        raise ApiError(status, "InternalError", "etcdserver: leader changed")

    async def pickers() -> tuple[Any, Any]:
        deployment = await namespace.call("GET", namespace.path("deployments", "p-epp", "apps/v1"))
        service = await namespace.call("GET", namespace.path("services", "p-epp"))
        return deployment["spec"]["template"], service["spec"]["ports"]

    async with running():
        await namespace.apply(**ROUTED)
        await namespace.reaches("ResolvedRefs", "True", "ResolvedRefs")
        service = namespace.path("services", "p-epp")
        await until(lambda: namespace.find(service), lambda one: one and "http2" in str(one["spec"]["ports"]))
        before = await pickers()
    monkeypatch.setattr(Kube, "get", unreadable)
    async with running():  # one that has just begun, and remembers nothing
        if status == 404:
            await namespace.reaches("ResolvedRefs", "False", "GatewayNotFound")
        else:
            await namespace.reaches("Accepted", "False", {403: "Forbidden", 500: "ServerError"}[status])
        assert await pickers() == before
