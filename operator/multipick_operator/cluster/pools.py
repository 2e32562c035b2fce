"""kopf as the watcher of the pools themselves, in one namespace or everywhere.

Handlers of kind `event` make kopf write nothing: no finalizer, no annotation. What kopf is not asked for, and why:

- `kopf.operator` ends all tasks of the loop that are younger than itself, and a process that takes long to end by
  SIGKILL. So its tasks are spawned and ended here, and it gets no say about the process.
- It takes the signal handlers. They are put back at once.
- A scan of the API that is cancelled leaves its requests running; they fail once the session is closed, and open
  another. So they end with its tasks.
- It never tells what was deleted while no watch was open. A list does, from time to time (`verify`).
- One refusal ends all of its watches. So each namespace has a kopf of its own, and children are watched by informers.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import kopf

from multipick_operator.api.crd import API_VERSION, GROUP, KIND, PLURAL, VERSION
from multipick_operator.children.names import Manifest
from multipick_operator.cluster.client import Kube
from multipick_operator.cluster.kinds import version_of
from multipick_operator.cluster.login import Login, connection_info

Key = tuple[str, str]  # namespace, name


class PoolWatch:
    """The pools that the selector matches.

    Lists, kopf's events and answers to our own writes come late, and in any order. Each is of a version, and no older
    one undoes what a newer one told.

    Invariants: `_pools` has the newest state that was told of each pool, and no pool that was told since to be gone, or
    to have left the selector. `_gone` has the versions of that which are above `_listed`, the version of the newest
    list: what is unknown, and no newer than that list, was gone by then.
    """

    def __init__(
        self,
        api: Kube,
        login: Login,
        identity: str,
        namespace: str | None,
        selector: str,
        changed: Callable[[Key], None],
        signals: Callable[[], None],
    ) -> None:
        self.namespace = namespace
        self.synced = False
        self._api = api
        self._login = login
        self._identity = identity
        self._selector = selector
        self._changed = changed
        self._signals = signals
        self._pools: dict[Key, Manifest] = {}
        self._gone: dict[Key, int] = {}
        self._listed = 0

    async def run(self, in_step: Callable[[], None]) -> NoReturn:
        """Follow for ever. Raises what ended kopf."""
        await self.verify()
        self.synced = True
        in_step()
        identity: Any = self._identity  # given, because kopf's own needs a user of that name, which images lack
        settings = _settings(self._selector)
        tasks = await kopf.spawn_tasks(
            identity=identity,
            registry=self._registry(),
            settings=settings,
            standalone=True,
            clusterwide=self.namespace is None,
            namespaces=[self.namespace] if self.namespace is not None else (),
        )
        self._signals()
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            raise RuntimeError("kopf ended by itself")
        finally:
            self.synced = False
            ending = {*tasks, *_given(settings)}
            for task in ending:
                task.cancel()
            await asyncio.gather(*ending, return_exceptions=True)

    async def verify(self) -> None:
        """List the pools: what the watch missed, and that it may be asked at all. Raises as `Kube` does."""
        listed_before = self._listed
        found, version = await self._api.list(API_VERSION, KIND, self.namespace, self._selector)
        before = {key: version_of(one) for key, one in self._pools.items()}
        if int(version) < listed_before:  # it is no older than what came before it was asked for: etcd was put back
            self.forget()
        for key in self._pools.keys() - {_key(one) for one in found}:
            self._drop(key, int(version))
        for one in found:
            self._take(one)
        self._listed = max(self._listed, int(version))
        self._gone = {key: at for key, at in self._gone.items() if at > self._listed}
        for key in before.keys() | self._pools.keys():
            known = self._pools.get(key)
            if known is None or version_of(known) != before.get(key):
                self._changed(key)

    async def find(self, key: Key) -> Manifest | None:
        """The pool, if it is ours. Asked for anew while no watch tells: it may be somebody else's by now."""
        if not self.synced:
            namespace, name = key
            fields = f"metadata.name={name}"
            found, version = await self._api.list(API_VERSION, KIND, namespace, self._selector, fields)
            if not found:
                self._drop(key, int(version))
            for one in found:
                self._take(one)
        return self._pools.get(key)

    def forget(self) -> None:
        """No CRD, no pools."""
        self._pools, self._gone, self._listed = {}, {}, 0

    def has(self, key: Key) -> bool:
        """This is a pool of ours, as far as is known."""
        return key in self._pools

    def put(self, manifest: Manifest) -> None:
        """Take over what the API server answered to a write of ours."""
        if _key(manifest) in self._pools:
            self._take(manifest)

    def all(self) -> list[Manifest]:
        """Whole, in no order."""
        return list(self._pools.values())

    def known(self) -> list[Key]:
        """All pools, by name."""
        return sorted(self._pools)

    def _take(self, manifest: Manifest) -> None:
        """There was this state of a pool."""
        key, version = _key(manifest), version_of(manifest)
        known = self._pools.get(key)
        if version >= version_of(known) if known else version > self._gone.get(key, self._listed):
            self._pools[key] = manifest

    def _drop(self, key: Key, version: int) -> None:
        """There was no such pool of ours at that version."""
        known = self._pools.get(key)
        if known is None or version_of(known) <= version:
            self._pools.pop(key, None)
            self._gone[key] = max(version, self._gone.get(key, self._listed))

    def _registry(self) -> kopf.OperatorRegistry:
        handlers = kopf.OperatorRegistry()

        async def authenticate(**_: Any) -> kopf.ConnectionInfo:
            return await connection_info(await self._login())

        async def changed(event: Mapping[str, Any], **_: Any) -> None:
            manifest = event["object"]
            if event["type"] == "DELETED":
                self._drop(_key(manifest), version_of(manifest))
            else:
                self._take(manifest)
            self._changed(_key(manifest))

        kopf.on.login(registry=handlers)(authenticate)
        kopf.on.event(GROUP, VERSION, PLURAL, registry=handlers)(changed)
        return handlers


def _settings(selector: str) -> kopf.OperatorSettings:
    """Filters that the API server applies, timeouts against stalls, nothing written, few retries: it is run anew."""
    chosen = kopf.OperatorSettings()
    chosen.process.ultimate_exiting_timeout = None
    chosen.posting.enabled = False
    chosen.networking.error_backoffs = (1, 2, 4)  # seconds; without any it would ask without a pause
    chosen.networking.request_timeout = 30
    chosen.watching.server_timeout = 270
    chosen.watching.client_timeout = 300
    chosen.watching.connect_timeout = 10
    chosen.watching.inactivity_timeout = 285  # where nothing happens, nothing may be told for as long
    chosen.scanning.disabled = True  # namespaces and CRDs are none of its business: a Role can't list them
    if selector:
        chosen.watching.label_selectors[GROUP, VERSION, PLURAL] = selector
    return chosen


def _given(settings: kopf.OperatorSettings) -> set[asyncio.Task[Any]]:
    """The tasks that these settings were handed to: kopf's own, whoever began them, of this watch and no other."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    frames = {task: getattr(task.get_coro(), "cr_frame", None) for task in others}
    return {task for task, frame in frames.items() if frame and frame.f_locals.get("settings") is settings}


def _key(manifest: Mapping[str, Any]) -> Key:
    return manifest["metadata"]["namespace"], manifest["metadata"]["name"]
