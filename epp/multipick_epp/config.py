"""The picker's configuration: one YAML file, typed. Unknown fields are errors: a misspelt option must not be silent."""

import os
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

from msgspec import Meta, Struct

from multipick_epp.yaml_values import decode

T = TypeVar("T")

ListenPort = Annotated[int, Meta(ge=0, le=65535)]
Port = Annotated[int, Meta(ge=1, le=65535)]
Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Bytes = Annotated[int, Meta(ge=1, le=1 << 40)]
Name = Annotated[str, Meta(min_length=1, max_length=1024)]
PoolName = Annotated[str, Meta(pattern=r"\A[^\s{}\x00-\x1f]{1,512}\Z")]
"""Part of the store's key names, and of their hash tag."""
HttpPath = Annotated[str, Meta(pattern=r"\A/[!-~]{0,1023}\Z")]
_HOST: Final = r"([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])"
_PORT: Final = r"([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
EventsUrl = Annotated[str, Meta(pattern=rf"\A(tcp://{_HOST}:{_PORT}|ipc://[!-~]{{1,100}})\Z")]
"""ZMQ takes a port above 65535, and dials another one."""
Namespace = Annotated[str, Meta(pattern=r"\A[a-z0-9]([-a-z0-9]*[a-z0-9])?\Z", max_length=63)]
LabelName = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9._/-]{1,317}\Z")]
LabelValue = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9._-]{0,63}\Z")]
"""Without the signs that mean something else in a selector, such as a comma."""
FilePath = Annotated[str, Meta(pattern=r"\A[^\x00]{1,4096}\Z")]
Medium = Annotated[str, Meta(min_length=1, max_length=32)]

GATEWAY_PATIENCE_S: Final = 30
"""How long our Envoys wait for the answer to a message (`message_timeout`), before they go on without one. No deadline
of the picker's is longer: a request would be sent on while it is still being decided.
"""
MAX_DECISION_S: Final = 20
Weight = Annotated[float, Meta(ge=0, le=1)]


class ConfigError(Exception):
    """The configuration can't be used; the message says where and why."""


class Pool(Struct, frozen=True, forbid_unknown_fields=True):
    """What all endpoints have in common."""

    name: PoolName
    models: tuple[Name, ...] = ()  # names of the base model; any other name in a request is a LoRA adapter's
    tokenizer: FilePath | None = None  # folder with tokenizer.json and tokenizer_config.json; None: engines are asked
    block_size: Annotated[int, Meta(ge=1)] | None = None  # tokens, as the engines were told; another one is reported
    # Options of the engines' command line that change token ids; each is named after vLLM's.
    chat_template: str | None = None  # file that replaces the model's template, or the name of one of the model's
    chat_template_content_format: Literal["auto", "string", "openai"] = "auto"
    default_chat_template_kwargs: dict[str, Any] = {}
    exclude_tools_when_tool_choice_none: bool = False
    trust_request_chat_template: bool = False  # requests with a template of their own go to engines
    tokenizer_mode: Literal["auto", "hf", "mistral"] = "auto"  # whether Mistral's own tokenizer is used
    anthropic_disabled_thinking_effort: Literal["auto", "none", "low", "medium", "high", "xhigh", "max"] = "auto"
    unread_options: tuple[str, ...] = ()  # others that the engines have: all prompts are asked of them
    secret_env: str | None = None  # environment variable with the secret that seeds the block keys


class StaticEndpoint(Struct, frozen=True, forbid_unknown_fields=True):
    """One endpoint that is named rather than found. Its event ports are asked of the engine where not given."""

    address: str  # ip:port
    events: EventsUrl | None = None  # tcp://ip:port of the PUB socket
    replay: EventsUrl | None = None  # tcp://ip:port of the replay ROUTER


