"""Endpoints from a watch of the pool's pods: list once, then follow the changes; list again where they are lost.

Two calls of a REST API over aiohttp, not a client library of 75 MB of generated models. The API server ends every
watch after some minutes, and forgets old resource versions (410): both are ordinary.
"""

import asyncio
import json
import logging
import os
import ssl
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from random import Random
from typing import Any

import aiohttp

from multipick_epp.config import ConfigError, Kubernetes
from multipick_epp.pods.pod_objects import PodView, view
from multipick_epp.pods.registry import Registry

log = logging.getLogger(__name__)

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
WATCH_S = 300
MAX_EVENT_BYTES = 4 << 20
_PAUSE_S = (0.2, 10.0)  # first and longest pause after a failure


class ApiError(Exception):
    """The API server did not give what was asked for."""


def api_url() -> str:
    """The cluster's API server, from the variables that every pod has. Raises ConfigError outside of a cluster."""
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        raise ConfigError("kubernetes: this is no pod: KUBERNETES_SERVICE_HOST is not set")
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


class PodWatch:
    """Keeps a registry true to the pool's pods. Invariant: `_pods` has the pods of the last list, and changes since."""

    def __init__(self, config: Kubernetes, registry: Registry, url: str, account: Path = ACCOUNT) -> None:
        """`account` is the folder with the service account's `token` and `ca.crt`."""
        self.synced = asyncio.Event()  # set once the first list was taken
        self._config = config
        self._registry = registry
        self._url = f"{url}/api/v1/namespaces/{config.namespace}/pods"
        self._selector = ",".join(f"{name}={value}" for name, value in sorted(config.selector.items()))
        self._account = account
        self._pods: dict[str, PodView] = {}
        self._rng = Random()

    async def follow(self) -> None:
        """For ever; what goes wrong is logged and tried again. Without the API server the pool stays as it was."""
        pause_s, longest_s = _PAUSE_S
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=WATCH_S + 30)
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._tls()), timeout=timeout, read_bufsize=MAX_EVENT_BYTES
        ) as session:
            while True:
                try:
                    version = await self._list(session)
                    pause_s = _PAUSE_S[0]
                    while True:
                        version = await self._watch(session, version)
                except (aiohttp.ClientError, OSError, TimeoutError, ValueError, ApiError) as error:
                    log.warning("pods not watched", extra={"why": str(error) or type(error).__name__})
                await asyncio.sleep(pause_s * self._rng.uniform(0.5, 1.0))
                pause_s = min(2 * pause_s, longest_s)

    async def _list(self, session: aiohttp.ClientSession) -> str:
        async with session.get(
            self._url, params={"labelSelector": self._selector}, headers=self._headers()
        ) as response:
            if response.status != 200:
                raise ApiError(f"list: status {response.status}")
            answer = await response.json()
        self._pods = {}
        for pod in answer.get("items") or ():
            self._take(pod)
        self._tell()
        self.synced.set()
        version: str = answer["metadata"]["resourceVersion"]
        return version

    async def _watch(self, session: aiohttp.ClientSession, version: str) -> str:
        """Follow until the server ends the watch; the version to go on from. Raises ApiError where that is lost."""
        params = {
            "labelSelector": self._selector,
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(WATCH_S),
        }
        async with session.get(self._url, params=params, headers=self._headers()) as response:
            if response.status != 200:
                raise ApiError(f"watch: status {response.status}")
            async for event in _events(response):
                kind, pod = event["type"], event["object"]
                if kind == "ERROR":
                    raise ApiError(f"watch: {pod.get('message')}")
                version = pod["metadata"]["resourceVersion"]
                if kind == "BOOKMARK":
                    continue
                if kind == "DELETED":
                    self._pods.pop(pod["metadata"]["uid"], None)
                else:
                    self._take(pod)
                self._tell()
        return version

    def _take(self, pod: Mapping[str, Any]) -> None:
        uid = pod["metadata"]["uid"]
        seen = view(pod, self._config.ports, self._config.container)
        if seen is None:
            self._pods.pop(uid, None)
        else:
            self._pods[uid] = seen

    def _tell(self) -> None:
        # Ready pods last: of an address that a new pod was given while the old one is still listed, the new one counts.
        views = sorted(self._pods.values(), key=lambda each: each.ready)
        self._registry.set([endpoint for each in views for endpoint in each.endpoints])
        for each in views:
            for pod in each.endpoints:
                self._registry.mark(pod.endpoint, each.ready)

    def _headers(self) -> dict[str, str]:
        token = self._account / "token"  # read each time: it is replaced every hour
        return {"authorization": f"Bearer {token.read_text().strip()}"} if token.exists() else {}

    def _tls(self) -> ssl.SSLContext:
        authority = self._account / "ca.crt"
        return ssl.create_default_context(cafile=str(authority) if authority.exists() else None)


async def _events(response: aiohttp.ClientResponse) -> AsyncIterator[Mapping[str, Any]]:
    """The watch's events: one JSON object a line."""
    async for line in response.content:
        if line.strip():
            yield json.loads(line)
