"""The engine's half of the spec: which model, served by what, on which hardware."""

from enum import StrEnum
from typing import Annotated

from msgspec import Meta, field

from multipick_operator.api.fields import (
    LIST_MAP,
    EnvFrom,
    EnvVar,
    LabelValue,
    ObjectName,
    Port,
    Quantity,
    SecretKey,
    ShortText,
    Spec,
    Strings,
    Toleration,
)
from multipick_operator.api.texts import ArtifactUri, ImageName, Revision, ServedName, Topic, UrlPath, VolumeUri


class EngineType(StrEnum):
    """Which model server runs in the pods."""

    VLLM = "VLLM"
    SGLANG = "SGLang"
    SIMULATED = "Simulated"


class PullPolicy(StrEnum):
    """When the kubelet pulls the image."""

    ALWAYS = "Always"
    IF_NOT_PRESENT = "IfNotPresent"
    NEVER = "Never"


class Model(Spec, frozen=True):
    """The model that the pool serves."""

    uri: (
        Annotated[
            ArtifactUri,
            Meta(
                description="hf://org/name (or org/name), pvc://claim/path, oci://image, s3://bucket/path, or a path "
                "inside the engine's image. May be not given for existingPods alone."
            ),
        ]
        | None
    ) = None
    name: (
        Annotated[ServedName, Meta(description="Name that clients ask for; the pool's name where not given.")] | None
    ) = None
    aliases: Annotated[tuple[ServedName, ...], Meta(max_length=16, description="More names of the same model.")] = ()
    revision: (
        Annotated[
            Revision,
            Meta(description="Branch, tag or commit on the Hugging Face hub; its main branch where not given."),
        ]
        | None
    ) = None
    hf_token_secret_ref: (
        Annotated[SecretKey, Meta(description="Token for gated models of the Hugging Face hub; none where not given.")]
        | None
    ) = None
    tokenizer_uri: (
        Annotated[
            VolumeUri,
            Meta(
                description="pvc://claim/path, oci://image or a path in the picker's image with tokenizer.json and "
                "tokenizer_config.json. Where not given: model.uri if it is a volume, else the engines' /tokenize."
            ),
        ]
        | None
    ) = None
    max_model_len: (
        Annotated[
            int,
            Meta(ge=1, description="Longest request in tokens, prompt and answer; the model's own where not given."),
        ]
        | None
    ) = None


class KvEvents(Spec, frozen=True):
    """KV-cache events, from which the picker learns what each engine holds. Rank r publishes on port + r."""

    enabled: Annotated[bool, Meta(description="Let engines publish what they cache.")] = True
    port: Annotated[Port, Meta(description="ZMQ PUB port of rank 0.")] = 5557
    replay_port: Annotated[Port, Meta(description="ZMQ ROUTER port of rank 0, for missed events.")] = 5657
    topic: Annotated[Topic, Meta(description="ZMQ topic that engines publish under; empty where not given.")] = ""
    media: Annotated[
        dict[str, Annotated[int, Meta(ge=0, le=100)]],
        Meta(
            max_length=8,
            description="Per cent that a token cached off the GPU is worth, by the engine's name of where: "
            "CPU, STORAGE; of SGLang CPU_PINNED, DISK, EXTERNAL. What is not named counts nothing.",
        ),
    ] = field(default_factory=dict)


class Engine(Spec, frozen=True):
    """How the model server is run."""

    type: Annotated[EngineType, Meta(description="Which model server.")] = EngineType.VLLM
    image: (
        Annotated[
            ImageName,
            Meta(
                description="Image of the engine. Where not given: the operator's default at the time the pool is made."
            ),
        ]
        | None
    ) = None
    image_pull_policy: (
        Annotated[PullPolicy, Meta(description="When the kubelet pulls it; Kubernetes' own rule where not given.")]
        | None
    ) = None
    image_pull_secrets: Annotated[
        tuple[ObjectName, ...], Meta(max_length=8, description="Names of registry Secrets.")
    ] = ()
    args: Annotated[Strings, Meta(description="More arguments, placed last so that they win.")] = ()
    env: Annotated[
        tuple[EnvVar, ...], Meta(max_length=128, description="More environment variables.", extra_json_schema=LIST_MAP)
    ] = ()
    env_from: Annotated[
        tuple[EnvFrom, ...],
        Meta(max_length=16, description="All keys of Secrets or ConfigMaps as environment variables."),
    ] = ()
    port: Annotated[Port, Meta(description="HTTP port of rank 0; rank r listens on port + r.")] = 8000
    block_size: (
        Annotated[
            int, Meta(ge=1, le=1024, description="Tokens a KV block; where not given VLLM chooses, SGLang gets 64.")
        ]
        | None
    ) = None
    hash_seed: Annotated[
        str, Meta(max_length=10, pattern="^[0-9]*$", description="PYTHONHASHSEED of the engine; empty: not set.")
    ] = "0"
    kv_events: KvEvents = KvEvents()
    metrics_path: Annotated[UrlPath, Meta(description="Where the engine serves Prometheus metrics.")] = "/metrics"


