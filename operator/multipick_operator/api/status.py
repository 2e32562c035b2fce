"""The status of a pool, as the API server stores it."""

from typing import Annotated

from msgspec import Meta, Struct

from multipick_operator.api.fields import LIST_MAP

CONDITION_TYPES = (
    "Ready",
    "Accepted",
    "ResolvedRefs",
    "Available",
    "Progressing",
    "PickerReady",
    "RouteReady",
    "IndexReady",
    "EnginesMatch",
    "PrefixesSpread",
    "GatewaysMatch",
    "ScalingActive",
    "AdaptersLoaded",
)


class Condition(Struct, frozen=True, rename="camel", kw_only=True, omit_defaults=True):
    """A Kubernetes condition (meta/v1)."""

    type: Annotated[str, Meta(max_length=316)]
    status: Annotated[str, Meta(pattern="^(True|False|Unknown)$")]
    reason: Annotated[str, Meta(min_length=1, max_length=1024, pattern="^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$")]
    message: Annotated[str, Meta(max_length=32768)]
    last_transition_time: Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
    observed_generation: int | None = None


class PickerStatus(Struct, frozen=True, rename="camel", kw_only=True):
    """The pool's pickers."""

    ready_replicas: int
    service: Annotated[str, Meta(description="namespace/name:port that gateways call by ext_proc.")]


class ModelStatus(Struct, frozen=True, rename="camel", kw_only=True):
    """What the pool serves."""

    name: str
    uri: str = ""


class AdapterStatus(Struct, frozen=True, rename="camel", kw_only=True):
    """One of `spec.adapters`, or one that was, until no pod has it."""

    name: str
    loaded: Annotated[int, Meta(description="Pods that have it.")]
    pods: Annotated[tuple[str, ...], Meta(description="Their names, the first few.")]
    message: Annotated[str, Meta(description="Why a pod could not load or unload it, in its engine's words.")]


class Status(Struct, frozen=True, rename="camel", kw_only=True):
    """What was seen of a pool, last by this operator."""

    observed_generation: int
    replicas: int
    ready_replicas: int
    updated_replicas: int
    available_replicas: int
    selector: Annotated[str, Meta(description="Label selector of the pods, for the scale subresource.")]
    current_revision: Annotated[str, Meta(description="Revision that all pods have reached.")]
    update_revision: Annotated[str, Meta(description="Revision of the wanted pod template.")]
    group_revision: Annotated[
        str, Meta(description="LeaderWorkerSet's own name of currentRevision, where replicas span nodes.")
    ] = ""
    picker: PickerStatus
    model: ModelStatus
    url: Annotated[str, Meta(description="Where clients reach the pool, if a route with a hostname leads to it.")]
    adapters: Annotated[
        tuple[AdapterStatus, ...],
        Meta(description="Which pod has which adapter.", extra_json_schema=LIST_MAP),
    ] = ()
    conditions: Annotated[
        tuple[Condition, ...],
        Meta(
            max_length=16,
            extra_json_schema={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        ),
    ]
