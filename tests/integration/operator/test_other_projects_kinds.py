"""LeaderWorkerSet, KEDA, the Prometheus operator, whose CRDs come from their Go modules: what we write suits them."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster.apiserver import ApiServer
from cluster.build import UnavailableError, module_folder
from cluster.client import Namespace, until
from multipick_operator.api.pool import pool_of
from multipick_operator.app import Settings
from multipick_operator.children import desired
from multipick_operator.children.context import Context
from multipick_operator.children.names import LWS_INDEX, LWS_REVISION
from multipick_operator.cluster.kinds import PLURALS

Running = Callable[..., Any]
LWS, KEDA, MONITORING = "leaderworkerset.x-k8s.io/v1", "keda.sh/v1alpha1", "monitoring.coreos.com/v1"
SAMPLES = Path(__file__).parents[3] / "manifests/samples"
COLLECTED_S = 100.0  # the garbage collector looks for new kinds every 30 s, and waits for what it knows of the others
MULTI_NODE: dict[str, Any] = {"parallelism": {"tensor": 8, "nodes": 2}}
SCALED: dict[str, Any] = {
    "autoscaling": {
        "maxReplicas": 4,
        "backend": "KEDA",
        "prometheusUrl": "http://prometheus:9090",
        "targets": {"runningPerPod": 32},
    }
}
WATCHED: dict[str, Any] = {"monitoring": {"podMonitor": {"enabled": True, "labels": {"release": "prometheus"}}}}
EVERYTHING: dict[str, Any] = {
    "autoscaling": {"maxReplicas": 4},
    "storage": {"cache": {"type": "PVC"}},
    "networkPolicy": {"enabled": True},
    "podTemplate": {"spec": {"nodeSelector": {"gpu": "h200"}}},
}


@pytest.fixture
async def other_kinds(api: ApiServer) -> AsyncIterator[None]:
    """They go again after the test."""
    try:
        files = [
            module_folder("sigs.k8s.io/lws", "v0.7.0")
            / "config/crd/bases/leaderworkerset.x-k8s.io_leaderworkersets.yaml",
            module_folder("github.com/kedacore/keda/v2", "v2.20.2") / "config/crd/bases/keda.sh_scaledobjects.yaml",
            module_folder("github.com/prometheus-operator/prometheus-operator", "v0.85.0")
            / "example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml",
        ]
    except UnavailableError as error:
        pytest.skip(str(error))
    found = [yaml.safe_load(file.read_text()) for file in files]
    for crd in found:
        api.install(crd)
    yield
    for crd in found:
        api.request("DELETE", f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{crd['metadata']['name']}")


def samples() -> dict[str, dict[str, Any]]:
    files = {file.stem: list(yaml.safe_load_all(file.read_text())) for file in sorted(SAMPLES.glob("*.yaml"))}
    return {name: one["spec"] for name, made in files.items() for one in made if one["kind"] == "InferencePool"}


async def test_no_child_has_a_field_that_its_kind_does_not_know(
    namespace: Namespace, settings: Settings, other_kinds: None
) -> None:
    specs = samples() | {
        "multi-node": MULTI_NODE | WATCHED,
        "scaled": SCALED | WATCHED,
        "everything": EVERYTHING,
        "sglang-multi-node": MULTI_NODE | {"engine": {"type": "SGLang", "image": "example.com/sglang:1"}},
    }
    seen = set()
    for name, spec in specs.items():
        meta = {"namespace": namespace.name, "name": name, "uid": "u", "generation": 1}
        pool = pool_of({"metadata": meta, "spec": {"model": {"uri": "hf://org/m"}} | spec})
        for child in desired(pool, Context(settings.defaults)):
            version, kind = child["apiVersion"], child["kind"]
            if "gateway" in version or "inference.networking" in version:
                continue  # test_gateway_api.py
            group = "" if version == "v1" else version
            path = namespace.path(PLURALS[version, kind], child["metadata"]["name"], group)
            strict = f"{path}?fieldManager=tests&force=true&dryRun=All&fieldValidation=Strict"
            await namespace.call("PATCH", strict, child, "application/apply-patch+yaml")
            seen.add(kind)
    assert seen >= {"LeaderWorkerSet", "ScaledObject", "PodMonitor", "HorizontalPodAutoscaler", "Deployment"}


async def test_pools_that_need_other_projects_get_their_objects(
    namespace: Namespace, running: Running, other_kinds: None
) -> None:
    groups = namespace.path("leaderworkersets", "p-engine", LWS)
    async with running():
        await namespace.apply(**MULTI_NODE, **SCALED, **WATCHED, engine={"image": "example.com/vllm:1"}, replicas=3)
        made = await until(lambda: namespace.find(groups))
        assert (made["spec"]["replicas"], made["spec"]["leaderWorkerTemplate"]["size"]) == (3, 2)
        scaler = await until(lambda: namespace.find(namespace.path("scaledobjects", "p-engine", KEDA)))
        assert {trigger["type"] for trigger in scaler["spec"]["triggers"]} == {"prometheus"}
        monitors = [namespace.path("podmonitors", name, MONITORING) for name in ("p-engine", "p-epp")]
        await until(there(namespace, *monitors), all)
        await namespace.reaches("Accepted", "True", "Accepted")
        status = {"status": {"conditions": [condition("Ready", "False", "TriggerError")]}}
        await namespace.patch(namespace.path("scaledobjects", "p-engine", KEDA) + "/status", status)
        await namespace.reaches("ScalingActive", "False", "TriggerError")
        await namespace.patch(groups + "/status", {"status": {"readyReplicas": 3, "replicas": 3, "updatedReplicas": 3}})
        await namespace.reaches("Available", "True", "MinimumReplicasAvailable")
        await namespace.apply(**MULTI_NODE, engine={"image": "example.com/vllm:1"}, replicas=2)
        gone = (namespace.path("scaledobjects", "p-engine", KEDA), *monitors)
        await until(there(namespace, *gone), lambda found: not any(found))
        await until(lambda: namespace.find(groups), lambda found: found["spec"]["replicas"] == 2)
        await namespace.call("DELETE", namespace.pool_path())
        await until(there(namespace, groups), lambda found: not any(found), COLLECTED_S)


async def test_a_rollout_of_groups_is_told_when_it_has_ended_and_not_before_leader_worker_set_has_looked(
    namespace: Namespace, running: Running, other_kinds: None
) -> None:
    groups = namespace.path("leaderworkersets", "p-engine", LWS)

    async def leader(template: str) -> None:
        """The one pod that LeaderWorkerSet would have made, in the place of another."""
        labels = {"multipick.dev/pool": "p", "multipick.dev/role": "engine"}
        labels |= {LWS_INDEX: "0", LWS_REVISION: template}
        spec = {"containers": [{"name": "engine", "image": "example.com/vllm:1"}]}
        await namespace.call(
            "POST", namespace.path("pods"), {"metadata": {"name": template, "labels": labels}, "spec": spec}
        )

    async def revisions() -> tuple[str, str]:
        found = (await namespace.call("GET", namespace.pool_path())).get("status", {})
        return found.get("currentRevision", ""), found.get("updateRevision", "")

    async def rollouts() -> list[str]:
        return [reason for reason, _ in await namespace.events() if reason.startswith("Rollout")]

    async with running() as operator:
        await leader("first")
        await namespace.apply(**MULTI_NODE, engine={"image": "example.com/vllm:1"})
        await until(lambda: namespace.find(groups))
        await namespace.patch(groups + "/status", {"status": {"readyReplicas": 1, "replicas": 1, "updatedReplicas": 1}})
        before = await until(revisions, lambda found: found[0] and found[0] == found[1])
        await namespace.apply(**MULTI_NODE, engine={"image": "example.com/vllm:2"})
        await until(revisions, lambda found: found[1] != before[1])
        begun = operator.resyncs

        async def rounds() -> Any:
            return operator.resyncs

        await until(rounds, lambda found: found >= begun + 2)
        assert (await revisions())[0] == before[0]
        assert sorted(await rollouts()) == ["RolloutComplete", "RolloutStarted"]
        await leader("second")
        await namespace.call("DELETE", namespace.path("pods", "first"))
        await until(revisions, lambda found: found[0] == found[1] != before[1])
        await until(rollouts, lambda found: sorted(found) == ["RolloutComplete", "RolloutComplete", "RolloutStarted"])


def there(namespace: Namespace, *paths: str) -> Callable[[], Any]:
    async def look() -> list[Any]:
        return [await namespace.find(path) for path in paths]

    return look


def condition(kind: str, status: str, reason: str) -> dict[str, Any]:
    return {"type": kind, "status": status, "reason": reason, "message": "m"}