class Kubernetes(Struct, frozen=True, forbid_unknown_fields=True):
    """The pool's pods in a cluster: the picker watches them. The operator writes this section."""

    namespace: Namespace
    selector: Annotated[dict[LabelName, LabelValue], Meta(min_length=1)]  # labels that all of the pool's pods have
    ports: Annotated[tuple[Port, ...], Meta(min_length=1, max_length=8)]  # of rank 0, 1, ...; of pods that name none
    container: str | None = None  # the engine's: a restart of it is a new epoch; None: of any container

    def __post_init__(self) -> None:
        """Raises ValueError, of which msgspec makes its own, for ports that can't be."""
        if len(set(self.ports)) < len(self.ports):
            raise ValueError("ports: one is there twice")


class InferencePoolName(Struct, frozen=True, forbid_unknown_fields=True):
    """A pool that the Gateway API's `InferencePool` (`inference.networking.k8s.io/v1`) of this name describes."""

    name: Annotated[str, Meta(pattern=r"\A[a-z0-9]([-a-z0-9.]*[a-z0-9])?\Z", max_length=253)]
    namespace: Namespace
    container: str | None = None  # as of `Kubernetes`


class Events(Struct, frozen=True, forbid_unknown_fields=True):
    """Where engines publish KV events, for those that don't say so themselves (`GET /kv_event_sources`)."""

    enabled: bool = True
    port: Port | None = 5557
    replay_port: Port | None = None
    media: dict[
        Medium, Weight
    ] = {}  # what a cached token is worth that isn't on the GPU, by the engine's name of where

    def __post_init__(self) -> None:
        """Raises ValueError, of which msgspec makes its own, for media that can't be."""
        names = [name.upper() for name in self.media]
        if "GPU" in names:
            raise ValueError("media: a token on the GPU is worth 1")
        if len(set(names)) < len(names):
            raise ValueError("media: a name comes twice")

    @property
    def medium_weights(self) -> dict[str, float]:
        """Of the media that count at all, in capitals, as events name them."""
        return {name.upper(): weight for name, weight in self.media.items() if weight > 0}


class ListenTls(Struct, frozen=True, forbid_unknown_fields=True):
    """TLS of the ext_proc port; health and admin stay plaintext, as probes and scrapers want them."""

    mode: Literal["off", "self-signed", "files"] | bool = "off"  # a bare `off` is false in YAML
    cert: FilePath | None = None  # PEM, with its chain; read again when it changes
    key: FilePath | None = None  # PEM, not encrypted
    client_ca: FilePath | None = None  # PEM: only clients with a certificate of this authority are let in
    plaintext: bool = False  # who doesn't speak TLS is served, too, on the same port


class Listen(Struct, frozen=True, forbid_unknown_fields=True):
    """Ports of the picker; 0 takes a free one and logs it."""

    host: str = "0.0.0.0"
    ext_proc: ListenPort = 9002
    health: ListenPort = 9003
    admin: ListenPort = 9090  # /metrics, /endpoints
    transport: Literal["h2", "grpc"] = "h2"  # of ext_proc and health: our own server, or grpc.aio, the reference
    tls: ListenTls = ListenTls()

    def __post_init__(self) -> None:
        """Raises ValueError, of which msgspec makes its own, for what grpc.aio can't do."""
        if self.tls.plaintext and self.transport == "grpc":
            raise ValueError("tls.plaintext takes transport h2")


class Limits(Struct, frozen=True, forbid_unknown_fields=True):
    """Bounds on what requests may cost."""

    max_body_bytes: Bytes = 64 << 20  # larger: 413
    max_read_bytes: Bytes = 16 << 20  # larger: routed by load, unread; a chat with a few images in base64 fits
    max_kept_bytes: Bytes = 256 << 20  # of all requests whose body is awaited; beyond it, routed by load, unread
    decision_s: Annotated[float, Meta(gt=0, le=MAX_DECISION_S)] = 0.1  # past it, load alone decides
    drain_s: Seconds = 30.0


