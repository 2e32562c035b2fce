"""One pool, made as its object says: level-triggered and idempotent, so that it may run at any time for any reason.

Read the pool and its children -> `desired` -> apply what differs, delete what is no longer wanted -> `status` -> write
it if it changed -> Events for what changed. Nothing is kept between runs but what spares writes.
"""

import asyncio
import hashlib
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from multipick_operator import kube
from multipick_operator.api.crd import API_VERSION, KIND
from multipick_operator.api.pool import Pool, PoolSpec, SpecError, pool_of
from multipick_operator.applied import Applied, fingerprint
from multipick_operator.children import Ref, catalogue, desired, ref_of
from multipick_operator.children.context import Context, Defaults
from multipick_operator.children.engine import PIN
from multipick_operator.children.names import (
    ENGINE,
    PICKER,
    Manifest,
    endpoint_labels,
    engine_name,
    picker_name,
    selector,
    selector_text,
)
from multipick_operator.kinds import Kinds
from multipick_operator.kube import ApiError, Kube
from multipick_operator.metrics import Metrics
from multipick_operator.references import Reference, picker_secret, references
from multipick_operator.status import last_status, status
from multipick_operator.status.observed import Missing, Observed
from multipick_operator.status.pickers import PickerReport, all_is_well
from multipick_operator.status.pods import is_ready, ready_for_s
from multipick_operator.status.transitions import Changes, notes

log = logging.getLogger(__name__)

Key = tuple[str, str]  # namespace, name
Probe = Callable[[Sequence[str]], Awaitable[list[PickerReport]]]

MISSING_S = 15.0  # what is missing is looked for again, since Secrets of others are not watched
REPORTS_S = 15.0  # what pickers tell changes without any object's change
EXISTING_S = 15.0  # pods with labels of their own are not watched either
FORBIDDEN_S = 30.0
WARMING_S = 30.0  # for a picker to follow the events of a pod that has just become ready, or of all if it is new itself
WORKLOADS = ("Deployment", "LeaderWorkerSet")


@dataclass(slots=True)
class Round:
    """What one reconcile finds and does."""

    live: dict[Ref, Manifest | None]
    missing: list[Missing] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    retry_s: float | None = None
    created: list[Ref] = field(default_factory=list)
    updated: list[Ref] = field(default_factory=list)
    deleted: list[Ref] = field(default_factory=list)
    replicas: tuple[int, int] | None = None

    def again(self, delay_s: float) -> None:
        """Look again after so long, or earlier."""
        self.retry_s = min(delay_s, self.retry_s or delay_s)


