"""Scalars and small records that several parts of the spec share. The descriptions are what `kubectl explain` shows."""

from typing import Annotated

from msgspec import Meta, Struct

Port = Annotated[int, Meta(ge=1, le=65535)]
ObjectName = Annotated[str, Meta(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
LabelValue = Annotated[str, Meta(max_length=63, pattern=r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$")]
ShortText = Annotated[str, Meta(min_length=1, max_length=253)]
Text = Annotated[str, Meta(max_length=4096)]
Seconds = Annotated[int, Meta(ge=0, le=86400)]
_QUANTITY = r"^([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][-+]?[0-9]{1,2})?$"
"""Of a pod with an exponent of ten digits an API server (1.36) makes no end."""
Quantity = Annotated[
    Annotated[int, Meta(ge=0)] | Annotated[str, Meta(max_length=32, pattern=_QUANTITY)],
    Meta(description="A Kubernetes quantity, such as 500m or 8Gi."),
]
Share = Annotated[int, Meta(ge=0, le=1000)] | Annotated[str, Meta(pattern=r"^(100|[1-9]?[0-9])%$")]
Labels = Annotated[dict[str, LabelValue], Meta(max_length=64)]
Strings = Annotated[tuple[Annotated[str, Meta(max_length=4096)], ...], Meta(max_length=256)]

LIST_MAP = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}


class Spec(Struct, frozen=True, rename="camel", omit_defaults=True):
    """Base of the spec's records: camelCase on the wire, no field changes after decoding."""


class SecretKey(Spec, frozen=True):
    """One key of a Secret in the pool's namespace."""

    name: Annotated[ObjectName, Meta(description="Name of the Secret.")]
    key: Annotated[ShortText, Meta(description="Key inside the Secret.")] = "token"


class KeyRef(Spec, frozen=True):
    """One key of a Secret or ConfigMap, for an environment variable."""

    name: Annotated[ObjectName, Meta(description="Name of the object.")]
    key: Annotated[ShortText, Meta(description="Key inside the object.")]
    optional: Annotated[bool, Meta(description="Start without it where it is missing.")] = False


class FieldRef(Spec, frozen=True):
    """A field of the pod, for an environment variable."""

    field_path: Annotated[ShortText, Meta(description="Such as status.podIP.")]


class EnvSource(Spec, frozen=True):
    """Where an environment variable's value comes from; exactly one."""

    secret_key_ref: KeyRef | None = None
    config_map_key_ref: KeyRef | None = None
    field_ref: FieldRef | None = None


class EnvVar(Spec, frozen=True):
    """One environment variable of the engine."""

    name: Annotated[ShortText, Meta(description="Name of the variable.")]
    value: (
        Annotated[
            Text,
            Meta(description="Its value, in which $(OTHER) is expanded; empty where it is not given, nor valueFrom."),
        ]
        | None
    ) = None
    value_from: EnvSource | None = None


class ObjectRef(Spec, frozen=True):
    """An object of the pool's namespace."""

    name: Annotated[ObjectName, Meta(description="Name of the object.")]
    optional: Annotated[bool, Meta(description="Start without it where it is missing.")] = False


class EnvFrom(Spec, frozen=True):
    """All keys of a Secret or ConfigMap as environment variables; exactly one."""

    prefix: (
        Annotated[str, Meta(max_length=253, description="Put before each name; nothing where not given.")] | None
    ) = None
    secret_ref: ObjectRef | None = None
    config_map_ref: ObjectRef | None = None


class Toleration(Spec, frozen=True):
    """A taint that the pods accept."""

    key: Annotated[str, Meta(max_length=316, description="Key of the taint; all where not given.")] | None = None
    operator: (
        Annotated[
            str, Meta(pattern="^(Exists|Equal)$", description="Exists, or Equal with a value; Equal where not given.")
        ]
        | None
    ) = None
    value: Annotated[LabelValue, Meta(description="Value of the taint; empty where not given.")] | None = None
    effect: (
        Annotated[
            str,
            Meta(
                pattern="^(NoSchedule|PreferNoSchedule|NoExecute)$",
                description="Effect of the taint; all where not given.",
            ),
        ]
        | None
    ) = None
    toleration_seconds: (
        Annotated[int, Meta(description="With NoExecute: how long a pod may stay; for ever where not given.")] | None
    ) = None
