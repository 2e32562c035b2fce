"""One kind in one namespace, kept in memory as the API server tells it: list, then watch from the list's version on."""

from collections import defaultdict
from collections.abc import Callable
from typing import NoReturn

from multipick_operator.children.names import POOL_LABEL, Manifest
from multipick_operator.cluster.client import ApiError, Kube
from multipick_operator.cluster.kinds import Watched, version_of

GONE = 410  # the version to go on from is too old

Name = tuple[str, str]  # namespace, name


class Informer:
    """The objects of one kind.

    Invariant: while `synced`, `_objects` has every object that matched when the API server last spoke; what we wrote
    ourselves is in it at once, and no older word of the API server undoes it.
    """

    def __init__(self, api: Kube, watched: Watched, namespace: str | None, changed: Callable[[Manifest], None]) -> None:
        self.watched = watched
        self.namespace = namespace
        self.synced = False
        self._api = api
        self._changed = changed
        self._told = 0  # the newest version that a list or a watch told
        self._objects: dict[Name, Manifest] = {}
        self._of_pool: defaultdict[Name, set[Name]] = defaultdict(set)

    async def run(self, in_step: Callable[[], None]) -> NoReturn:
        """Follow for ever. Raises as `Kube` does: `synced` is then false until the next run has listed."""
        try:
            while True:
                version = await self._list()
                self.synced = True
                in_step()
                try:
                    while True:
                        version = await self._follow(version)
                except ApiError as error:
                    if error.status != GONE:
                        raise
        finally:
            self.synced = False

    def find(self, namespace: str, name: str) -> Manifest | None:
        """The object of this name, if there is one."""
        return self._objects.get((namespace, name))

    def of_pool(self, namespace: str, pool: str) -> list[Manifest]:
        """All objects that carry the pool's label, by name."""
        return [self._objects[name] for name in sorted(self._of_pool.get((namespace, pool), ()))]

    def put(self, manifest: Manifest) -> None:
        """Take over an object, unless a newer state of it is known."""
        name = _name(manifest)
        known = self._objects.get(name)
        if known is None or version_of(known) <= version_of(manifest):
            self._remove(name)
            self._objects[name] = slim(manifest)
            self._of_pool[_pool(manifest)].add(name)

    def drop(self, manifest: Manifest) -> None:
        """The object is gone, unless a newer one of its name is known."""
        name = _name(manifest)
        known = self._objects.get(name)
        if known is not None and version_of(known) <= version_of(manifest):
            self._remove(name)

    def forget(self) -> None:
        """The kind is no longer served: no object of it exists."""
        self._objects.clear()
        self._of_pool.clear()

    def _remove(self, name: Name) -> None:
        if (known := self._objects.pop(name, None)) is not None:
            pool = _pool(known)
            self._of_pool[pool].discard(name)
            if not self._of_pool[pool]:
                del self._of_pool[pool]

    async def _list(self) -> str:
        told_before = self._told
        found, version = await self._api.list(
            self.watched.api_version, self.watched.kind, self.namespace, self.watched.labels
        )
        self._told = int(version)
        put_back = self._told < told_before  # a list is no older than what came before it was asked for, but for etcd's
        names = {_name(one) for one in found}
        lacking = [one for name, one in self._objects.items() if name not in names]
        gone = [one for one in lacking if put_back or version_of(one) <= self._told]
        if put_back:
            self.forget()
        for one in gone:
            self._remove(_name(one))
        for one in found:
            self.put(one)
        for one in [*gone, *found]:
            self._changed(one)
        return version

    async def _follow(self, version: str) -> str:
        """Events until the answer ends; returns the version to go on from."""
        watched = self.watched
        async for event in self._api.watch(watched.api_version, watched.kind, self.namespace, watched.labels, version):
            version = event.object["metadata"]["resourceVersion"]
            self._told = int(version)
            if event.type == "BOOKMARK":
                continue
            (self.drop if event.type == "DELETED" else self.put)(event.object)
            self._changed(event.object)
        return version


def slim(manifest: Manifest) -> Manifest:
    """Without what nobody here reads: who manages which field, and most of a pod's spec. The memory would be theirs."""
    meta = {name: value for name, value in manifest["metadata"].items() if name != "managedFields"}
    if manifest.get("kind") != "Pod":
        return manifest | {"metadata": meta}
    kept = ("name", "ports")
    containers = [
        {name: one[name] for name in kept if name in one} for one in manifest.get("spec", {}).get("containers", [])
    ]
    return manifest | {"metadata": meta, "spec": {"containers": containers}}


def _name(manifest: Manifest) -> Name:
    return manifest["metadata"]["namespace"], manifest["metadata"]["name"]


def _pool(manifest: Manifest) -> Name:
    meta = manifest["metadata"]
    return meta["namespace"], meta.get("labels", {}).get(POOL_LABEL, "")