class Reconciler:
    """All pools of one operator. Invariant: `_ready` and `_applied` have keys of pools that exist, only."""

    def __init__(
        self, api: Kube, kinds: Kinds, defaults: Defaults, metrics: Metrics, probe: Probe, now: Callable[[], str]
    ) -> None:
        self._api = api
        self._defaults = defaults
        self._metrics = metrics
        self._probe = probe
        self._now = now
        self._kinds = kinds
        self._applied: dict[Key, Applied] = {}
        self._ready: dict[Key, str] = {}

    async def reconcile(self, key: Key) -> float | None:
        """Do all that there is to do for one pool; returns seconds to the next look, or None.

        Raises ApiError and aiohttp.ClientError where the API server fails: the caller tries again later.
        """
        namespace, name = key
        manifest = await self._api.find(kube.get(Ref(API_VERSION, KIND, name), namespace))
        if manifest is None or "deletionTimestamp" in manifest["metadata"]:
            self._count(key, None)
            self._applied.pop(key, None)
            return None  # the garbage collector deletes what the pool owns
        try:
            pool = pool_of(manifest)
        except SpecError as error:
            meta = manifest["metadata"]
            pool = Pool(namespace, name, meta["uid"], meta["generation"], PoolSpec())
            await self._report(pool, manifest, Observed(refused=str(error)), Changes())
            return None
        turn = Round(await self._read(pool))
        context = await self._context(pool, turn)
        if not pool.spec.suspend:
            await self._make(pool, desired(pool, context), turn)
        seen = await self._observe(pool, context, turn)
        changes = Changes(turn.created, turn.updated, turn.deleted, turn.replicas)
        _log(pool, changes)
        await self._report(pool, manifest, seen, changes)
        if pool.spec.existing_pods:
            turn.again(EXISTING_S)
        return turn.retry_s

    async def _read(self, pool: Pool) -> dict[Ref, Manifest | None]:
        """Every child that may exist, as it is now."""
        refs = [ref for ref in catalogue(pool) if await self._kinds.serves(ref.api_version, ref.kind)]
        found = await asyncio.gather(*(self._api.find(kube.get(ref, pool.namespace)) for ref in refs))
        return dict(zip(refs, found, strict=True))

    async def _context(self, pool: Pool, turn: Round) -> Context:
        """The defaults and what the cluster says; notes what the spec names in vain."""
        version = ""
        for reference in references(pool):
            found = await self._look_up(reference)
            if found is None:
                turn.missing.append(Missing(reference.ref.kind, reference.ref.name))
                turn.again(MISSING_S)
            elif reference.ref == picker_secret(pool):
                version = found["metadata"]["resourceVersion"]
        return Context(self._defaults, _pin(pool, turn.live), version)

    async def _look_up(self, reference: Reference) -> Manifest | None:
        if not await self._kinds.serves(reference.ref.api_version, reference.ref.kind):
            return None
        return await self._api.find(kube.get(reference.ref, reference.namespace))

    async def _make(self, pool: Pool, wanted: Sequence[Manifest], turn: Round) -> None:
        """Apply what differs, then delete what is no longer wanted."""
        made: set[Ref] = set()
        for manifest in wanted:
            ref = ref_of(manifest)
            if not await self._kinds.serves(ref.api_version, ref.kind):
                if Missing(ref.kind, "") not in turn.missing:
                    turn.missing.append(Missing(ref.kind, ""))
            elif await self._apply(pool, ref, manifest, turn):
                made.add(ref)
        kept = {ref_of(manifest) for manifest in wanted}
        complete = any(ref.kind in WORKLOADS and ref.name == engine_name(pool) for ref in made)
        for ref, live in turn.live.items():
            if live is None or ref in kept or not _is_owned(pool, live):
                continue
            if ref.kind in WORKLOADS and not complete and not pool.spec.existing_pods:
                continue  # pods that serve stay until those that replace them can be made
            await self._delete(pool, ref, live, turn)

    async def _apply(self, pool: Pool, ref: Ref, manifest: Manifest, turn: Round) -> bool:
        """Whether the child is there as wanted. A refusal by the API server is noted, and doesn't stop the others."""
        live = turn.live.get(ref)
        if live is not None and not _is_owned(pool, live):
            turn.refusals.append(f"{ref.kind} {ref.name} exists and is not this pool's: delete or rename one of them")
            turn.again(FORBIDDEN_S)
            return False
        if self._memory(pool).is_current(ref, manifest, live):
            return True
        try:
            result: Manifest = await self._api.send(kube.apply(manifest))
        except ApiError as error:
            self._metrics.applies.labels(ref.kind, "refused" if error.status in (400, 403, 422) else "error").inc()
            if error.status not in (400, 403, 422):
                raise
            turn.refusals.append(f"{ref.kind} {ref.name}: {error.message}")
            if error.status == 403:  # a quota, or rights: neither is the spec's fault alone
                turn.again(FORBIDDEN_S)
            return False
        self._metrics.applies.labels(ref.kind, "ok").inc()
        self._memory(pool).remember(ref, manifest, result)
        turn.live[ref] = result
        if live is None:
            turn.created.append(ref)
        elif fingerprint(ref, live) != fingerprint(ref, result):
            turn.updated.append(ref)
            if ref.kind in WORKLOADS and ref.name == engine_name(pool):
                turn.replicas = (live["spec"].get("replicas", 1), pool.spec.replicas)
        return True

    async def _delete(self, pool: Pool, ref: Ref, live: Manifest, turn: Round) -> None:
        try:
            await self._api.send(kube.delete(ref, pool.namespace, live["metadata"]["uid"]))
        except ApiError as error:
            if error.status not in (404, 409):  # gone, or another object by now
                raise
        self._memory(pool).forget(ref)
        turn.live[ref] = None
        turn.deleted.append(ref)

    async def _observe(self, pool: Pool, context: Context, turn: Round) -> Observed:
        engine, picker = engine_name(pool), picker_name(pool)
        workload = _first(turn.live, engine, *WORKLOADS)
        deployment = turn.live.get(Ref("apps/v1", "Deployment", picker))
        labels = endpoint_labels(pool) if pool.spec.existing_pods else selector(pool, ENGINE)
        engine_pods, picker_pods = await asyncio.gather(
            self._pods(pool, labels), self._pods(pool, selector(pool, PICKER))
        )
        reports = await self._probe([pod["status"]["podIP"] for pod in picker_pods if _answers(pod)])
        if not all_is_well(reports):
            turn.again(REPORTS_S)
        return Observed(
            workload=workload,
            picker=deployment,
            engine_pods=engine_pods,
            picker_pods=picker_pods,
            http_route=_first(turn.live, pool.name, "HTTPRoute"),
            inference_pool=_first(turn.live, pool.name, "InferencePool"),
            scaler=_first(turn.live, engine, "HorizontalPodAutoscaler", "ScaledObject"),
            missing=turn.missing,
            refused="; ".join(turn.refusals) or None,
            image=context.engine_image(pool),
            revision=_revision(workload),
            shared_state=context.state_url(pool) is not None,
            reports=reports,
            warming=any(ready_for_s(pod, self._now()) < WARMING_S for pod in [*engine_pods, *picker_pods]),
        )

    async def _pods(self, pool: Pool, labels: Mapping[str, str]) -> list[Manifest]:
        found = await self._api.send(kube.list_("v1", "Pod", pool.namespace, selector_text(dict(labels))))
        pods: list[Manifest] = found["items"]
        return pods

    async def _report(self, pool: Pool, manifest: Manifest, seen: Observed, changes: Changes) -> None:
        """Write the status if it changed, and Events for what changed."""
        before = last_status(manifest)
        after = status(pool, seen, before, self._now())
        if after != before:
            try:
                await self._api.send(kube.patch_status(pool.namespace, pool.name, msgspec.to_builtins(after)))
            except ApiError as error:
                if error.status == 404:  # deleted meanwhile
                    return
                raise
        self._count((pool.namespace, pool.name), after.conditions[0].status)
        for note in notes(pool, before, after, changes):
            try:
                await self._api.send(kube.event(manifest, *note, self._now()))
            except ApiError as error:  # an Event is news, not work: a full quota for them must not stop a pool
                log.warning("event not written", extra={"pool": pool.name, "reason": note.reason, "why": str(error)})

    def _memory(self, pool: Pool) -> Applied:
        return self._applied.setdefault((pool.namespace, pool.name), Applied())

    def _count(self, key: Key, ready: str | None) -> None:
        if ready is None:
            self._ready.pop(key, None)
        else:
            self._ready[key] = ready
        for value in ("True", "False", "Unknown"):
            self._metrics.pools.labels(value).set(sum(one == value for one in self._ready.values()))


