"""One pool, made as its object says: level-triggered and idempotent, so that it may run at any time for any reason.

Read the pool and its children -> `desired` -> apply what differs, delete what is no longer wanted -> `status` -> write
it if it changed -> Events for what changed. Nothing is kept between runs but what spares reads and writes.
"""

import dataclasses
import logging
from collections.abc import Callable

import msgspec

from multipick_operator.adapters import Adapters
from multipick_operator.api.crd import API_VERSION, KIND
from multipick_operator.api.pool import Pool, SpecError, readable
from multipick_operator.api.status import Status
from multipick_operator.children import Ref, catalogue, desired
from multipick_operator.children.context import Defaults
from multipick_operator.children.names import Manifest, engine_name
from multipick_operator.children.scaling import replicas
from multipick_operator.children.store_user import store_user
from multipick_operator.cluster.client import UNREACHABLE, ApiError
from multipick_operator.cluster.pools import Key
from multipick_operator.cluster.view import View
from multipick_operator.cluster.writes import NotLeadingError, Writes
from multipick_operator.making import INVALID, TRANSIENT, WORKLOADS, Maker, Memory, Turn, first
from multipick_operator.metrics import Metrics
from multipick_operator.observing import Observer
from multipick_operator.probe import PodProbe
from multipick_operator.references import LookUps
from multipick_operator.status import last_status, not_made, status
from multipick_operator.status.transitions import Changes, notes
from multipick_operator.store import StoreUsers

log = logging.getLogger(__name__)

CHANGED = 409  # since it was read, unless a webhook says so
CHANGED_S = 1.0  # the watch tells of it, or is away
EXISTING_S = 30.0  # pods with labels of their own are not watched


