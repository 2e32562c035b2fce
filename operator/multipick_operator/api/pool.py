"""The whole spec of a pool."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

import msgspec
from msgspec import Meta, field

from multipick_operator.api.engine import (
    Engine,
    Model,
    Parallelism,
    Probes,
    Resources,
    Scheduling,
)
from multipick_operator.api.fields import (
    LIST_MAP,
    Labels,
    ObjectName,
    Seconds,
    SecretKey,
    Share,
    Spec,
    Text,
)
from multipick_operator.api.lora import Lora, RuntimeAdapter
from multipick_operator.api.nesting import is_nested
from multipick_operator.api.quantities import endless_quantities
from multipick_operator.api.routing import Routing
from multipick_operator.api.storage import Storage
from multipick_operator.api.texts import HttpUrl, StoreUrl

MAX_NESTING = 64  # no field of a pod template lies half as deep


class SpecError(Exception):
    """The spec can't be used; the message names the field."""


class Strategy(StrEnum):
    """How a changed pod template reaches the pods."""

    ROLLING_UPDATE = "RollingUpdate"
    RECREATE = "Recreate"


class Backend(StrEnum):
    """Who computes the number of replicas."""

    HPA = "HPA"
    KEDA = "KEDA"


class ExistingPods(Spec, frozen=True):
    """Pods that somebody else runs: they get a picker, and no pod is made."""

    match_labels: Annotated[Labels, Meta(min_length=1, description="Labels that all of the pool's pods carry.")]


class Targets(Spec, frozen=True):
    """Load that the autoscaler aims at, per pod."""

    waiting_per_pod: Annotated[int, Meta(ge=1, le=10000, description="Requests that wait in an engine.")] = 2
    running_per_pod: (
        Annotated[
            int, Meta(ge=1, le=10000, description="Requests that an engine works on; not looked at where not given.")
        ]
        | None
    ) = None
    kv_cache_percent: Annotated[int, Meta(ge=1, le=100, description="KV cache in use.")] = 80


class Autoscaling(Spec, frozen=True):
    """An autoscaler on this object's scale subresource; `replicas` is then its to write."""

    max_replicas: Annotated[int, Meta(ge=1, le=10000, description="Never more engine pods than these.")]
    min_replicas: Annotated[int, Meta(ge=1, le=10000, description="Never fewer, but where idleToZero says so.")] = 1
    backend: Annotated[Backend, Meta(description="HPA needs an adapter that serves the engines' metrics.")] = (
        Backend.HPA
    )
    targets: Targets = Targets()
    prometheus_url: (
        Annotated[
            HttpUrl,
            Meta(
                description="Prometheus that KEDA asks. Where not given, KEDA needs triggers.",
            ),
        ]
        | None
    ) = None
    scale_up_stabilization_seconds: Annotated[
        int, Meta(ge=0, le=3600, description="The load must be that high for so long before a pod is added.")
    ] = 0
    scale_down_stabilization_seconds: Annotated[
        int, Meta(ge=0, le=3600, description="The load must be that low for so long before a pod is taken away.")
    ] = 300
    triggers: Annotated[
        tuple[dict[str, Any], ...],
        Meta(max_length=16, description="KEDA triggers, as in a ScaledObject, in the place of `targets`."),
    ] = ()
    cooldown_seconds: (
        Annotated[
            int,
            Meta(
                ge=0,
                le=86400,
                description="KEDA: time without load before it scales to zero; KEDA's own 300 where not given.",
            ),
        ]
        | None
    ) = None
    idle_to_zero: Annotated[
        bool, Meta(description="KEDA: no pods without load. Requests are not held meanwhile: they get 503.")
    ] = False


class Rollout(Spec, frozen=True):
    """How changes reach running engines."""

    strategy: Annotated[Strategy, Meta(description="RollingUpdate replaces pods one by one, Recreate all at once.")] = (
        Strategy.ROLLING_UPDATE
    )
    max_surge: Annotated[
        Share, Meta(description="Pods above `replicas` in a rollout, or a share (25%); each needs spare accelerators.")
    ] = 1
    max_unavailable: Annotated[Share, Meta(description="Pods below `replicas` in a rollout, or a share (25%).")] = 0
    min_ready_seconds: Annotated[
        Seconds, Meta(description="A pod counts as serving when it has been ready for so long.")
    ] = 0
    progress_deadline_seconds: (
        Annotated[
            int,
            Meta(
                ge=60,
                le=86400,
                description="Without progress for so long it is stuck; startupTimeoutSeconds + 300 where not given.",
            ),
        ]
        | None
    ) = None
    revision_history_limit: Annotated[
        int, Meta(ge=0, le=100, description="ReplicaSets that are kept of earlier rollouts.")
    ] = 3
    paused: Annotated[bool, Meta(description="Changes of the pod template wait.")] = False


class Drain(Spec, frozen=True):
    """How a pod leaves: new requests stop at once, running ones end."""

    propagation_seconds: Annotated[
        int, Meta(ge=0, le=600, description="Time for gateways to forget the pod, before the engine is told to stop.")
    ] = 15
    timeout_seconds: Annotated[Seconds, Meta(description="Time for running requests to end.")] = 120


class Disruption(Spec, frozen=True):
    """The PodDisruptionBudget of the engines."""

    enabled: Annotated[bool, Meta(description="Limit how many engines node drains take away at a time.")] = True
    max_unavailable: Annotated[int, Meta(ge=1, le=1000, description="How many engines may be away at a time.")] = 1


