"""What exists in the cluster, as the watches tell it: a read costs a request only where its watch is away."""

from collections.abc import Mapping, Sequence

from multipick_operator.api.crd import API_VERSION, KIND
from multipick_operator.children import Ref
from multipick_operator.children.names import POOL_LABEL, ROLE_LABEL, Manifest, selector_text
from multipick_operator.cluster.client import Kube
from multipick_operator.cluster.informer import Informer
from multipick_operator.cluster.pools import Key, PoolWatch
from multipick_operator.cluster.watches import Watch


class View:
    """Informers by kind and namespace (None: all of them), the pools, and the API server for the rest."""

    def __init__(self, api: Kube, pools: Sequence[PoolWatch], watches: Sequence[Watch]) -> None:
        self._api = api
        self._pools = {one.namespace: one for one in pools}
        self._watches = {
            (one.runner.watched.api_version, one.runner.watched.kind, one.namespace): (one, one.runner)
            for one in watches
            if isinstance(one.runner, Informer)
        }

    async def pool(self, key: Key) -> Manifest | None:
        """The pool, if this operator is to act on it. Raises as `Kube` does."""
        watch = self._pool_watch(key[0])
        return await watch.find(key) if watch else None

    def is_pool(self, key: Key) -> bool:
        """A pool of ours has this name, as far as is known."""
        watch = self._pool_watch(key[0])
        return watch is not None and watch.has(key)

    def pools(self) -> list[Manifest]:
        """All pools of ours, as far as is known."""
        return [one for watch in self._pools.values() for one in watch.all()]

    def serves(self, ref: Ref, namespace: str) -> bool:
        """Whether the API server has the ref's kind. One that nobody watches comes with a watched one of its group."""
        version, kind, _ = ref
        if kind == "Gateway":
            kind = "HTTPRoute"
        found = self._watch(Ref(version, kind, ""), namespace)
        return found is None or not found[0].absent

    async def find(self, ref: Ref, namespace: str) -> Manifest | None:
        """A child. Raises as `Kube` does, where its watch is away."""
        found = self._watch(ref, namespace)
        if found and found[1].synced:
            return found[1].find(namespace, ref.name)
        return await self._api.get(ref, namespace)

    def watches(self, ref: Ref, namespace: str) -> bool:
        """Objects of the ref's kind are told of."""
        return self._watch(ref, namespace) is not None

    async def ask(self, ref: Ref, namespace: str) -> Manifest | None:
        """An object that no watch tells of, since somebody else made it. Raises as `Kube` does."""
        return await self._api.get(ref, namespace)

    async def pods(self, namespace: str, pool: str, role: str) -> list[Manifest]:
        """Pods that the operator's workloads made for a pool."""
        found = self._watch(Ref("v1", "Pod", ""), namespace)
        if found and found[1].synced:
            members = found[1].of_pool(namespace, pool)
            return [pod for pod in members if pod["metadata"]["labels"].get(ROLE_LABEL) == role]
        return await self.pods_with(namespace, {POOL_LABEL: pool, ROLE_LABEL: role})

    async def pods_with(self, namespace: str, labels: Mapping[str, str]) -> list[Manifest]:
        """Pods of any labels: no watch has them."""
        found, _ = await self._api.list("v1", "Pod", namespace, selector_text(labels))
        return found

    async def of_pool(self, api_version: str, kind: str, namespace: str, pool: str) -> list[Manifest]:
        """All objects of a kind that carry the pool's label."""
        found = self._watch(Ref(api_version, kind, ""), namespace)
        if found and found[1].synced:
            return found[1].of_pool(namespace, pool)
        listed, _ = await self._api.list(api_version, kind, namespace, f"{POOL_LABEL}={pool}")
        return listed

    def wrote(self, manifest: Manifest) -> None:
        """Our own write is known at once, before the watch tells of it."""
        namespace = manifest["metadata"]["namespace"]
        if (manifest["apiVersion"], manifest["kind"]) == (API_VERSION, KIND):
            if watch := self._pool_watch(namespace):
                watch.put(manifest)
        elif found := self._watch(Ref(manifest["apiVersion"], manifest["kind"], ""), namespace):
            found[1].put(manifest)

    def deleted(self, manifest: Manifest) -> None:
        """Likewise."""
        if found := self._watch(Ref(manifest["apiVersion"], manifest["kind"], ""), manifest["metadata"]["namespace"]):
            found[1].drop(manifest)

    def _watch(self, ref: Ref, namespace: str) -> tuple[Watch, Informer] | None:
        version, kind, _ = ref
        return self._watches.get((version, kind, namespace)) or self._watches.get((version, kind, None))

    def _pool_watch(self, namespace: str) -> PoolWatch | None:
        return self._pools.get(namespace) or self._pools.get(None)
