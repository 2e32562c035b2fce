"""Autoscalers. They write this pool's `spec.replicas` through its scale subresource; the operator follows."""

from typing import Any

from multipick_operator.api.crd import API_VERSION, KIND
from multipick_operator.api.engine import EngineType
from multipick_operator.api.pool import Autoscaling, Backend, Pool
from multipick_operator.children.names import ENGINE, MANAGER, Manifest, engine_name, manifest, without_nothing

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
    own = [_trigger(pool, wanted, name, value) for name, value in _goals(pool, wanted)]
    spec = without_nothing(
        {
            "scaleTargetRef": target,
            "minReplicaCount": wanted.min_replicas,
            "maxReplicaCount": wanted.max_replicas,
            "pollingInterval": 15,
            "cooldownPeriod": wanted.cooldown_seconds,
            "advanced": {"horizontalPodAutoscalerConfig": {"behavior": _behavior(wanted)}},
            "triggers": list(wanted.triggers) or own,
        }
    )
    if any(map(_can_fall_back, spec["triggers"])):
        # without metrics the pool stays as large as it is
        least = {"replicas": wanted.min_replicas, "behavior": "currentReplicasIfHigher"}
        spec["fallback"] = {"failureThreshold": 3, **least}
    if wanted.idle_to_zero:
        spec["idleReplicaCount"] = 0
    return [manifest(pool, "keda.sh/v1alpha1", "ScaledObject", engine_name(pool), ENGINE, spec=spec)]


def needs_metrics(pool: Pool) -> bool:
    """KEDA asks Prometheus for the engines' own gauges: somebody has to scrape them."""
    wanted = pool.spec.autoscaling
    return wanted is not None and wanted.backend is Backend.KEDA and not wanted.triggers


def replicas(pool: Pool, manifest: Manifest, live: int | None) -> int:
    """Engine pods (groups) that are wanted; `live`: as many as the workload has been told to have, None without one.

    While an autoscaler is set, `spec.replicas` counts as written through the scale subresource, by it or by `kubectl
    scale`, or by this operator. Else it is a default, or what a manifest said long ago: the fleet stays as it is.
    """
    wanted, asked = pool.spec.autoscaling, pool.spec.replicas
    if wanted is None:
        return asked
    if not is_written_by_scaler(manifest):
        asked = max(asked, live or 0)
    least = 0 if wanted.idle_to_zero and asked == 0 else wanted.min_replicas
    return min(max(asked, least), wanted.max_replicas)


def is_written_by_scaler(manifest: Manifest) -> bool:
    """Who wrote `spec.replicas` last: a scaler, or the operator for one. A default is nobody's."""
    return any(
        (entry.get("subresource") == "scale" or entry.get("manager") == MANAGER)
        and "f:replicas" in entry.get("fieldsV1", {}).get("f:spec", {})
        for entry in manifest["metadata"].get("managedFields", [])
    )


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
            "ignoreNullValues": "false",  # a missing series is no load of zero: see fallback
        },
    }


def _can_fall_back(trigger: Manifest) -> bool:
    """KEDA refuses `fallback` where no trigger has a metric of its own (`CheckFallbackValid`, 2.20)."""
    of_its_own = trigger.get("type") not in ("cpu", "memory")
    return of_its_own and (trigger.get("metricType") or "AverageValue") == "AverageValue"


def _behavior(wanted: Autoscaling) -> Manifest:
    """Up at once, down one pod a minute: a GPU pod takes minutes to come back, and its cache longer."""
    return {
        "scaleUp": {"stabilizationWindowSeconds": wanted.scale_up_stabilization_seconds},
        "scaleDown": {
            "stabilizationWindowSeconds": wanted.scale_down_stabilization_seconds,
            "policies": [{"type": "Pods", "value": 1, "periodSeconds": POD_STEP_S}],
        },
    }
