"""Constant load on a gateway from a pod of the cluster, and what came of it."""

import contextlib
import http.client
import urllib.error
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster.chats import PORT, Loss
from cluster.client import Namespace, until

PATIENCE_S = 300.0  # for what takes a quiet machine seconds
TRIES = 5
PROGRAM = Path(__file__).with_name("chats.py")


@dataclass(frozen=True, slots=True)
class Gateway:
    """A Service in front of a pool. `image` has a Python with aiohttp, for the pod that asks it."""

    namespace: Namespace
    service: str
    image: str
    prefix: str = ""  # of the pool's paths

    async def answers(self) -> bool:
        """It leads to an engine."""
        with contextlib.suppress(urllib.error.HTTPError):
            return bool(await self.models())
        return False

    async def models(self) -> list[str]:
        """What the engines behind it say that they serve."""
        path = self.namespace.path("services", f"{self.service}:80") + f"/proxy{self.prefix}/v1/models"
        return [one["id"] for one in (await self.namespace.call("GET", path))["data"]]


@dataclass(slots=True)
class Tally:
    """What came of the requests; `lost` is complete after the block of `load`."""

    namespace: Namespace
    pod: str
    lost: list[Loss] = field(default_factory=list)

    async def served(self) -> int:
        """So far."""
        return int((await self.ask(""))["served"])

    async def more(self, count: int = 20) -> None:
        """So many more are served."""
        served = await self.served()
        await until(self.served, lambda now: now >= served + count, PATIENCE_S)

    async def ask(self, path: str) -> Any:
        """The pod's answer; asked again where the API server's proxy drops it, as it does now and then."""
        url = self.namespace.path("pods", f"{self.pod}:{PORT}") + f"/proxy/{path}"
        for _ in range(TRIES - 1):
            with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
                return await self.namespace.call("GET", url)
        return await self.namespace.call("GET", url)


@asynccontextmanager
async def load(gateway: Gateway, model: str) -> AsyncIterator[Tally]:
    """Requests all the time, some served before the block begins, until it ends; then the running ones end too."""
    namespace, name = gateway.namespace, f"load-{uuid.uuid4().hex[:8]}"
    await namespace.call("POST", namespace.path("configmaps"), _config(name))
    await namespace.call("POST", namespace.path("pods"), _pod(name, gateway, model))
    tally = Tally(namespace, name)
    try:
        await until(lambda: _is_ready(namespace, name), bool, PATIENCE_S)
        await tally.more()
        yield tally
        tally.lost = [Loss(**one) for one in (await tally.ask("end"))["lost"]]
    finally:
        await namespace.call("DELETE", namespace.path("pods", name))
        await namespace.call("DELETE", namespace.path("configmaps", name))


async def _is_ready(namespace: Namespace, name: str) -> bool:
    status = (await namespace.call("GET", namespace.path("pods", name)))["status"]
    return any(one["type"] == "Ready" and one["status"] == "True" for one in status.get("conditions", []))


def _config(name: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "data": {PROGRAM.name: PROGRAM.read_text()}}


def _pod(name: str, gateway: Gateway, model: str) -> dict[str, Any]:
    url = f"http://{gateway.service}.{gateway.namespace.name}.svc{gateway.prefix}"
    container = {
        "name": "load",
        "image": gateway.image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", f"/load/{PROGRAM.name}", url, model],
        "readinessProbe": {"httpGet": {"path": "/", "port": PORT}, "periodSeconds": 1},
        "volumeMounts": [{"name": "load", "mountPath": "/load"}],
    }
    spec = {
        "containers": [container],
        "volumes": [{"name": "load", "configMap": {"name": name}}],
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 0,
    }
    return {"metadata": {"name": name}, "spec": spec}
