"""The flags of other pickers (GIE's reference, llm-d's), so that ours can take their place in a manifest as it is.

What a flag asks for is done, or was done anyway; one that is neither is refused with a hint, for an option that is
silently ignored is a surprise later. Sources: GIE v1.6.0 `pkg/lwepp/server/options.go`; llm-d-router v0.9
`pkg/epp/server/options.go`.
"""

import argparse
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
from msgspec.structs import replace

from multipick_epp.config import Config, ConfigError, InferencePoolName, ListenTls, Pool

_GROUP: Final = "inference.networking.k8s.io"
_NAMESPACE_FILE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")

DONE_ANYWAY: Final = (
    "health-checking",  # the ext_proc port answers health checks, always
    "enable-cert-reload",  # files are read again when they change, always
    "endpoint-target-ports",  # the ports are the InferencePool's, in the reference picker too
    "ha-enable-leader-election",  # all replicas decide, by shared loads; none is a follower
    "zap-devel",
    "zap-stacktrace-level",
    "zap-time-encoding",
)
"""Flags that need no deed: taken with whatever value."""

NOT_DONE: Final[Mapping[str, str]] = {
    "tracing": "there are no traces",
    "enable-pprof": "there is no profiler",
    "metrics-endpoint-auth": "metrics ask for no token; let a NetworkPolicy say who may read them",
}
"""Flags that may only say false."""

