"""One pool, made as its object says: level-triggered and idempotent, so that it may run at any time for any reason.

Read the pool and its children -> `desired` -> apply what differs, delete what is no longer wanted -> `status` -> write
it if it changed -> Events for what changed. Nothing is kept between runs but what spares reads and writes.
"""

import dataclasses
import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence

import msgspec

from multipick_operator.adapters import RETRY_S, Adapters
from multipick_operator.api.crd import API_VERSION, KIND
from multipick_operator.api.pool import Pool, SpecError, pool_of
from multipick_operator.api.status import AdapterStatus, Status
from multipick_operator.children import Ref, catalogue, desired
from multipick_operator.children.context import Context, Defaults
from multipick_operator.children.engine import PIN
from multipick_operator.children.names import ENGINE, PICKER, Manifest, engine_name, picker_name
from multipick_operator.children.pod import cache_claim
from multipick_operator.children.scaling import is_written_by_scaler, replicas
from multipick_operator.children.store_user import store_user
from multipick_operator.cluster.client import UNREACHABLE, ApiError
from multipick_operator.cluster.pools import Key
from multipick_operator.cluster.view import View
from multipick_operator.cluster.writes import NotLeadingError, Writes
from multipick_operator.making import TRANSIENT, WORKLOADS, Maker, Memory, Turn, first, is_owned
from multipick_operator.metrics import Metrics
from multipick_operator.neighbours import shadowing, sharing
from multipick_operator.probe import PodProbe
from multipick_operator.references import LookUps, picker_secret, references
from multipick_operator.status import last_status, not_made, status
from multipick_operator.status.adapters import engines_of, order_of, told
from multipick_operator.status.observed import Missing, Observed
from multipick_operator.status.pickers import all_is_well
from multipick_operator.status.pods import is_fetching, is_ready, ready_for_s
from multipick_operator.status.transitions import Changes, notes
from multipick_operator.store import StoreUsers

log = logging.getLogger(__name__)

REPORTS_S = 15.0  # what pickers tell changes without any object's change
EXISTING_S = 30.0  # pods with labels of their own are not watched
WARMING_S = 30.0  # for a picker to follow the events of a pod that has just become ready, or of all if it is new itself


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
        self._probe = probe
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
        if manifest is None or "deletionTimestamp" in manifest["metadata"]:
            if (gone := self._memories.pop(key, None)) and gone.store_user:
                self._users.drop(gone.store_user)
            self._adapters.forget(key)
            self._count()
            return None  # the garbage collector deletes what the pool owned
        memory = self._memories.setdefault(key, Memory(LookUps(self._view, self._fresh_s)))
        try:
            return await self._work(pool_of(manifest), manifest, memory)
        except SpecError as error:
            await self._fail(manifest, memory, "InvalidSpec", str(error))
            return None
        except (ApiError, NotLeadingError, *UNREACHABLE):
            raise
        except Exception as error:
            # a fault of ours, or an object that nobody foresaw: the pool must not go on saying what was true before
            await self._fail(manifest, memory, "ReconcileFailed", f"{type(error).__name__}: {error}")
            raise

    async def _work(self, pool: Pool, manifest: Manifest, memory: Memory) -> float | None:
        turn = await self._maker.read(pool, catalogue(pool), memory)
        pool = await self._sized(pool, manifest, turn)
        engine_pods = await self._engine_pods(pool)
        context = await self._context(pool, engine_pods, turn, memory)
        if user := store_user(pool, context):
            self._users.want(user)
            memory.store_user = user.name
        if not pool.spec.suspend:
            try:
                await self._maker.make(pool, desired(pool, context), turn, memory)
            except SpecError as error:  # of the pod template: what else is known of the pool is told all the same
                turn.refuse(Ref(API_VERSION, KIND, pool.name), 422, str(error))
        seen = await self._observe(pool, manifest, context, engine_pods, turn)
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

    async def _sized(self, pool: Pool, manifest: Manifest, turn: Turn) -> Pool:
        """The pool with as many replicas as it is to have; an autoscaler starts from what is written down."""
        workload = first(turn.live, engine_name(pool), *WORKLOADS)
        count = replicas(pool, manifest, workload["spec"].get("replicas") if workload else None)
        settled = pool.spec.autoscaling is None or is_written_by_scaler(manifest)
        if pool.spec.suspend or (settled and count == pool.spec.replicas):
            return pool
        try:
            await self._writes.replicas(pool.namespace, pool.name, count)
        except ApiError as error:
            if error.status in TRANSIENT:
                raise
            turn.refuse(Ref(API_VERSION, KIND, pool.name), error.status, f"replicas not written: {error.message}")
        return dataclasses.replace(pool, spec=msgspec.structs.replace(pool.spec, replicas=count))

    async def _engine_pods(self, pool: Pool) -> list[Manifest]:
        if pool.spec.existing_pods:
            return await self._view.pods_with(pool.namespace, pool.spec.existing_pods.match_labels)
        return await self._view.pods(pool.namespace, pool.name, ENGINE)

    async def _context(self, pool: Pool, pods: Sequence[Manifest], turn: Turn, memory: Memory) -> Context:
        """The defaults and what the cluster says; notes what the spec names in vain."""
        version = ""
        for reference in references(pool):
            try:
                found = await memory.looked_up.find(reference)
            except ApiError as error:
                if error.status in TRANSIENT:
                    raise
                turn.refuse(reference.ref, error.status, error.message)
                continue
            if found is None:
                turn.missing.append(Missing(reference.ref.kind, reference.ref.name))
                turn.again(memory.looked_up.missing_s)
            elif reference.ref == picker_secret(pool):
                version = found["metadata"]["resourceVersion"]
            elif reference.ref.kind == "Gateway":
                turn.gateways.append(found)
        claim = turn.live.get(Ref("v1", "PersistentVolumeClaim", cache_claim(pool)))
        modes = tuple(claim["spec"].get("accessModes", ())) if claim else ()
        classes = tuple(str(one.get("spec", {}).get("gatewayClassName", "")) for one in turn.gateways)
        return Context(self._defaults, _pin(pool, turn.live), version, modes, _other_ports(pool, pods), classes)

    async def _observe(
        self, pool: Pool, manifest: Manifest, context: Context, engine_pods: Sequence[Manifest], turn: Turn
    ) -> Observed:
        engine, picker = engine_name(pool), picker_name(pool)
        workload = first(turn.live, engine, *WORKLOADS)
        others, made = self._view.pools(), manifest["metadata"].get("creationTimestamp", "")
        picker_pods = await self._view.pods(pool.namespace, pool.name, PICKER)
        reports = await self._probe.pickers([pod["status"]["podIP"] for pod in picker_pods if _answers(pod)])
        fetching = {pod["metadata"]["name"]: _address_of(pod) for pod in engine_pods if is_fetching(pod)}
        if fetching or not all_is_well(reports):
            turn.again(REPORTS_S)
        return Observed(
            workload=workload,
            picker=turn.live.get(Ref("apps/v1", "Deployment", picker)),
            engine_pods=engine_pods,
            picker_pods=picker_pods,
            http_route=first(turn.live, pool.name, "HTTPRoute"),
            inference_pool=first(turn.live, pool.name, "InferencePool"),
            scaler=first(turn.live, engine, "HorizontalPodAutoscaler", "ScaledObject"),
            missing=turn.missing,
            refusals=turn.refusals,
            image=context.engine_image(pool),
            revision=_revision(workload),
            shared_state=context.state_url(pool) is not None,
            store=_address(context.state_url(pool)),
            gateways=turn.gateways,
            fetching=await self._probe.fetching({name: at for name, at in fetching.items() if at}),
            adapters=self._adapters_of(pool, last_status(manifest), engine_pods, turn),
            sharing=sharing(pool, engine_pods, others),
            shadowing=shadowing(pool, made, others),
            reports=reports,
            warming=any(ready_for_s(pod, self._now()) < WARMING_S for pod in [*engine_pods, *picker_pods]),
        )

    def _adapters_of(
        self, pool: Pool, before: Status | None, pods: Sequence[Manifest], turn: Turn
    ) -> tuple[AdapterStatus, ...]:
        """What is known of adapters that come and go; who has not what it should is told beside."""
        key = (pool.namespace, pool.name)
        order = order_of(pool, before)
        if order is None:
            self._adapters.forget(key)
            return ()
        if pool.spec.suspend:
            return before.adapters if before else ()
        engines = engines_of(pool, pods)
        held = self._adapters.look(key, order, engines)
        if not all(one in held and order.is_met(held[one].names) for one in engines):
            turn.again(RETRY_S)
        return told(order, pods, engines, held)

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
        except ApiError as error:  # an Event is news, not work: a full quota for them must not stop a pool
            who = {"pool": manifest["metadata"]["name"], "reason": reason}
            log.warning("event not written", extra=who | {"why": str(error)})

    def _count(self) -> None:
        for value in ("True", "False", "Unknown"):
            self._metrics.pools.labels(value).set(sum(one.ready == value for one in self._memories.values()))