class Parallelism(Spec, frozen=True):
    """How one replica is spread over accelerators."""

    tensor: Annotated[int, Meta(ge=1, le=64, description="Accelerators that share each layer.")] = 1
    pipeline: Annotated[int, Meta(ge=1, le=64, description="Stages that the layers are divided into.")] = 1
    data: Annotated[
        int, Meta(ge=1, le=8, description="Data-parallel ranks in a pod; each is an endpoint with a port of its own.")
    ] = 1
    expert_parallel: Annotated[bool, Meta(description="Spread a mixture's experts over the accelerators.")] = False
    nodes: Annotated[int, Meta(ge=1, le=64, description="Nodes a replica; above 1 needs LeaderWorkerSet.")] = 1


class Accelerator(Spec, frozen=True):
    """The device that an engine process needs."""

    resource: Annotated[
        str,
        Meta(
            max_length=253,
            pattern=r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$",
            description="The accelerator's name as an extended resource of nodes.",
        ),
    ] = "nvidia.com/gpu"
    count: (
        Annotated[
            int,
            Meta(
                ge=0,
                le=64,
                description="Devices a rank and node; where not given tensor * pipeline / nodes, and 0 for Simulated.",
            ),
        ]
        | None
    ) = None


class DeviceClaim(Spec, frozen=True):
    """Devices by dynamic resource allocation, for each engine container of a pod."""

    name: Annotated[ObjectName, Meta(description="Name of the claim within the pod.")]
    template_name: (
        Annotated[
            ObjectName, Meta(description="ResourceClaimTemplate: a claim for each pod. Where not given, claimName is.")
        ]
        | None
    ) = None
    claim_name: (
        Annotated[ObjectName, Meta(description="ResourceClaim: one for all pods. Where not given, templateName is.")]
        | None
    ) = None


class Resources(Spec, frozen=True):
    """What each engine container asks for, besides the accelerators."""

    accelerator: Accelerator = Accelerator()
    requests: Annotated[dict[str, Quantity], Meta(max_length=16, description="CPU, memory and the like, by name.")] = (
        field(default_factory=dict)
    )
    limits: Annotated[
        dict[str, Quantity],
        Meta(
            max_length=16,
            description="The most of each, by name. Without one for CPU an engine may use what its node has left.",
        ),
    ] = field(default_factory=dict)
    device_claims: Annotated[
        tuple[DeviceClaim, ...],
        Meta(
            max_length=16,
            description="Devices by dynamic resource allocation, in the place of `accelerator` (count: 0).",
            extra_json_schema=LIST_MAP,
        ),
    ] = ()
    shared_memory: Annotated[Quantity, Meta(description='Size of /dev/shm; "0": the runtime\'s default.')] = "8Gi"
    runtime_class_name: (
        Annotated[ObjectName, Meta(description="RuntimeClass of the pods; the nodes' own runtime where not given.")]
        | None
    ) = None


class Scheduling(Spec, frozen=True):
    """Which nodes may run the engines; affinity and the like go into podTemplate."""

    node_selector: Annotated[
        dict[str, LabelValue], Meta(max_length=32, description="Labels that a node must have.")
    ] = field(default_factory=dict)
    tolerations: Annotated[tuple[Toleration, ...], Meta(max_length=32, description="Taints that the pods accept.")] = (
        Toleration(key="nvidia.com/gpu", operator="Exists", effect="NoSchedule"),
    )
    priority_class_name: (
        Annotated[ObjectName, Meta(description="PriorityClass of the pods; the cluster's default where not given.")]
        | None
    ) = None
    scheduler_name: (
        Annotated[ShortText, Meta(description="Scheduler that places them; the cluster's default where not given.")]
        | None
    ) = None


class Probes(Spec, frozen=True):
    """How long an engine may take to load."""

    startup_timeout_seconds: Annotated[
        int, Meta(ge=10, le=86400, description="Time to load the model. Then the kubelet restarts the engine.")
    ] = 1800
