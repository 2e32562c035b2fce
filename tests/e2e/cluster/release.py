"""The chart as a release, through Helm's own library."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.client import Namespace, until
from cluster.load import PATIENCE_S

CHART = str(Path(__file__).parents[3] / "charts/multipick")


@dataclass(frozen=True, slots=True)
class Release:
    """A release that is installed; `values` are those that it started with."""

    name: str
    namespace: Namespace
    values: dict[str, Any]
    config: Any

    async def install(self, chart: str = CHART, **changes: Any) -> None:
        """Again, after `uninstall`; with these changes, a level deep."""
        await asyncio.to_thread(self.config.install, chart, self.name, self._changed(changes))

    async def uninstall(self) -> None:
        """Until `install`."""
        await asyncio.to_thread(self.config.uninstall, self.name)

    async def upgrade(self, chart: str = CHART, **changes: Any) -> None:
        """To the first values with these changes, a level deep."""
        await asyncio.to_thread(self.config.upgrade, chart, self.name, self._changed(changes))

    async def replace(self, part: str, /, **changes: Any) -> None:
        """The same, by which this part is replaced; until none of before is left: an Envoy cuts streams as it ends."""
        old = {pod["metadata"]["uid"] for pod in await self.pods(part)}
        await self.upgrade(**changes)
        await gone(old, lambda: self.pods(part))

    async def pods(self, part: str) -> list[dict[str, Any]]:
        """Of the operator, Valkey or the gateway; they may be leaving."""
        labels = f"app.kubernetes.io/instance={self.name},app.kubernetes.io/component={part}"
        found: list[dict[str, Any]] = (
            await self.namespace.call("GET", self.namespace.path("pods") + f"?labelSelector={labels}")
        )["items"]
        return found

    def _changed(self, changes: dict[str, Any]) -> dict[str, Any]:
        return self.values | {section: self.values.get(section, {}) | to for section, to in changes.items()}


async def gone(old: set[str], look: Callable[[], Awaitable[list[dict[str, Any]]]]) -> None:
    """There are pods, and none of those."""
    await until(look, lambda found: found and not old & {pod["metadata"]["uid"] for pod in found}, PATIENCE_S)


@contextlib.contextmanager
def release(name: str, namespace: Namespace, values: dict[str, Any]) -> Iterator[Release]:
    """Installed in the block, and uninstalled after it."""
    import helm_python as helm

    with helm.Config(kubeconfig_path=str(namespace.server.kubeconfig), namespace=namespace.name) as config:
        config.install(CHART, name, values, create_namespace=True)
        try:
            yield Release(name, namespace, values, config)
        finally:
            config.uninstall(name, ignore_not_found=True)
