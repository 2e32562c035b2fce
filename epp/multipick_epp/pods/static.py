"""Endpoints from the configuration, and from a file that is read again when it changes: no Kubernetes needed."""

import asyncio
import logging
import re
from collections import Counter
from pathlib import Path

from multipick_epp.config import Config, ConfigError, StaticEndpoint, read
from multipick_epp.pods.endpoints import PodEndpoint
from multipick_epp.pods.registry import Registry
from multipick_epp.types import Endpoint

log = logging.getLogger(__name__)

POLL_S = 1.0
MAX_FILE_BYTES = 4 << 20
_ADDRESS = re.compile(r"(?:[A-Za-z0-9_.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]):([0-9]{1,5})")


def pods_of(endpoints: tuple[StaticEndpoint, ...]) -> list[PodEndpoint]:
    """The configured endpoints as the registry knows them.

    Raises ConfigError for an address that is no `ip:port`, or is there twice, and for a publisher that two have.
    """
    for address, times in Counter(each.address for each in endpoints).items():
        if times > 1:
            raise ConfigError(f"endpoint {address[:100]!r} is there twice")
    return _apart([PodEndpoint(_checked(e.address), e.events, e.replay) for e in endpoints])


def _apart(pods: list[PodEndpoint]) -> list[PodEndpoint]:
    """The same. Raises ConfigError for a publisher that two of them have."""
    for publisher, times in Counter(pod.events for pod in pods if pod.events is not None).items():
        if times > 1:
            raise ConfigError(f"events {publisher[:100]!r}: each endpoint has a publisher of its own")
    return pods


def read_file(path: Path) -> list[PodEndpoint]:
    """The endpoints of a YAML list. Raises ConfigError, which names what is wrong."""
    return pods_of(read(path, tuple[StaticEndpoint, ...], MAX_FILE_BYTES))


class StaticPods:
    """Keeps a registry true to the configuration, and to the endpoints file where there is one."""

    def __init__(self, config: Config, registry: Registry) -> None:
        """Raises ConfigError for endpoints that can't be."""
        self.outage: str | None = None  # why the file is not used now
        self._fixed = pods_of(config.endpoints)
        self._path = None if config.endpoints_file is None else Path(config.endpoints_file)
        self._registry = registry

    async def follow(self) -> None:
        """For ever, with a file; a broken one changes nothing, and keeps nobody from the endpoints that are fixed."""
        if self._path is None or self._fixed:
            self._registry.set(self._fixed)
        if self._path is None:
            return
        seen = ""
        while True:
            stamp = await asyncio.to_thread(_stamp, self._path)
            if stamp != seen:
                seen = stamp
                await self._read(self._path)
            await asyncio.sleep(POLL_S)

    async def _read(self, path: Path) -> None:
        try:
            pods = _apart([*self._fixed, *await asyncio.to_thread(read_file, path)])
        except ConfigError as error:
            self.outage = str(error)
            log.error("endpoints file not used", extra={"why": str(error)})
        else:
            self.outage = None
            self._registry.set(pods)


def _stamp(path: Path) -> str:
    """Differs whenever the file may; a file that is gone is an error like any other, told once."""
    try:
        state = path.stat()
    except OSError as error:
        return str(error)
    return f"{state.st_ino} {state.st_mtime_ns} {state.st_size}"


def _checked(address: str) -> Endpoint:
    found = _ADDRESS.fullmatch(address)
    if found is None or not 0 < int(found[1]) < 65536:
        raise ConfigError(f"endpoint {address[:100]!r} is not ip:port")
    return Endpoint(address)