class Index(Spec, frozen=True):
    """The pickers' shared state; where not given, the operator's Valkey."""

    url: Annotated[
        StoreUrl,
        Meta(
            description="redis://, rediss:// or redis+sentinel://, with a user where one is needed, and no password.",
        ),
    ]
    password_secret_ref: Annotated[SecretKey, Meta(description="The password; none where not given.")] | None = None


class PodMonitor(Spec, frozen=True):
    """Prometheus Operator's PodMonitor for engines and pickers."""

    enabled: Annotated[bool, Meta(description="Make it; implied by autoscaling with KEDA's Prometheus.")] = False
    interval_seconds: Annotated[int, Meta(ge=1, le=3600, description="Time between two scrapes.")] = 15
    labels: Annotated[Labels, Meta(description="Labels that Prometheus selects it by.")] = field(default_factory=dict)


class Monitoring(Spec, frozen=True):
    """Who scrapes the pool."""

    pod_monitor: PodMonitor = PodMonitor()


class NetworkPolicy(Spec, frozen=True):
    """Keeps KV-event ports to the pickers."""

    enabled: Annotated[bool, Meta(description="Make NetworkPolicies for engines and pickers.")] = False


class ServiceAccount(Spec, frozen=True):
    """The identity of the engine pods."""

    name: (
        Annotated[ObjectName, Meta(description="ServiceAccount that the pods use; where not given, one is made.")]
        | None
    ) = None
    annotations: Annotated[
        dict[str, Text], Meta(max_length=32, description="Annotations of the one that is made, such as a cloud's role.")
    ] = field(default_factory=dict)


class PoolSpec(Spec, frozen=True):
    """Pods that serve one base model, and the picker that chooses among them."""

    model: Model = Model()
    engine: Engine = Engine()
    existing_pods: ExistingPods | None = None
    replicas: Annotated[int, Meta(ge=0, le=10000, description="Engine pods (groups where nodes > 1).")] = 1
    autoscaling: Autoscaling | None = None
    parallelism: Parallelism = Parallelism()
    resources: Resources = Resources()
    scheduling: Scheduling = Scheduling()
    storage: Storage = Storage()
    lora: Lora | None = None
    adapters: Annotated[
        tuple[RuntimeAdapter, ...],
        Meta(
            max_length=64,
            extra_json_schema=LIST_MAP,
            description="LoRA adapters that every engine is told to load while it runs: no pod restarts.",
        ),
    ] = ()
    probes: Probes = Probes()
    rollout: Rollout = Rollout()
    drain: Drain = Drain()
    disruption: Disruption = Disruption()
    routing: Routing = Routing()
    index: Index | None = None
    monitoring: Monitoring = Monitoring()
    network_policy: NetworkPolicy = NetworkPolicy()
    service_account: ServiceAccount = ServiceAccount()
    pod_template: Annotated[
        dict[str, Any],
        Meta(description="A pod template merged last into the engine's; the engine's container is named engine."),
    ] = field(default_factory=dict)
    suspend: Annotated[bool, Meta(description="The operator leaves the children as they are.")] = False


def decode(spec: object) -> PoolSpec:
    """The spec as types. Raises SpecError for what the CRD would not admit either, or can't know."""
    read = _typed(spec)
    if trouble := _trouble(read):
        raise SpecError(trouble)
    return read


def _typed(spec: object) -> PoolSpec:
    try:
        return msgspec.convert(spec, PoolSpec)
    except msgspec.ValidationError as error:
        raise SpecError(str(error)) from error


def _trouble(read: PoolSpec) -> str:
    """Why a part that the CRD knows nothing of can't be used; empty: each can."""
    unchecked = {
        "podTemplate": read.pod_template,
        "routing.picker.podTemplate": read.routing.picker.pod_template,
        "autoscaling.triggers": read.autoscaling.triggers if read.autoscaling else (),
    }
    for name, value in unchecked.items():
        if is_nested(value, MAX_NESTING):
            return f"{name}: nested more than {MAX_NESTING} deep"
        for quantity in endless_quantities(value):
            return f"{name}: {quantity[:32]} is no quantity of anything: its exponent, or all of it, is too long"
    return ""


def _without_unchecked(read: PoolSpec) -> PoolSpec:
    replace = msgspec.structs.replace
    picker = replace(read.routing.picker, pod_template={})
    scaling = replace(read.autoscaling, triggers=()) if read.autoscaling else None
    return replace(read, pod_template={}, routing=replace(read.routing, picker=picker), autoscaling=scaling)


@dataclass(frozen=True, slots=True)
class Pool:
    """One pool as the API server holds it."""

    namespace: str
    name: str
    uid: str
    generation: int
    spec: PoolSpec

    @property
    def model_name(self) -> str:
        """The name that clients ask for."""
        return self.spec.model.name or self.name

    @property
    def ports(self) -> tuple[int, ...]:
        """HTTP port of each data-parallel rank: each is an endpoint of the pod."""
        return tuple(self.spec.engine.port + rank for rank in range(self.spec.parallelism.data))


def pool_of(manifest: dict[str, Any]) -> Pool:
    """The object as types. Raises SpecError."""
    return _pool(manifest, decode(manifest.get("spec", {})))


def readable(manifest: dict[str, Any]) -> tuple[Pool, str]:
    """The same, and why it can't be made; then without what is wrong, enough to tell how its pods do.

    Raises SpecError for what has not the types of the CRD.
    """
    read = _typed(manifest.get("spec", {}))
    trouble = _trouble(read)
    return _pool(manifest, _without_unchecked(read) if trouble else read), trouble


def _pool(manifest: dict[str, Any], spec: PoolSpec) -> Pool:
    meta = manifest["metadata"]
    return Pool(meta["namespace"], meta["name"], meta["uid"], meta["generation"], spec)
