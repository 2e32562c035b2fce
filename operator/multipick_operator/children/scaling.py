"""Autoscalers. They write this pool's `spec.replicas` through its scale subresource; the operator follows."""

from typing import Any

from multipick_operator.api.crd import API_VERSION, KIND
from multipick_operator.api.engine import EngineType
from multipick_operator.api.pool import Autoscaling, Backend, Pool
from multipick_operator.children.names import ENGINE, Manifest, engine_name, manifest

# names of the same three gauges; a Simulated pod has vLLM's
_METRICS = {
    EngineType.VLLM: ("vllm:num_requests_waiting", "vllm:num_requests_running", "vllm:kv_cache_usage_perc"),
    EngineType.SGLANG: ("sglang:num_queue_reqs", "sglang:num_running_reqs", "sglang:token_usage"),
}
POD_STEP_S = 60


def scalers(pool: Pool) -> list[Manifest]:
    """A HorizontalPodAutoscaler or KEDA's ScaledObject, where the spec asks for one."""
    wanted = pool.spec.autoscaling
    if wanted is None:
        return []
    target = {"apiVersion": API_VERSION, "kind": KIND, "name": pool.name}
    if wanted.backend is Backend.HPA:
        spec: dict[str, Any] = {
            "scaleTargetRef": target,
            "minReplicas": wanted.min_replicas,
            "maxReplicas": wanted.max_replicas,
            "metrics": [_pods_metric(name, value) for name, value in _goals(pool, wanted)],
            "behavior": _behavior(wanted),
        }
        return [manifest(pool, "autoscaling/v2", "HorizontalPodAutoscaler", engine_name(pool), ENGINE, spec=spec)]
    spec = {
        "scaleTargetRef": target,
        "minReplicaCount": wanted.min_replicas,
        "maxReplicaCount": wanted.max_replicas,
        "pollingInterval": 15,
        "advanced": {"horizontalPodAutoscalerConfig": {"behavior": _behavior(wanted)}},
        # without metrics the pool stays as large as it is
        "fallback": {"failureThreshold": 3, "replicas": wanted.min_replicas, "behavior": "currentReplicasIfHigher"},
        "triggers": [_trigger(pool, wanted, name, value) for name, value in _goals(pool, wanted)],
    }
    return [manifest(pool, "keda.sh/v1alpha1", "ScaledObject", engine_name(pool), ENGINE, spec=spec)]


def _goals(pool: Pool, wanted: Autoscaling) -> list[tuple[str, int]]:
    """Metric and its average over the pods, in thousandths."""
    names = _METRICS[EngineType.SGLANG if pool.spec.engine.type is EngineType.SGLANG else EngineType.VLLM]
    targets = wanted.targets
    per_pod = (targets.waiting_per_pod * 1000, targets.running_per_pod and targets.running_per_pod * 1000)
    values = (*per_pod, targets.kv_cache_percent * 10)
    return [(name, value) for name, value in zip(names, values, strict=True) if value]


def _pods_metric(name: str, thousandths: int) -> Manifest:
    target = {"type": "AverageValue", "averageValue": f"{thousandths}m"}
    return {"type": "Pods", "pods": {"metric": {"name": name}, "target": target}}


def _trigger(pool: Pool, wanted: Autoscaling, name: str, thousandths: int) -> Manifest:
    labels = f'namespace="{pool.namespace}",multipick_dev_pool="{pool.name}"'
    return {
        "type": "prometheus",
        "metricType": "AverageValue",
        "metadata": {
            "serverAddress": wanted.prometheus_url,
            "query": f"sum({name}{{{labels}}})",
            "threshold": f"{thousandths / 1000:g}",
        },
    }


def _behavior(wanted: Autoscaling) -> Manifest:
    """Up at once, down one pod a minute: a GPU pod takes minutes to come back, and its cache longer."""
    return {
        "scaleUp": {"stabilizationWindowSeconds": wanted.scale_up_stabilization_seconds},
        "scaleDown": {
            "stabilizationWindowSeconds": wanted.scale_down_stabilization_seconds,
            "policies": [{"type": "Pods", "value": 1, "periodSeconds": POD_STEP_S}],
        },
    }
