"""The chart, installed by Helm's own library into a real API server, and the operator under the rights it gives."""

import asyncio
import contextlib
import shutil
import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster.apiserver import ApiServer
from cluster.client import Namespace, until

helm = pytest.importorskip("helm_python", reason="Helm's library is not to be had on this platform")

CHART = str(Path(__file__).parents[3] / "charts/multipick")
CRD = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/inferencepools.multipick.dev"
Running = Callable[..., Any]


@contextlib.contextmanager
def release(namespace: Namespace, values: dict[str, Any], chart: str = CHART) -> Iterator[Any]:
    """The chart as release `multipick`, gone again afterwards."""
    with helm.Config(kubeconfig_path=str(namespace.server.kubeconfig), namespace=namespace.name) as config:
        config.install(chart, "multipick", values)
        try:
            yield config
        finally:
            with contextlib.suppress(helm.HelmError):
                config.uninstall("multipick")


async def token(namespace: Namespace) -> str:
    """What the operator's pod would have mounted."""
    path = namespace.path("serviceaccounts", "multipick-operator") + "/token"
    made = await namespace.call("POST", path, {"spec": {}})
    text: str = made["status"]["token"]
    return text


@pytest.mark.parametrize("scope", ["cluster", "namespace"])
async def test_the_operator_needs_no_more_rights_than_the_chart_gives(
    namespace: Namespace, running: Running, scope: str, caplog: pytest.LogCaptureFixture
) -> None:
    namespaces = [namespace.name] if scope == "namespace" else []
    values = {"crds": {"install": False}, "operator": {"namespaces": namespaces}}
    everything: dict[str, Any] = {
        "autoscaling": {"maxReplicas": 3},
        "networkPolicy": {"enabled": True},
        "storage": {"cache": {"type": "PVC", "retention": "Delete"}},
        "model": {"uri": "hf://org/m", "hfTokenSecretRef": {"name": "absent"}},
    }
    with release(namespace, values):
        lease = {"lease_name": "multipick-operator"}
        defaults = {"state_url": "redis://r:6379", "state_password": "pw"}
        async with running(
            token=await token(namespace), namespaces=tuple(namespaces), defaults_changes=defaults, **lease
        ):
            await namespace.apply(**everything)
            found = await until(namespace.children, lambda found: ("horizontalpodautoscalers", "p-engine") in found)
            assert ("secrets", "p-epp") in found
            await namespace.reaches("ResolvedRefs", "False", "SecretNotFound")
            await until(namespace.events, lambda found: "ChildCreated" in [reason for reason, _ in found])
            await namespace.apply()
            gone = {("horizontalpodautoscalers", "p-engine"), ("persistentvolumeclaims", "p-cache")}
            await until(namespace.children, lambda found: not gone & set(found))
            await namespace.reaches("Accepted", "True", "Accepted")
            await namespace.call("DELETE", namespace.pool_path())
            await until(namespace.children, lambda found: not found)
    assert "forbidden" not in caplog.text.lower()


async def test_a_pool_loses_its_secret_when_the_chart_has_given_up_its_store_and_no_picker_needs_it(
    namespace: Namespace, running: Running, serve: Callable[[int], Any]
) -> None:
    values: dict[str, Any] = {"crds": {"install": False}, "operator": {"namespaces": [namespace.name]}}
    path = namespace.path("secrets", "p-epp")
    with release(namespace, values) as config:
        may = {"token": await token(namespace), "lease_name": "multipick-operator"}
        async with running(defaults_changes={"state_url": "redis://r:6379", "state_password": "pw"}, **may):
            await namespace.apply()
            await until(lambda: namespace.find(path))
            await serve(1)
            await namespace.reaches("Progressing", "True", "RolloutComplete")
        await asyncio.to_thread(config.upgrade, CHART, "multipick", values | {"valkey": {"enabled": False}})
        async with running(**may) as operator:
            await namespace.reaches("Progressing", "True", "RolloutInProgress")
            begun = operator.resyncs

            async def rounds() -> int:
                return int(operator.resyncs)

            await until(rounds, lambda found: found >= begun + 2)
            assert await namespace.find(path)

            async def rolled() -> Any:
                with contextlib.suppress(urllib.error.HTTPError):  # a pod that has left meanwhile
                    await serve(1)
                return await namespace.find(path)

            await until(rolled, lambda found: found is None)
            await namespace.reaches("Accepted", "True", "Accepted")


