"""The whole spec of a pool."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

import msgspec
from msgspec import Meta, field

from multipick_operator.api.engine import (
    Engine,
    Lora,
    Model,
    Parallelism,
    Probes,
    PullPolicy,
    Resources,
    Scheduling,
    Storage,
)
from multipick_operator.api.fields import (
    Labels,
    ObjectName,
    Port,
    Quantity,
    Seconds,
    SecretKey,
    ShortText,
    Spec,
    Text,
)


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


class FailureMode(StrEnum):
    """What a gateway does while no picker answers."""

    OPEN = "FailOpen"
    CLOSE = "FailClose"


class LogLevel(StrEnum):
    """How much the picker logs."""

    DEBUG = "Debug"
    INFO = "Info"
    WARNING = "Warning"
    ERROR = "Error"


class ExistingPods(Spec, frozen=True):
    """Pods that somebody else runs: they get a picker, and no pod is made."""

    match_labels: Annotated[Labels, Meta(min_length=1, description="Labels that all of the pool's pods carry.")]


class Targets(Spec, frozen=True):
    """Load that the autoscaler aims at, per pod."""

    waiting_per_pod: Annotated[int, Meta(ge=1, le=10000)] = 2
    running_per_pod: Annotated[int, Meta(ge=1, le=10000)] | None = None
    kv_cache_percent: Annotated[int, Meta(ge=1, le=100)] = 80


class Autoscaling(Spec, frozen=True):
    """An autoscaler on this object's scale subresource; `replicas` is then its to write."""

    max_replicas: Annotated[int, Meta(ge=1, le=10000, description="Never more engine pods than these.")]
    min_replicas: Annotated[int, Meta(ge=1, le=10000, description="Never fewer, but where idleToZero says so.")] = 1
    backend: Annotated[Backend, Meta(description="HPA needs an adapter that serves the engines' metrics.")] = (
        Backend.HPA
    )
    targets: Targets = Targets()
    prometheus_url: (
        Annotated[str, Meta(max_length=1024, pattern="^https?://", description="Prometheus that KEDA asks.")] | None
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
        Annotated[int, Meta(ge=0, le=86400, description="KEDA: time without load before it scales to zero.")] | None
    ) = None
    idle_to_zero: Annotated[
        bool, Meta(description="KEDA: no pods without load. Requests are not held meanwhile: they get 503.")
    ] = False


class Rollout(Spec, frozen=True):
    """How changes reach running engines."""

    strategy: Strategy = Strategy.ROLLING_UPDATE
    max_surge: Annotated[
        int, Meta(ge=0, le=1000, description="Pods above `replicas` in a rollout; each needs spare accelerators.")
    ] = 1
    max_unavailable: Annotated[int, Meta(ge=0, le=1000)] = 0
    min_ready_seconds: Seconds = 0
    progress_deadline_seconds: Annotated[int, Meta(ge=60, le=86400)] | None = None
    revision_history_limit: Annotated[int, Meta(ge=0, le=100)] = 3
    paused: bool = False


class Drain(Spec, frozen=True):
    """How a pod leaves: new requests stop at once, running ones end."""

    propagation_seconds: Annotated[
        int, Meta(ge=0, le=600, description="Time for gateways to forget the pod, before the engine is told to stop.")
    ] = 15
    timeout_seconds: Annotated[Seconds, Meta(description="Time for running requests to end.")] = 120


class Disruption(Spec, frozen=True):
    """The PodDisruptionBudget of the engines."""

    enabled: bool = True
    max_unavailable: Annotated[int, Meta(ge=1, le=1000)] = 1


class PickerResources(Spec, frozen=True):
    """What a picker asks for."""

    requests: Annotated[dict[str, Quantity], Meta(max_length=16)] = field(
        default_factory=lambda: {"cpu": "500m", "memory": "512Mi"}
    )
    limits: Annotated[dict[str, Quantity], Meta(max_length=16)] = field(default_factory=lambda: {"memory": "2Gi"})


class Picker(Spec, frozen=True):
    """The endpoint picker of the pool."""

    image: Annotated[ShortText, Meta(description="Where not given: the operator's.")] | None = None
    image_pull_policy: PullPolicy | None = None
    image_pull_secrets: Annotated[tuple[ObjectName, ...], Meta(max_length=8)] = ()
    replicas: Annotated[int, Meta(ge=1, le=64, description="More than 1 needs shared state (`index`).")] = 1
    resources: PickerResources = PickerResources()
    policy: Annotated[str, Meta(max_length=63, pattern="^[a-z0-9][a-z0-9.-]*$")] = "lmetric"
    explain_headers: bool = False
    failure_mode: FailureMode = FailureMode.OPEN
    log_level: LogLevel = LogLevel.INFO
    drain_timeout_seconds: Seconds = 30


class ParentRef(Spec, frozen=True):
    """A Gateway that the pool's HTTPRoute attaches to."""

    name: ObjectName
    namespace: ObjectName | None = None
    section_name: ObjectName | None = None
    port: Port | None = None


class HttpRoute(Spec, frozen=True):
    """A route from a Gateway to the pool."""

    create: bool = False
    parent_refs: Annotated[tuple[ParentRef, ...], Meta(max_length=16)] = ()
    hostnames: Annotated[tuple[ShortText, ...], Meta(max_length=16)] = ()
    path_prefix: Annotated[str, Meta(max_length=1024, pattern="^/")] = "/v1"
    request_timeout_seconds: Annotated[Seconds, Meta(description="0: none; answers may take minutes.")] = 0


class Gateway(Spec, frozen=True):
    """Gateway API objects that are made for the pool."""

    create_inference_pool: Annotated[
        bool, Meta(description="Make the inferencepools.inference.networking.k8s.io object where its CRD is installed.")
    ] = True
    http_route: HttpRoute = HttpRoute()


class Routing(Spec, frozen=True):
    """From the gateway to an engine."""

    picker: Picker = Picker()
    gateway: Gateway = Gateway()


class Index(Spec, frozen=True):
    """The pickers' shared state; where not given, the operator's Valkey."""

    url: Annotated[
        str, Meta(max_length=1024, pattern="^(redis|rediss|redis\\+sentinel)://", description="Without a password.")
    ]
    password_secret_ref: SecretKey | None = None


class PodMonitor(Spec, frozen=True):
    """Prometheus Operator's PodMonitor for engines and pickers."""

    enabled: bool = False
    interval_seconds: Annotated[int, Meta(ge=1, le=3600)] = 15
    labels: Labels = field(default_factory=dict)


class Monitoring(Spec, frozen=True):
    """Who scrapes the pool."""

    pod_monitor: PodMonitor = PodMonitor()


class NetworkPolicy(Spec, frozen=True):
    """Keeps KV-event ports to the pickers."""

    enabled: bool = False


class ServiceAccount(Spec, frozen=True):
    """The identity of the engine pods."""

    name: Annotated[ObjectName, Meta(description="Use this one; where not given, one is made.")] | None = None
    annotations: Annotated[dict[str, Text], Meta(max_length=32)] = field(default_factory=dict)


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
    """The spec as types. Raises SpecError for what the CRD would not admit either."""
    try:
        return msgspec.convert(spec, PoolSpec)
    except msgspec.ValidationError as error:
        raise SpecError(str(error)) from error


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
    meta = manifest["metadata"]
    return Pool(meta["namespace"], meta["name"], meta["uid"], meta["generation"], decode(manifest.get("spec", {})))
