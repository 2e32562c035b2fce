"""The routing half of the spec: the pickers, and what leads from a Gateway to them."""

from enum import StrEnum
from typing import Annotated, Any

from msgspec import Meta, field

from multipick_operator.api.engine import PullPolicy
from multipick_operator.api.fields import ObjectName, Port, Quantity, Seconds, ShortText, Spec
from multipick_operator.api.texts import HeaderValue, ImageName, UrlPath


class FailureMode(StrEnum):
    """What a gateway does while no picker answers."""

    OPEN = "FailOpen"
    CLOSE = "FailClose"


PolicyName = Annotated[str, Meta(max_length=63, pattern="^[a-z0-9][a-z0-9.-]*(:[0-9.]+)?$")]
Bytes = Annotated[int, Meta(ge=1024, le=1 << 30)]


class PickerTls(StrEnum):
    """What gateways speak to the pickers."""

    AUTO = "Auto"
    OFF = "Off"
    SELF_SIGNED = "SelfSigned"


class LogLevel(StrEnum):
    """How much the picker logs."""

    DEBUG = "Debug"
    INFO = "Info"
    WARNING = "Warning"
    ERROR = "Error"


class PickerResources(Spec, frozen=True):
    """What a picker asks for, for each of its workers."""

    requests: Annotated[dict[str, Quantity], Meta(max_length=16, description="CPU, memory and the like, by name.")] = (
        field(default_factory=lambda: {"cpu": "500m", "memory": "512Mi"})
    )
    limits: Annotated[dict[str, Quantity], Meta(max_length=16, description="The most of each, by name.")] = field(
        default_factory=lambda: {"memory": "2Gi"}
    )


class Capture(Spec, frozen=True):
    """Own traffic, kept as a trace that `multipick replay` reads: no text, ids that nobody can turn back."""

    file_bytes: Annotated[
        int, Meta(ge=1 << 16, le=1 << 32, description="Bytes of one file. Then another is begun.")
    ] = 64 << 20
    files: Annotated[int, Meta(ge=2, le=10_000, description="Files that are kept; the oldest are deleted.")] = 16
    claim_name: (
        Annotated[ObjectName, Meta(description="Volume that keeps them; gone with the picker's pod where not given.")]
        | None
    ) = None


class Picker(Spec, frozen=True):
    """The endpoint picker of the pool."""

    image: Annotated[ImageName, Meta(description="Image of the pickers; the operator's where not given.")] | None = None
    image_pull_policy: (
        Annotated[
            PullPolicy,
            Meta(description="When the kubelet pulls it; the operator's, or Kubernetes' own rule, where not given."),
        ]
        | None
    ) = None
    image_pull_secrets: Annotated[
        tuple[ObjectName, ...], Meta(max_length=8, description="Names of registry Secrets.")
    ] = ()
    replicas: Annotated[
        int, Meta(ge=1, le=64, description="Pickers that share the work. More than 1 needs shared state (`index`).")
    ] = 1
    workers: Annotated[
        int,
        Meta(
            ge=1,
            le=16,
            description="Processes of each picker that decide, each with a core's work; more than 1 needs shared state "
            "(`index`). Its resources are so many times those that are given.",
        ),
    ] = 1
    resources: PickerResources = PickerResources()
    policy: Annotated[PolicyName, Meta(description="How an endpoint is chosen.")] = "lmetric"
    hotspot_guard: Annotated[
        bool, Meta(description="One endpoint more comes to hold a prefix that asks for more than its holders have.")
    ] = True
    shadow: Annotated[
        tuple[PolicyName, ...], Meta(max_length=8, description="Policies that are asked beside, and only counted.")
    ] = ()
    capture: Capture | None = None
    max_body_bytes: Annotated[Bytes, Meta(description="Larger requests are refused with 413.")] = 64 << 20
    max_read_bytes: Annotated[
        Bytes,
        Meta(
            description="Larger requests are routed by load, unread; refused where engine.args or podTemplate name a "
            "KV connector, since what is not read can't be cleaned."
        ),
    ] = 16 << 20
    explain_headers: Annotated[bool, Meta(description="Tell in response headers what was picked and why.")] = False
    failure_mode: Annotated[
        FailureMode, Meta(description="FailOpen: a gateway routes without a picker where none answers.")
    ] = FailureMode.OPEN
    log_level: Annotated[LogLevel, Meta(description="The least grave of what it logs.")] = LogLevel.INFO
    drain_timeout_seconds: Annotated[Seconds, Meta(description="Time for its streams to end when it leaves.")] = 30
    pod_template: Annotated[
        dict[str, Any],
        Meta(description="A pod template merged last into the picker's; its container is named picker."),
    ] = field(default_factory=dict)


class ParentRef(Spec, frozen=True):
    """A Gateway that the pool's HTTPRoute attaches to."""

    name: Annotated[ObjectName, Meta(description="Name of the Gateway.")]
    namespace: Annotated[ObjectName, Meta(description="Its namespace; the pool's where not given.")] | None = None
    section_name: Annotated[ObjectName, Meta(description="Name of the listener; all where not given.")] | None = None
    port: Annotated[Port, Meta(description="Port of the listener; all where not given.")] | None = None


class HeaderMatch(Spec, frozen=True):
    """A header that a request must have."""

    name: Annotated[ShortText, Meta(description="Name of the header.")]
    value: Annotated[HeaderValue, Meta(description="Its value, whole.")]


class Canary(Spec, frozen=True):
    """A share of the requests for another pool of the namespace."""

    pool: Annotated[ObjectName, Meta(description="Name of the other pool.")]
    percent: Annotated[int, Meta(ge=0, le=100, description="Of a hundred requests so many go there.")]


class HttpRoute(Spec, frozen=True):
    """A route from a Gateway to the pool."""

    create: Annotated[bool, Meta(description="Make an HTTPRoute that leads to the pool.")] = False
    parent_refs: Annotated[
        tuple[ParentRef, ...], Meta(max_length=16, description="Gateways that it is attached to.")
    ] = ()
    hostnames: Annotated[
        tuple[ShortText, ...],
        Meta(max_length=16, description="Hosts that it answers to; the listeners' where none is given."),
    ] = ()
    path_prefix: Annotated[UrlPath, Meta(description="Paths that it answers to.")] = "/v1"
    request_timeout_seconds: Annotated[
        Seconds, Meta(description="Time from a request to the end of its answer, which may take minutes; 0: any.")
    ] = 0
    rewrite_path_prefix: (
        Annotated[
            UrlPath,
            Meta(
                description="What engines get in the place of pathPrefix. Where not given: /v1 for one that ends so, / "
                "for another that no engine knows.",
            ),
        ]
        | None
    ) = None
    headers: Annotated[
        tuple[HeaderMatch, ...], Meta(max_length=16, description="Only requests with all of these headers.")
    ] = ()
    canary: Canary | None = None


class Gateway(Spec, frozen=True):
    """Gateway API objects that are made for the pool."""

    create_inference_pool: Annotated[
        bool, Meta(description="Make the inferencepools.inference.networking.k8s.io object where its CRD is installed.")
    ] = True
    picker_tls: Annotated[
        PickerTls,
        Meta(
            description="TLS on the pickers' port; Auto: as the classes of the route's Gateways are known to want it."
        ),
    ] = field(name="pickerTLS", default=PickerTls.AUTO)
    http_route: HttpRoute = HttpRoute()


class Routing(Spec, frozen=True):
    """From the gateway to an engine."""

    picker: Picker = Picker()
    gateway: Gateway = Gateway()