def _log(pool: Pool, changes: Changes) -> None:
    done = {"created": changes.created, "updated": changes.updated, "deleted": changes.deleted}
    if told := {verb: [f"{ref.kind}/{ref.name}" for ref in refs] for verb, refs in done.items() if refs}:
        who = {"namespace": pool.namespace, "pool": pool.name, "generation": pool.generation}
        log.info("children changed", extra=who | {"children": told})


def _address_of(pod: Manifest) -> str:
    return str(pod.get("status", {}).get("podIP", ""))


def _answers(pod: Manifest) -> bool:
    return is_ready(pod) and bool(pod["status"].get("podIP"))


def _pin(pool: Pool, live: Mapping[Ref, Manifest | None]) -> str | None:
    """The default image that this pool was made with."""
    workload = first(live, engine_name(pool), *WORKLOADS)
    return workload["metadata"].get("annotations", {}).get(PIN) if workload and is_owned(pool, workload) else None


def _address(url: str | None) -> str:
    """Of the store, without credentials and options."""
    return (url or "").partition("?")[0].rpartition("@")[2].rpartition("//")[2]


def _other_ports(pool: Pool, pods: Sequence[Manifest]) -> tuple[int, ...]:
    """HTTP ports of pods that were made before the spec's ports changed."""
    if pool.spec.existing_pods:
        return ()
    found = {
        port["containerPort"]
        for pod in pods
        for container in pod["spec"]["containers"]
        for port in container.get("ports", [])
        if port.get("name", "").partition("-")[0] == "http"
    }
    return tuple(sorted(found - set(pool.ports)))


def _template(workload: Manifest) -> Manifest:
    spec = workload["spec"]
    template: Manifest = spec["template"] if "template" in spec else spec["leaderWorkerTemplate"]["leaderTemplate"]
    return template


def _revision(workload: Manifest | None) -> str:
    """A name for the engines' pod template."""
    if workload is None:
        return ""
    return hashlib.sha256(json.dumps(_template(workload), sort_keys=True).encode()).hexdigest()[:10]
