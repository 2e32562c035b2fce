"""The engine's pod template.

Its hash decides whether GPUs restart, so it follows from the pool's spec (and the pinned image) alone: nothing of the
operator's version, of other children or of the cluster may enter. `tests/unit/operator/test_golden.py` records them.
"""

from typing import Any

import msgspec

from multipick_operator.api.engine import EngineType
from multipick_operator.api.pool import Pool
from multipick_operator.api.storage import CacheType
from multipick_operator.children.artifacts import Artifact, artifact, is_downloaded, weights_folder
from multipick_operator.children.commands import command, environment
from multipick_operator.children.merge import merge
from multipick_operator.children.names import ENGINE, Manifest, engine_name, selector, weights_name, without_nothing
from multipick_operator.weights import PORT

SHUTDOWN_MARGIN_S = 15  # the kubelet must wait strictly longer than preStop and drain together
PROBE_PERIOD_S = 5
FETCHING = "weights"  # the init container
SCRIPT_FOLDER = "/etc/multipick-weights"
LOCKED_DOWN = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def pod_template(pool: Pool, image: str, worker: bool = False) -> Manifest:
    """The template; `worker`: for the nodes of a group that only compute."""
    base = {
        "metadata": {"labels": {"app.kubernetes.io/name": "multipick", "app.kubernetes.io/component": ENGINE}},
        "spec": _pod_spec(pool, image, worker),
    }
    merged = merge(base, _for_each_rank(pool, pool.spec.pod_template))
    # last, so that no template can move the pods out of their Deployment's selector
    labels = merged.setdefault("metadata", {}).setdefault("labels", {})
    labels |= selector(pool, ENGINE)
    return merged


def port_name(rank: int) -> str:
    """Of the HTTP port of a data-parallel rank: `http`, `http-1`, …"""
    return f"http-{rank}" if rank else "http"


def http_ports(pod: Manifest) -> list[int]:
    """As the pod itself names them, in the order of its ranks: it may have been made before the pool's changed.

    Those of its other containers are none, whatever they are called, as a mesh's `http-envoy-prom`.
    """
    named = {
        (container["name"], port.get("name")): int(port["containerPort"])
        for container in pod["spec"]["containers"]
        for port in container.get("ports", [])
    }
    ranks = range(len(pod["spec"]["containers"]))
    return [port for rank in ranks if (port := named.get((container_name(rank), port_name(rank))))]


def container_name(rank: int) -> str:
    """Container of a data-parallel rank: `engine`, `engine-1`, …"""
    return ENGINE if rank == 0 else f"{ENGINE}-{rank}"


def event_ports(pool: Pool) -> tuple[int, ...]:
    """Of KV events and their replay, of all data-parallel ranks."""
    events = pool.spec.engine.kv_events
    bases = (events.port, events.replay_port) if events.enabled else ()
    return tuple(base + rank for base in bases for rank in range(pool.spec.parallelism.data))


def grace_seconds(pool: Pool) -> int:
    """From deletion to SIGKILL."""
    return pool.spec.drain.propagation_seconds + pool.spec.drain.timeout_seconds + SHUTDOWN_MARGIN_S


def _pod_spec(pool: Pool, image: str, worker: bool) -> Manifest:
    spec = pool.spec
    ranks = 1 if worker else spec.parallelism.data
    artifacts = _artifacts(pool)
    return without_nothing(
        {
            "serviceAccountName": spec.service_account.name or engine_name(pool),
            "automountServiceAccountToken": False,
            # a Service named vllm would inject VLLM_PORT, which vLLM takes for its own setting and dies of
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": grace_seconds(pool),
            "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
            "imagePullSecrets": [{"name": name} for name in spec.engine.image_pull_secrets],
            "resourceClaims": [
                without_nothing(
                    {
                        "name": one.name,
                        "resourceClaimTemplateName": one.template_name,
                        "resourceClaimName": one.claim_name,
                    }
                )
                for one in spec.resources.device_claims
            ],
            "runtimeClassName": spec.resources.runtime_class_name,
            "nodeSelector": dict(spec.scheduling.node_selector),
            "tolerations": [msgspec.to_builtins(one) for one in spec.scheduling.tolerations],
            "priorityClassName": spec.scheduling.priority_class_name,
            "schedulerName": spec.scheduling.scheduler_name,
            "topologySpreadConstraints": [
                {
                    "maxSkew": 1,
                    "topologyKey": "kubernetes.io/hostname",
                    "whenUnsatisfiable": "ScheduleAnyway",
                    "labelSelector": {"matchLabels": selector(pool, ENGINE)},
                }
            ],
            "initContainers": _fetch(pool, image),
            "containers": [_container(pool, image, rank, worker, artifacts) for rank in range(ranks)],
            "volumes": _volumes(pool, artifacts),
        }
    )