HINTS: Final[Mapping[str, str]] = {
    "config-file": "plugins of another picker; what ours is told is in docs/configuration.md, by --config",
    "config-text": "plugins of another picker; what ours is told is in docs/configuration.md, by --config",
    "endpoint-selector": "without an InferencePool: `kubernetes` with selector and ports in a --config file",
    "tls-min-version": "TLS 1.2 is the least, always",
    "tls-cipher-suites": "those of the TLS library's own defaults",
    "disable-endpoint-subset-filter": "the protocol demands it",
    "pool-group": f"only {_GROUP} is read",
}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declare them; `parser` takes no abbreviations."""
    parser.add_argument("--workers", type=int, help="processes that decide, behind the same ports (1)")
    group = parser.add_argument_group("as other pickers have them (docs/migrating.md)")
    group.add_argument("--pool-name", help="the InferencePool whose pods are the endpoints")
    group.add_argument("--pool-namespace", help="its namespace; else $NAMESPACE, or this pod's own")
    group.add_argument("--pool-group", default=_GROUP, help=f"{_GROUP}, and nothing else")
    group.add_argument("--grpc-port", type=int, help="ext_proc (9002)")
    group.add_argument("--grpc-health-port", type=int, help="health (9003)")
    group.add_argument("--metrics-port", type=int, help="metrics and status (9090)")
    group.add_argument(
        "--secure-serving", nargs="?", const=True, type=_boolean, help="TLS on the ext_proc port; true with --pool-name"
    )
    group.add_argument("--cert-path", help="folder with tls.crt and tls.key; else a certificate of our own is made")
    group.add_argument("--zap-encoder", choices=("json", "console"))
    group.add_argument("--zap-log-level", help="debug, info, error, or a number: more than 1 is debug")
    group.add_argument("-v", "--v", type=int, help="the same as a number")
    group.add_argument("--drain-timeout", type=_seconds, help="after SIGTERM: 30s, 1m30s")
    group.add_argument("--refresh-metrics-interval", type=_seconds, help="between two looks at an engine's metrics")
    group.add_argument("--model-server-metrics-path", help="of the engines (/metrics)")
    for name in NOT_DONE:
        group.add_argument(f"--{name}", nargs="?", const=True, type=_boolean, help=argparse.SUPPRESS)
    for name in DONE_ANYWAY:
        group.add_argument(f"--{name}", nargs="?", help=argparse.SUPPRESS)


def check_unknown(flags: Sequence[str]) -> None:
    """Raises ConfigError for flags that were not taken."""
    for flag in flags:
        name = flag.lstrip("-").partition("=")[0]
        hint = HINTS.get(name, "docs/configuration.md has what can be told by --config, docs/migrating.md the flags")
        raise ConfigError(f"{flag.partition('=')[0]} is not known here: {hint}")


def with_flags(config: Config | None, flags: argparse.Namespace) -> Config:
    """The configuration as the flags change it; without a file they have to name the pool. Raises ConfigError."""
    for asked, hint in NOT_DONE.items():
        if getattr(flags, asked.replace("-", "_")):
            raise ConfigError(f"--{asked}: {hint}")
    if flags.pool_group != _GROUP:
        raise ConfigError(f"--pool-group {flags.pool_group}: {HINTS['pool-group']}")
    if config is None:
        if not flags.pool_name:
            raise ConfigError("--config FILE, or --pool-name NAME")
        config = Config(Pool(flags.pool_name))
        if flags.secure_serving is None:
            flags.secure_serving = True
    if flags.pool_name:
        if config.endpoints or config.endpoints_file or config.kubernetes:
            raise ConfigError("--pool-name: the file names other endpoints")
        namespace = flags.pool_namespace or os.environ.get("NAMESPACE") or _own_namespace()
        try:
            name = msgspec.convert({"name": flags.pool_name, "namespace": namespace}, InferencePoolName)
        except msgspec.ValidationError as error:
            raise ConfigError(f"--pool-name, --pool-namespace: {error}") from error
        config = replace(config, inference_pool=name)
    elif flags.pool_namespace:
        raise ConfigError("--pool-namespace goes with --pool-name")
    listen = replace(
        config.listen,
        **_given(ext_proc=flags.grpc_port, health=flags.grpc_health_port, admin=flags.metrics_port, tls=_tls(flags)),
    )
    limits = replace(config.limits, **_given(drain_s=flags.drain_timeout))
    changed = replace(
        config,
        listen=listen,
        limits=limits,
        **_given(
            workers=flags.workers,
            scrape_s=flags.refresh_metrics_interval,
            metrics_path=flags.model_server_metrics_path,
            log_format=None if flags.zap_encoder is None else {"json": "json", "console": "text"}[flags.zap_encoder],
            log_level=_log_level(flags),
            conformance=flags.conformance or None,
        ),
    )
    try:  # `replace` checks nothing
        return msgspec.convert(msgspec.to_builtins(changed), Config)
    except msgspec.ValidationError as error:
        raise ConfigError(str(error)) from error


def _given(**values: object) -> dict[str, object]:
    return {name: value for name, value in values.items() if value is not None}


def _tls(flags: argparse.Namespace) -> ListenTls | None:
    if flags.secure_serving is False:
        if flags.cert_path:
            raise ConfigError("--cert-path goes with --secure-serving")
        return ListenTls("off")
    if flags.cert_path:
        folder = Path(flags.cert_path)
        return ListenTls("files", str(folder / "tls.crt"), str(folder / "tls.key"))
    return ListenTls("self-signed") if flags.secure_serving else None


def _log_level(flags: argparse.Namespace) -> str | None:
    said = flags.zap_log_level if flags.v is None else str(flags.v)
    if said is None:
        return None
    if said.lstrip("-").isdecimal():
        return "debug" if int(said) > 1 else "info"
    if said not in ("debug", "info", "error"):
        raise ConfigError(f"--zap-log-level {said}: debug, info, error, or a number")
    return str(said)


def _own_namespace() -> str:
    try:
        return _NAMESPACE_FILE.read_text().strip()
    except OSError:
        return "default"


def _boolean(text: str) -> bool:
    """As Go's flags have it."""
    if text in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if text in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    raise argparse.ArgumentTypeError(f"{text} is neither true nor false")


def _seconds(text: str) -> float:
    """A duration as Go writes it: 1h2m3.5s, 250ms."""
    units = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
    if not re.fullmatch(r"(?:[0-9]{1,9}(?:\.[0-9]{0,9})?(?:h|ms|m|s|us|µs|ns))+", text):
        raise argparse.ArgumentTypeError(f"{text} is no duration like 30s")
    return sum(float(number) * units[unit] for number, unit in re.findall(r"([0-9.]+)(h|ms|m|s|us|µs|ns)", text))
