"""A watch that can't be had costs only what it tells, says why, and comes back."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from cluster.apiserver import ApiServer
from cluster.client import Namespace, until
from cluster.relay import Relay
from cluster.rights import EVERYTHING, account, allow
from multipick_operator.api.crd import API_VERSION, KIND, crd
from multipick_operator.app import Operator
from multipick_operator.cluster.client import Kube

Running = Callable[..., Any]
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
POD_MONITORS = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "podmonitors.monitoring.coreos.com"},
    "spec": {
        "group": "monitoring.coreos.com",
        "scope": "Namespaced",
        "names": {
            "kind": "PodMonitor",
            "listKind": "PodMonitorList",
            "plural": "podmonitors",
            "singular": "podmonitor",
        },
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}
# everything but a list of Services
NO_LIST = (
    {"apiGroups": [""], "resources": ["services"], "verbs": ["get", "create", "patch", "delete"]},
    {
        "apiGroups": [""],
        "resources": ["pods", "configmaps", "secrets", "serviceaccounts", "persistentvolumeclaims", "events"],
        "verbs": ["*"],
    },
    {
        "apiGroups": ["multipick.dev", "apps", "policy", "networking.k8s.io", "autoscaling", "coordination.k8s.io"],
        "resources": ["*"],
        "verbs": ["*"],
    },
    {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["*"], "verbs": ["*"]},
    {"apiGroups": ["monitoring.coreos.com", "keda.sh", "leaderworkerset.x-k8s.io"], "resources": ["*"], "verbs": ["*"]},
    {
        "apiGroups": ["inference.networking.k8s.io", "gateway.networking.k8s.io"],
        "resources": ["*"],
        "verbs": ["*"],
    },
)
# no right at all on Services
NOTHING = NO_LIST[1:]


def failing(operator: Operator, kind: str, namespace: str) -> float:
    labels = {"kind": kind, "namespace": namespace}
    return operator.metrics.registry.get_sample_value("multipick_operator_watch_failing", labels) or 0


async def served(namespace: Namespace) -> None:
    await until(lambda: namespace.find(namespace.path("deployments", "p-engine", "apps/v1")))
    await namespace.reaches("Available", "False", "NoReadyReplicas")


async def beside(namespace: Namespace, suffix: str) -> Namespace:
    other = Namespace(namespace.server, f"{namespace.name}-{suffix}")
    await namespace.call("POST", "/api/v1/namespaces", {"metadata": {"name": other.name}})
    return other


async def test_a_namespace_that_is_gone_costs_the_others_nothing_and_is_served_when_it_is_back(
    namespace: Namespace, running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    token, other = await account(namespace), await beside(namespace, "c")
    await allow(namespace, namespace)
    await allow(other, namespace)
    await other.call("DELETE", f"/api/v1/namespaces/{other.name}")
    await until(lambda: other.find(f"/api/v1/namespaces/{other.name}"), lambda found: found is None)
    async with running(token=token, namespaces=(namespace.name, other.name)) as operator:
        await namespace.apply()
        await served(namespace)
        pools = "inferencepools.multipick.dev"
        await until(lambda: asyncio.sleep(0, failing(operator, pools, other.name)))
        assert not failing(operator, pools, namespace.name)
        assert operator.inability() is None
        told = [str(vars(one).get("why")) for one in caplog.records if one.message == "watch fails"]
        assert any("a right is missing" in one and "cannot list" in one and other.name in one for one in told)
        await namespace.call("POST", "/api/v1/namespaces", {"metadata": {"name": other.name}})
        await allow(other, namespace)
        await other.apply()
        await served(other)
        await until(lambda: asyncio.sleep(0, not failing(operator, pools, other.name)))


async def test_a_watched_namespace_can_be_deleted_while_the_operator_runs(
    namespace: Namespace, running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    token, other = await account(namespace), await beside(namespace, "d")
    await allow(namespace, namespace)
    await allow(other, namespace)
    async with running(token=token, namespaces=(namespace.name, other.name), may_fail=True) as operator:
        await other.apply()
        await served(other)
        await other.call("DELETE", f"/api/v1/namespaces/{other.name}")
        await until(lambda: other.find(f"/api/v1/namespaces/{other.name}"), lambda found: found is None)
        await namespace.apply()
        await served(namespace)
        assert operator.inability() is None
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("error", [RecursionError("too deep"), ValueError("no JSON"), KeyError("items")], ids=repr)
async def test_a_list_that_can_not_be_read_ends_nothing_and_is_told(
    namespace: Namespace,
    running: Running,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    plain = Kube.list

    async def unreadable(self: Kube, version: str, kind: str, *more: Any) -> Any:
        if (version, kind) == (API_VERSION, KIND):
            raise error
        return await plain(self, version, kind, *more)

    async with running() as operator:
        await namespace.apply()
        await served(namespace)
        monkeypatch.setattr(Kube, "list", unreadable)
        seen = operator.resyncs
        await until(lambda: asyncio.sleep(0, operator.resyncs > seen + 1))
        await namespace.apply("later")
        await until(lambda: namespace.find(namespace.path("deployments", "later-engine", "apps/v1")))
    told = {str(vars(one)["why"]) for one in caplog.records if one.message == "pools can't be listed"}
    assert told == {f"{type(error).__name__}: {error}"}


@pytest.mark.parametrize("rules", [NO_LIST, NOTHING], ids=["no list", "nothing"])
async def test_a_missing_right_on_one_kind_leaves_no_pool_without_a_status(
    namespace: Namespace, running: Running, rules: Any
) -> None:
    token = await account(namespace)
    await allow(namespace, namespace, rules)
    async with running(token=token) as operator:
        await namespace.apply()
        await served(namespace)
        await until(lambda: asyncio.sleep(0, failing(operator, "Service", namespace.name)))
        assert operator.inability() is None
        if rules is NO_LIST:
            await until(lambda: namespace.find(namespace.path("services", "p-epp")))
            await namespace.reaches("Accepted", "True", "Accepted")
        else:
            await namespace.reaches("Accepted", "False", "Forbidden")
        await allow(namespace, namespace)
        await namespace.reaches("Accepted", "True", "Accepted")
        await until(lambda: asyncio.sleep(0, not failing(operator, "Service", namespace.name)))


@pytest.mark.parametrize("resource", ["pods", "configmaps", "secrets", "deployments", "roles"])
async def test_whatever_may_not_be_read_the_pool_has_a_status_that_says_so(
    namespace: Namespace, running: Running, resource: str
) -> None:
    token = await account(namespace)
    groups = {"": "v1", "apps": "apps/v1", "rbac.authorization.k8s.io": "rbac.authorization.k8s.io/v1"}
    whole = ["multipick.dev", "policy", "networking.k8s.io", "autoscaling", "coordination.k8s.io", "keda.sh"]
    whole += ["inference.networking.k8s.io", "gateway.networking.k8s.io", "leaderworkerset.x-k8s.io"]
    rules = [{"apiGroups": whole, "resources": ["*"], "verbs": ["*"]}]
    for group, version in groups.items():
        served = await namespace.call("GET", f"/apis/{version}" if group else "/api/v1")
        names = [one["name"] for one in served["resources"] if one["name"].partition("/")[0] != resource]
        rules.append({"apiGroups": [group], "resources": names, "verbs": ["*"]})
    await allow(namespace, namespace, rules)
    async with running(token=token) as operator:
        await namespace.apply(model={"uri": "hf://org/m", "hfTokenSecretRef": {"name": "hf"}})
        await namespace.reaches("Accepted", "False", "Forbidden")
        pool = await namespace.call("GET", namespace.pool_path())
        (told,) = [one["message"] for one in pool["status"]["conditions"] if one["type"] == "Accepted"]
        assert f'resource "{resource}"' in told
        assert operator.inability() is None
        await until(lambda: namespace.find(namespace.path("services", "p-epp")))
        await allow(namespace, namespace)
        await namespace.reaches("Accepted", "True", "Accepted")


async def test_without_any_right_on_pools_the_operator_says_that_it_can_do_nothing(
    namespace: Namespace, running: Running
) -> None:
    token = await account(namespace)
    await allow(namespace, namespace, [rule for rule in NO_LIST if "multipick.dev" not in rule["apiGroups"]])
    leases = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["*"]}
    await allow(namespace, namespace, [leases])
    async with running(token=token) as operator:
        found = await until(lambda: asyncio.sleep(0, operator.inability()))
        assert "a right is missing" in found
        assert "inferencepools" in found
        await allow(namespace, namespace, EVERYTHING)
        await until(lambda: asyncio.sleep(0, operator.inability() is None))
        await namespace.apply()
        await served(namespace)


async def test_an_optional_kind_may_come_and_go(api: ApiServer, namespace: Namespace, running: Running) -> None:
    monitor = namespace.path("podmonitors", "p-epp", "monitoring.coreos.com/v1")
    async with running() as operator:
        await namespace.apply(monitoring={"podMonitor": {"enabled": True}})
        await namespace.reaches("ResolvedRefs", "False", "KindNotInstalled")
        api.install(POD_MONITORS)
        await namespace.reaches("ResolvedRefs", "True", "ResolvedRefs")
        await until(lambda: namespace.find(monitor))
        await namespace.call("DELETE", f"{CRDS}/podmonitors.monitoring.coreos.com")
        await namespace.reaches("ResolvedRefs", "False", "KindNotInstalled")
        await namespace.apply(replicas=2, monitoring={"podMonitor": {"enabled": True}})
        engine = namespace.path("deployments", "p-engine", "apps/v1")
        await until(lambda: namespace.find(engine), lambda found: found["spec"]["replicas"] == 2)
        assert not failing(operator, "PodMonitor", namespace.name)


async def test_the_pools_own_kind_may_come_and_go(api: ApiServer, namespace: Namespace, running: Running) -> None:
    name = crd()["metadata"]["name"]
    async with running() as operator:
        await namespace.apply()
        await served(namespace)
        await namespace.call("DELETE", f"{CRDS}/{name}")
        await until(lambda: asyncio.sleep(0, operator.inability()))
        api.install(crd())
        await namespace.apply()
        await until(lambda: asyncio.sleep(0, operator.inability() is None))
        await until(lambda: namespace.find(namespace.path("deployments", "p-epp", "apps/v1")))
        await namespace.reaches("PickerReady", "False", "NoReadyReplicas")


async def test_an_api_server_that_was_away_is_followed_again(
    api: ApiServer, namespace: Namespace, running: Running
) -> None:
    relay = Relay(api)
    engine = namespace.path("deployments", "p-engine", "apps/v1")
    async with relay.serve() as url, running(url=url, lease_s=60.0, may_fail=True) as operator:
        await namespace.apply()
        await served(namespace)
        relay.cut()
        await until(lambda: asyncio.sleep(0, failing(operator, "Service", namespace.name)))
        await namespace.apply(replicas=3)
        await namespace.call("DELETE", namespace.path("services", "p-epp"))
        relay.mend()
        await until(lambda: namespace.find(engine), lambda found: found["spec"]["replicas"] == 3)
        await until(lambda: namespace.find(namespace.path("services", "p-epp")))
        await until(lambda: asyncio.sleep(0, operator.inability() is None))