async def test_an_upgrade_keeps_the_password_and_restarts_only_what_changed(namespace: Namespace) -> None:
    values: dict[str, Any] = {
        "crds": {"install": False},
        "gateway": {"enabled": True, "pool": {"name": "demo"}},
        "operator": {"namespaces": [namespace.name]},
    }

    async def secret() -> Any:
        return (await namespace.call("GET", namespace.path("secrets", "multipick-valkey")))["data"]

    async def generations() -> dict[str, int]:
        found = {}
        for plural, name in (
            ("deployments", "multipick-operator"),
            ("deployments", "multipick-gateway"),
            ("statefulsets", "multipick-valkey"),
        ):
            one = await namespace.call("GET", namespace.path(plural, name, "apps/v1"))
            found[name] = one["metadata"]["generation"]
        return found

    with release(namespace, values) as config:
        password, before = await secret(), await generations()
        await asyncio.to_thread(config.upgrade, CHART, "multipick", values)
        assert (await secret(), await generations()) == (password, before)
        changed = values | {"gateway": values["gateway"] | {"retries": 1}}
        await asyncio.to_thread(config.upgrade, CHART, "multipick", changed)
        assert await secret() == password
        after = await generations()
        assert {name for name in before if before[name] != after[name]} == {"multipick-gateway"}


async def test_a_valkey_image_that_can_not_be_had_is_healed_by_the_next_upgrade(namespace: Namespace) -> None:
    values: dict[str, Any] = {"crds": {"install": False}, "operator": {"enabled": False}}

    async def images() -> list[str]:
        found = await namespace.call("GET", namespace.path("pods"))
        return [pod["spec"]["containers"][0]["image"] for pod in found["items"]]

    async def upgrade(image: str) -> None:
        await asyncio.to_thread(config.upgrade, CHART, "multipick", values | {"valkey": {"image": image}})
        await until(images, lambda found: found == [image])

    with release(namespace, values | {"valkey": {"image": "example.com/valkey:1"}}) as config:
        await until(images, lambda found: found == ["example.com/valkey:1"])
        ready = {
            "status": {
                "phase": "Running",
                "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-22T08:00:00Z"}],
            }
        }
        await namespace.patch(namespace.path("pods", "multipick-valkey-0") + "/status", ready)
        await upgrade("example.com/no-such:1")  # no kubelet: like one whose image can't be had, it never becomes ready
        await upgrade("example.com/valkey:2")


async def test_a_release_of_an_earlier_chart_is_upgraded_and_goes_back(namespace: Namespace, tmp_path: Path) -> None:
    older = tmp_path / "multipick"
    shutil.copytree(CHART, older)
    template = older / "templates/valkey.yaml"
    lines = template.read_text().splitlines(keepends=True)
    template.write_text("".join(line for line in lines if "podManagementPolicy" not in line))
    values: dict[str, Any] = {"crds": {"install": False}, "operator": {"enabled": False}}
    path = namespace.path("statefulsets", "multipick-valkey", "apps/v1")
    with release(namespace, values, str(older)) as config:
        for chart, image in ((CHART, "example.com/valkey:2"), (str(older), "example.com/valkey:1")):
            await asyncio.to_thread(config.upgrade, chart, "multipick", values | {"valkey": {"image": image}})
            live = (await namespace.call("GET", path))["spec"]
            assert live["podManagementPolicy"] == "OrderedReady"  # it can't be changed
            assert live["template"]["spec"]["containers"][0]["image"] == image


async def test_uninstalling_keeps_the_crd_and_every_pool(api: ApiServer, namespace: Namespace) -> None:
    owned = {
        "metadata": {
            "labels": {"app.kubernetes.io/managed-by": "Helm"},
            "annotations": {
                "meta.helm.sh/release-name": "multipick",
                "meta.helm.sh/release-namespace": namespace.name,
            },
        }
    }
    await namespace.patch(CRD, owned)  # the tests' server has it already
    await namespace.apply()
    with release(namespace, {"operator": {"namespaces": [namespace.name]}}) as config:
        config.uninstall("multipick")
    assert await namespace.find(namespace.pool_path())
    with pytest.raises(urllib.error.HTTPError):
        await namespace.call("GET", namespace.path("deployments", "multipick-operator", "apps/v1"))
    crd = await namespace.call("GET", CRD)
    assert "deletionTimestamp" not in crd["metadata"]


async def test_every_manifest_of_the_chart_is_admitted(namespace: Namespace) -> None:
    values = {
        "crds": {"install": False},
        "gateway": {"enabled": True, "pool": {"name": "demo"}},
        "networkPolicy": {"enabled": True},
    }
    await namespace.patch(
        f"/api/v1/namespaces/{namespace.name}",
        {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}},
    )
    with release(namespace, values):

        async def pods() -> Any:
            found = await namespace.call("GET", namespace.path("pods"))
            return {pod["metadata"]["labels"]["app.kubernetes.io/component"] for pod in found["items"]}

        await until(pods, lambda found: found == {"operator", "gateway", "valkey"})