def _log(pool: Pool, changes: Changes) -> None:
    done = {"created": changes.created, "updated": changes.updated, "deleted": changes.deleted}
    if told := {verb: [f"{ref.kind}/{ref.name}" for ref in refs] for verb, refs in done.items() if refs}:
        who = {"namespace": pool.namespace, "pool": pool.name, "generation": pool.generation}
        log.info("children changed", extra=who | {"children": told})


def _answers(pod: Manifest) -> bool:
    return is_ready(pod) and bool(pod["status"].get("podIP"))


def _is_owned(pool: Pool, live: Manifest) -> bool:
    return any(owner["uid"] == pool.uid for owner in live["metadata"].get("ownerReferences", []))


def _first(live: Mapping[Ref, Manifest | None], name: str, *kinds: str) -> Manifest | None:
    return next((one for ref, one in live.items() if one and ref.name == name and ref.kind in kinds), None)


def _pin(pool: Pool, live: Mapping[Ref, Manifest | None]) -> str | None:
    """The default image that this pool was made with."""
    workload = _first(live, engine_name(pool), *WORKLOADS)
    return workload["metadata"].get("annotations", {}).get(PIN) if workload and _is_owned(pool, workload) else None


def _template(workload: Manifest) -> Manifest:
    spec = workload["spec"]
    template: Manifest = spec["template"] if "template" in spec else spec["leaderWorkerTemplate"]["leaderTemplate"]
    return template


def _revision(workload: Manifest | None) -> str:
    """A name for the engines' pod template."""
    if workload is None:
        return ""
    return hashlib.sha256(json.dumps(_template(workload), sort_keys=True).encode()).hexdigest()[:10]