class Requests(Struct, frozen=True, forbid_unknown_fields=True):
    """What clients may ask of engines."""

    allow_transfer_params: bool = False  # let fields pass that say where KV blocks come from and which rank serves


class Capture(Struct, frozen=True, forbid_unknown_fields=True):
    """Own traffic, kept as a trace that `multipick replay` reads."""

    path: FilePath  # a folder of its own; several pickers of the pool may share it
    file_bytes: Annotated[int, Meta(ge=1 << 16, le=1 << 32)] = 64 << 20  # of one file, then another one is begun
    files: Annotated[int, Meta(ge=2, le=10_000)] = 16  # in the folder; the oldest are deleted


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    """Everything the picker is told."""

    pool: Pool
    endpoints: tuple[StaticEndpoint, ...] = ()
    endpoints_file: FilePath | None = None  # YAML list of endpoints, re-read when it changes
    kubernetes: Kubernetes | None = None  # instead of named endpoints
    inference_pool: InferencePoolName | None = None  # instead of both: what the object says, and as it changes
    metrics_path: HttpPath = "/metrics"  # of the engines
    state: str = "memory"  # or redis://, rediss://, redis+sentinel://: shared with the pool's other pickers
    state_password_env: str | None = None
    events: Events = Events()
    policy: str = "lmetric"
    hotspot_guard: bool = True  # keep one more endpoint coming to a prefix that asks for more than its holders have
    shadow: Annotated[tuple[str, ...], Meta(max_length=8)] = ()  # other policies, asked beside each decision
    capture: Capture | None = None  # needs pool.secret_env, which keeps its ids from being guessed
    workers: Annotated[int, Meta(ge=1, le=64)] = 1  # processes that decide, behind the same ports; needs a shared state
    listen: Listen = Listen()
    limits: Limits = Limits()
    requests: Requests = Requests()
    scrape_s: Annotated[float, Meta(ge=0.01, le=3600)] = 0.5  # seconds between two looks at an engine's /metrics
    destinations: Annotated[int, Meta(ge=1, le=8)] = 1  # endpoints in the answer to the gateway, the pick first
    conformance: bool = False  # the two hooks of GIE's conformance suite, by which any client chooses; never in use
    explain_headers: bool = False  # x-multipick-* on the response: endpoint, hit tokens, mode
    log_level: str = "info"
    log_format: str = "json"

    def __post_init__(self) -> None:
        """Raises ValueError, of which msgspec makes its own, for what does not go together."""
        if self.capture is not None and self.pool.secret_env is None:
            raise ValueError("capture: needs pool.secret_env, else who has the files can guess prompts")
        if self.workers > 1 and self.listen.transport == "grpc":
            raise ValueError(
                "workers: more than one need listen.transport h2, which takes connections that others accept"
            )
        if self.capture is not None and self.capture.files < 2 * self.workers:
            raise ValueError(
                "capture: needs 2 files or more for each of the workers, or they would delete what is open"
            )


def load(path: Path) -> Config:
    """Read and check the file. Raises ConfigError, which names the field that is wrong."""
    return read(path, Config)


def read(path: Path, kind: type[T], max_bytes: int | None = None) -> T:
    """What a YAML file says. Raises ConfigError, which names what is wrong."""
    try:
        if max_bytes is not None and path.stat().st_size > max_bytes:
            raise ConfigError(f"{path}: larger than {max_bytes} bytes")
        return decode(path.read_bytes(), kind)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # msgspec's own errors among them
        raise ConfigError(f"{path}: {error}") from error


def secret(variable: str | None) -> bytes:
    """The value of an environment variable that holds a secret; b"" where none is configured.

    Raises ConfigError where the variable is configured but not set.
    """
    if variable is None:
        return b""
    value = os.environ.get(variable)
    if not value:
        raise ConfigError(f"environment variable {variable} is not set")
    return os.fsencode(value)  # the bytes that were set: block keys must not depend on a picker's locale
