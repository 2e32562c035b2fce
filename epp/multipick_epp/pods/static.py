"""Endpoints from the configuration, or from a file that is read again when it changes: no Kubernetes needed."""

import asyncio
import logging
from pathlib import Path

import msgspec

from multipick_epp.config import Config, ConfigError, StaticEndpoint
from multipick_epp.pods.registry import PodEndpoint, Registry
from multipick_epp.types import Endpoint

log = logging.getLogger(__name__)

POLL_S = 1.0


def pods_of(endpoints: tuple[StaticEndpoint, ...]) -> list[PodEndpoint]:
    """The configured endpoints as the registry knows them. Raises ConfigError for an address that is no `ip:port`."""
    return [PodEndpoint(_checked(e.address), e.events, e.replay) for e in endpoints]


def read_file(path: Path) -> list[PodEndpoint]:
    """The endpoints of a YAML list. Raises ConfigError, which names what is wrong."""
    try:
        return pods_of(msgspec.yaml.decode(path.read_bytes(), type=tuple[StaticEndpoint, ...]))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error


async def follow(config: Config, registry: Registry) -> None:
    """Fill the registry; with an endpoints file, keep it true to the file for ever. A broken file changes nothing."""
    fixed = pods_of(config.endpoints)
    if config.endpoints_file is None:
        registry.set(fixed)
        return
    path, seen = Path(config.endpoints_file), ""
    while True:
        try:
            stamp = _stamp(path)
            if stamp != seen:
                seen = stamp
                registry.set([*fixed, *read_file(path)])
        except ConfigError as error:
            log.error("endpoints file not used", extra={"why": str(error)})
        await asyncio.sleep(POLL_S)


def _stamp(path: Path) -> str:
    return str(path.stat().st_mtime_ns) if path.exists() else "missing"


def _checked(address: str) -> Endpoint:
    host, colon, port = address.rpartition(":")
    if not (host and colon and port.isdigit() and 0 < int(port) < 65536):
        raise ConfigError(f"endpoint {address!r} is not ip:port")
    return Endpoint(address)