class Reconciler:
    """All pools of one operator. Invariant: `_memories` has keys of pools that exist, only."""

    def __init__(
        self,
        view: View,
        writes: Writes,
        defaults: Defaults,
        metrics: Metrics,
        probe: PodProbe,
        users: StoreUsers,
        adapters: Adapters,
        now: Callable[[], str],
        fresh_s: float,
    ) -> None:
        self._view = view
        self._writes = writes
        self._maker = Maker(view, writes, metrics)
        self._defaults = defaults
        self._metrics = metrics
        self._observer = Observer(view, defaults, probe, adapters, now)
        self._users = users
        self._adapters = adapters
        self._now = now
        self._fresh_s = fresh_s
        self._memories: dict[Key, Memory] = {}

    async def reconcile(self, key: Key) -> float | None:
        """Do all that there is to do for one pool; returns seconds to the next look, or None.

        Raises where the API server fails, or the lease is lost: the caller tries again later.
        """
        manifest = await self._view.pool(key)
        if manifest is None:
            await self._let_go(key)
            return None
        if "deletionTimestamp" in manifest["metadata"]:
            return None  # the garbage collector deletes what the pool owns
        memory = self._memories.setdefault(key, Memory(LookUps(self._view, self._fresh_s)))
        try:
            return await self._work(*readable(manifest), manifest, memory)
        except SpecError as error:
            await self._fail(manifest, memory, "InvalidSpec", str(error))
            return None
        except (ApiError, NotLeadingError, *UNREACHABLE):
            raise
        except Exception as error:
            # a fault of ours, or an object that nobody foresaw: the pool must not go on saying what was true before
            await self._fail(manifest, memory, "ReconcileFailed", f"{type(error).__name__}: {error}")
            raise

    async def _work(self, pool: Pool, trouble: str, manifest: Manifest, memory: Memory) -> float | None:
        turn = await self._maker.read(pool, catalogue(pool), memory)
        sized = await self._sized(pool, manifest, turn)
        if sized is None:
            return CHANGED_S
        pool = sized
        engine_pods = await self._observer.engine_pods(pool, turn)
        context = await self._observer.context(pool, engine_pods, turn, memory)
        if user := store_user(pool, context):
            self._users.want(user)
            memory.store_user = user.name
            turn.store_trouble = self._users.trouble or ""
        if trouble:
            turn.refuse(Ref(API_VERSION, KIND, pool.name), INVALID, trouble)
        elif not pool.spec.suspend:
            try:
                await self._maker.make(pool, desired(pool, context), turn, memory)
            except SpecError as error:  # of the pod template: what else is known of the pool is told all the same
                turn.refuse(Ref(API_VERSION, KIND, pool.name), INVALID, str(error))
        seen = await self._observer.observe(pool, manifest, context, engine_pods, turn)
        changes = Changes(turn.created, turn.updated, turn.deleted, turn.replicas)
        _log(pool, changes)
        before = last_status(manifest)
        after = status(pool, seen, before, self._now())
        await self._write(manifest, memory, before, after)
        for note in notes(pool, before, after, changes):
            await self._tell(manifest, note.type, note.reason, note.message)
        if pool.spec.existing_pods:
            turn.again(EXISTING_S)
        return turn.retry_s

    async def _sized(self, pool: Pool, manifest: Manifest, turn: Turn) -> Pool | None:
        """The pool with as many replicas as it is to have; an autoscaler starts from what is written down.

        None: the pool has changed since it was read, and may want another number.
        """
        workload = first(turn.live, engine_name(pool), *WORKLOADS)
        count = replicas(pool, manifest, workload["spec"].get("replicas") if workload else None)
        if pool.spec.suspend or count == pool.spec.replicas:
            return pool
        try:
            await self._writes.replicas(manifest, count)
        except ApiError as error:
            if error.status == CHANGED and await self._is_other(manifest):
                return None
            if error.status in TRANSIENT:
                raise
            turn.refused(Ref(API_VERSION, KIND, pool.name), error, "replicas not written: ")
        return dataclasses.replace(pool, spec=msgspec.structs.replace(pool.spec, replicas=count))

    async def _is_other(self, manifest: Manifest) -> bool:
        """The pool is not as it was read; else it was a webhook that said so. Raises as `Kube` does."""
        meta = manifest["metadata"]
        live = await self._view.ask(Ref(API_VERSION, KIND, meta["name"]), meta["namespace"])
        return live is None or live["metadata"]["resourceVersion"] != meta["resourceVersion"]

    async def _let_go(self, key: Key) -> None:
        """The pool is not ours any more. Only of one that is deleted what it used outside the cluster goes, too."""
        memory = self._memories.get(key)
        if memory and memory.store_user and await self._is_deleted(key):
            self._users.drop(memory.store_user)
        self._memories.pop(key, None)
        self._adapters.forget(key)
        self._count()

    async def _is_deleted(self, key: Key) -> bool:
        """It exists no more; one that has left the selector does, and its pickers serve. Raises as `Kube` does."""
        namespace, name = key
        try:
            return await self._view.ask(Ref(API_VERSION, KIND, name), namespace) is None
        except ApiError as error:
            if error.status in TRANSIENT:
                raise
            return False  # there is no right to know, as in a namespace that went with its rights

    async def _fail(self, manifest: Manifest, memory: Memory, reason: str, message: str) -> None:
        """The spec can't even be read, or worked on: say so, and leave what else is known."""
        before = last_status(manifest)
        after = not_made(manifest, before, reason, message, self._now())
        if await self._write(manifest, memory, before, after):
            await self._tell(manifest, "Warning", "InvalidSpec", message)

    async def _write(self, manifest: Manifest, memory: Memory, before: Status | None, after: Status) -> bool:
        """Write the status if it changed; returns whether it did."""
        meta = manifest["metadata"]
        memory.ready = after.conditions[0].status
        self._count()
        if after == before:
            return False
        try:
            await self._writes.status(meta["namespace"], meta["name"], msgspec.to_builtins(after))
        except ApiError as error:
            if error.status != 404:  # deleted meanwhile
                raise
        return True

    async def _tell(self, manifest: Manifest, type_: str, reason: str, message: str) -> None:
        try:
            await self._writes.event(manifest, type_, reason, message, self._now())
        except (ApiError, *UNREACHABLE) as error:  # an Event is news, not work: no pool may wait for a store of theirs
            who = {"pool": manifest["metadata"]["name"], "reason": reason}
            log.warning("event not written", extra=who | {"why": str(error) or type(error).__name__})

    def _count(self) -> None:
        for value in ("True", "False", "Unknown"):
            self._metrics.pools.labels(value).set(sum(one.ready == value for one in self._memories.values()))


def _log(pool: Pool, changes: Changes) -> None:
    done = {"created": changes.created, "updated": changes.updated, "deleted": changes.deleted}
    if told := {verb: [f"{ref.kind}/{ref.name}" for ref in refs] for verb, refs in done.items() if refs}:
        who = {"namespace": pool.namespace, "pool": pool.name, "generation": pool.generation}
        log.info("children changed", extra=who | {"children": told})
