"""The engines: their workload, the Service that names them, their identity and the claim of their cache."""

import inspect

import msgspec

from multipick_operator import weights
from multipick_operator.api.crd import GROUP
from multipick_operator.api.pool import Pool, Strategy
from multipick_operator.api.storage import AccessMode, CacheType, Retention
from multipick_operator.children.context import Context, pin_of
from multipick_operator.children.names import (
    ENGINE,
    Manifest,
    endpoint_labels,
    engine_name,
    manifest,
    selector,
    weights_name,
    without_nothing,
)
from multipick_operator.children.pod import cache_claim, pod_template, port_name

PIN = f"{GROUP}/default-image"
CLAIM_SIZE = "100Gi"
ROLLOUT_MARGIN_S = 300  # the default of 600 s in all would call a slow load a failure


def engines(pool: Pool, context: Context) -> list[Manifest]:
    """Everything about the engines; no pods where they are somebody else's, or where no image is known."""
    service, image = _service(pool, context), context.engine_image(pool)
    if pool.spec.existing_pods:
        return [service]
    around = [*_service_account(pool), *_claim(pool, context.claim_modes), *_script(pool), service]
    if image is None:
        return around  # pods of before may still need them
    workload = _group(pool, image) if pool.spec.parallelism.nodes > 1 else _deployment(pool, image)
    if pin := pin_of(pool, image):
        workload["metadata"]["annotations"] = {PIN: pin}
    return [*around, workload]


def _deployment(pool: Pool, image: str) -> Manifest:
    rollout = pool.spec.rollout
    strategy: Manifest = {"type": rollout.strategy.value}
    if rollout.strategy is Strategy.ROLLING_UPDATE:
        strategy["rollingUpdate"] = {"maxSurge": rollout.max_surge, "maxUnavailable": rollout.max_unavailable}
    deadline = rollout.progress_deadline_seconds or pool.spec.probes.startup_timeout_seconds + ROLLOUT_MARGIN_S
    spec = {
        "replicas": pool.spec.replicas,
        "selector": {"matchLabels": selector(pool, ENGINE)},
        "strategy": strategy,
        "minReadySeconds": rollout.min_ready_seconds,
        "progressDeadlineSeconds": max(deadline, rollout.min_ready_seconds + 1),
        "revisionHistoryLimit": rollout.revision_history_limit,
        "paused": rollout.paused,
        "template": pod_template(pool, image),
    }
    return manifest(pool, "apps/v1", "Deployment", engine_name(pool), ENGINE, spec=spec)


def _group(pool: Pool, image: str) -> Manifest:
    """Replicas that span nodes. A group restarts as a whole: the ranks of one model can't rejoin one by one."""
    rollout = pool.spec.rollout
    spec = {
        "replicas": pool.spec.replicas,
        "rolloutStrategy": {
            "type": "RollingUpdate",
            "rollingUpdateConfiguration": {"maxSurge": rollout.max_surge, "maxUnavailable": rollout.max_unavailable},
        },
        "leaderWorkerTemplate": {
            "size": pool.spec.parallelism.nodes,
            "restartPolicy": "RecreateGroupOnPodRestart",
            "leaderTemplate": pod_template(pool, image),
            "workerTemplate": pod_template(pool, image, worker=True),
        },
    }
    return manifest(pool, "leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet", engine_name(pool), ENGINE, spec=spec)


def _service(pool: Pool, context: Context) -> Manifest:
    """Headless: for a gateway that resolves names instead of reading the Gateway API."""
    ports = [
        {"name": port_name(rank), "port": port, "targetPort": port, "protocol": "TCP"}
        for rank, port in enumerate(context.ports(pool))
    ]
    spec = {"clusterIP": "None", "selector": endpoint_labels(pool), "ports": ports}
    return manifest(pool, "v1", "Service", engine_name(pool), ENGINE, spec=spec)


def _service_account(pool: Pool) -> list[Manifest]:
    account = pool.spec.service_account
    if account.name:
        return []
    made = manifest(pool, "v1", "ServiceAccount", engine_name(pool), ENGINE, automountServiceAccountToken=False)
    if account.annotations:
        made["metadata"]["annotations"] = dict(account.annotations)
    return [made]


def _script(pool: Pool) -> list[Manifest]:
    """What the init step that fetches the weights runs."""
    if pool.spec.storage.fetch is None:
        return []
    data = {"weights.py": inspect.getsource(weights)}
    return [manifest(pool, "v1", "ConfigMap", weights_name(pool), ENGINE, data=data)]


def _claim(pool: Pool, modes: tuple[str, ...]) -> list[Manifest]:
    """The claim of the cache; `modes`: what it has where it is there, since that can't be changed."""
    cache = pool.spec.storage.cache
    if cache.type is not CacheType.PVC:
        return []
    scaling = pool.spec.autoscaling
    alone = pool.spec.parallelism.nodes == 1 and (scaling.max_replicas if scaling else pool.spec.replicas) <= 1
    mode = cache.access_mode or (AccessMode.ONCE if alone else AccessMode.MANY)
    spec = without_nothing(
        {
            "accessModes": [mode.value] if cache.access_mode or not modes else list(modes),
            "storageClassName": cache.storage_class_name,
            "resources": {"requests": {"storage": msgspec.to_builtins(cache.size or CLAIM_SIZE)}},
        }
    )
    made = manifest(pool, "v1", "PersistentVolumeClaim", cache_claim(pool), ENGINE, spec=spec)
    if cache.retention is Retention.RETAIN:
        del made["metadata"]["ownerReferences"]  # nobody's: what is downloaded outlives the pool
    return [made]