def _container(pool: Pool, image: str, rank: int, worker: bool, artifacts: list[Artifact]) -> Manifest:
    engine = pool.spec.engine
    program, *arguments = command(pool, rank, worker)
    container = {
        "name": container_name(rank),
        "image": image,
        "imagePullPolicy": engine.image_pull_policy and engine.image_pull_policy.value,
        "command": [program],
        "args": arguments,
        "env": _environment(pool),
        "envFrom": [msgspec.to_builtins(one) for one in engine.env_from],
        "resources": _resources(pool),
        "volumeMounts": _mounts(pool, artifacts),
        "securityContext": LOCKED_DOWN | ({"runAsNonRoot": True} if engine.type is EngineType.SIMULATED else {}),
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    return without_nothing(container | ({} if worker else _serving(pool, rank)))


def _fetch(pool: Pool, image: str) -> list[Manifest]:
    """The init step that fetches the weights. What it runs lies in a ConfigMap, whose changes restart nobody."""
    fetch, folder = pool.spec.storage.fetch, weights_folder(pool)
    if fetch is None or folder is None:
        return []
    model, engine, cache = pool.spec.model, pool.spec.engine, pool.spec.storage.cache
    token = [one for one in environment(pool) if one["name"] == "HF_TOKEN"]
    container = {
        "name": FETCHING,
        "image": fetch.image or image,
        "imagePullPolicy": engine.image_pull_policy and engine.image_pull_policy.value,
        "command": ["python3", f"{SCRIPT_FOLDER}/weights.py"],
        "args": [model.uri, folder, *([model.revision] if model.revision else [])],
        "env": token,
        "envFrom": [{"secretRef": {"name": fetch.secret_name}}] if fetch.secret_name else [],
        "ports": [{"name": FETCHING, "containerPort": PORT, "protocol": "TCP"}],
        "volumeMounts": [
            {"name": "cache", "mountPath": cache.mount_path},
            {"name": "weights-script", "mountPath": SCRIPT_FOLDER, "readOnly": True},
        ],
        "securityContext": LOCKED_DOWN,
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    return [without_nothing(container)]


def _serving(pool: Pool, rank: int) -> Manifest:
    """What only a container that answers requests has: ports, probes, a farewell."""
    suffix = f"-{rank}" if rank else ""
    events = pool.spec.engine.kv_events
    ports = [{"name": port_name(rank), "containerPort": pool.ports[rank], "protocol": "TCP"}]
    if events.enabled:
        ports += [
            {"name": f"kv-events{suffix}", "containerPort": events.port + rank, "protocol": "TCP"},
            {"name": f"kv-replay{suffix}", "containerPort": events.replay_port + rank, "protocol": "TCP"},
        ]
    health = {"httpGet": {"path": "/health", "port": port_name(rank)}, "timeoutSeconds": 5}
    starts = -(-pool.spec.probes.startup_timeout_seconds // PROBE_PERIOD_S)
    return {
        "ports": ports,
        "startupProbe": health | {"periodSeconds": PROBE_PERIOD_S, "failureThreshold": starts},
        "readinessProbe": health | {"periodSeconds": 2, "failureThreshold": 2},
        "livenessProbe": health | {"periodSeconds": 10, "failureThreshold": 5},
        # gateways hear of the deletion while the engine still takes requests; only then SIGTERM
        "lifecycle": {"preStop": {"sleep": {"seconds": max(1, pool.spec.drain.propagation_seconds)}}},
    }


def _environment(pool: Pool) -> list[Manifest]:
    users = [msgspec.to_builtins(one) for one in pool.spec.engine.env]
    named = {one["name"] for one in users}
    return [one for one in environment(pool) if one["name"] not in named] + users


def _resources(pool: Pool) -> Manifest:
    spec = pool.spec
    accelerator = spec.resources.accelerator
    count = accelerator.count
    if count is None:
        simulated = spec.engine.type is EngineType.SIMULATED
        count = 0 if simulated else spec.parallelism.tensor * spec.parallelism.pipeline // spec.parallelism.nodes
    devices = {accelerator.resource: str(count)} if count else {}
    scratch = {}
    if _cached(pool) and spec.storage.cache.type is CacheType.EMPTY_DIR and is_downloaded(spec.model.uri or ""):
        scratch = without_nothing({"ephemeral-storage": spec.storage.cache.size})
    return without_nothing(
        {
            "requests": scratch | dict(spec.resources.requests) | devices,
            "limits": dict(spec.resources.limits) | devices,
            "claims": [{"name": one.name} for one in spec.resources.device_claims],
        }
    )


def _volumes(pool: Pool, artifacts: list[Artifact]) -> list[Manifest]:
    volumes: list[Manifest] = []
    if _shared_memory(pool):
        size = pool.spec.resources.shared_memory
        volumes.append({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": size}})
    if _cached(pool):
        volumes.append({"name": "cache", **_cache_source(pool)})
    if pool.spec.storage.fetch:
        volumes.append({"name": "weights-script", "configMap": {"name": weights_name(pool)}})
    return volumes + [one.volume for one in artifacts if one.volume]


def _mounts(pool: Pool, artifacts: list[Artifact]) -> list[Manifest]:
    mounts: list[Manifest] = []
    if _shared_memory(pool):
        mounts.append({"name": "shm", "mountPath": "/dev/shm"})
    if _cached(pool):
        mounts.append({"name": "cache", "mountPath": pool.spec.storage.cache.mount_path})
    return mounts + [one.mount for one in artifacts if one.mount]


def _artifacts(pool: Pool) -> list[Artifact]:
    adapters = pool.spec.lora.adapters if pool.spec.lora else ()
    named = [(pool.spec.model.uri or "", "model")]
    named += [(one.uri, f"adapter-{index}") for index, one in enumerate(adapters)]
    return [artifact(uri, name) for uri, name in named]


def _shared_memory(pool: Pool) -> bool:
    return str(pool.spec.resources.shared_memory) != "0"


def _cached(pool: Pool) -> bool:
    return pool.spec.engine.type is not EngineType.SIMULATED


def cache_claim(pool: Pool) -> str:
    """The claim that the pool makes for a cache of type PVC."""
    return f"{pool.name}-cache"


def _cache_source(pool: Pool) -> dict[str, Any]:
    cache = pool.spec.storage.cache
    match cache.type:
        case CacheType.EMPTY_DIR:
            return {"emptyDir": without_nothing({"sizeLimit": cache.size})}
        case CacheType.HOST_PATH:
            return {"hostPath": {"path": cache.host_path, "type": "DirectoryOrCreate"}}
        case CacheType.PVC:
            return {"persistentVolumeClaim": {"claimName": cache_claim(pool)}}
        case CacheType.EXISTING_CLAIM:
            return {"persistentVolumeClaim": {"claimName": cache.claim_name}}


def _for_each_rank(pool: Pool, template: Manifest) -> Manifest:
    """The user's changes to `engine` are meant for every rank of it."""
    spec = template.get("spec")
    if not isinstance(spec, dict) or not isinstance(containers := spec.get("containers"), list):
        return template
    spread = []
    for container in containers:
        is_engine = isinstance(container, dict) and container.get("name") == ENGINE
        spread += [
            container | {"name": container_name(rank)} if is_engine else container
            for rank in range(pool.spec.parallelism.data if is_engine else 1)
        ]
    return template | {"spec": spec | {"containers": spread}}
