"""A pool's children, made as they should be: what differs is applied, what is no longer wanted is deleted."""

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from multipick_operator.api.crd import API_VERSION, KIND
from multipick_operator.api.pool import Pool
from multipick_operator.applied import Applied, fingerprint
from multipick_operator.children import Ref, ref_of
from multipick_operator.children.names import MANAGER, POOL_LABEL, Manifest, engine_name, picker_name
from multipick_operator.cluster.client import ApiError
from multipick_operator.cluster.view import View
from multipick_operator.cluster.writes import Writes
from multipick_operator.metrics import Metrics
from multipick_operator.references import LookUps, Reference, references
from multipick_operator.status.observed import Missing, Refusal
from multipick_operator.status.pods import is_rolled_out

Found = TypeVar("Found")
INVALID = "InvalidSpec"
CONFLICT = "Conflict"
AGAIN_S = 30.0  # quotas, rights and webhooks change without a word
CONFLICT_S = 5.0  # what others do at the moment is soon over
WORKLOADS = ("Deployment", "LeaderWorkerSet")
NEEDED = ("ConfigMap", "Secret", "ServiceAccount")  # by pods, so that without them none can be made
TRANSIENT = (401, 408, 425, 429, 502, 503, 504)  # the API server's own trouble: not the pool's fault


@dataclass(slots=True)
class Memory:
    """What is kept of one pool between two reconciles."""

    looked_up: LookUps
    applied: Applied = field(default_factory=Applied)
    ready: str = "Unknown"
    store_user: str | None = None


@dataclass(slots=True)
class Turn:
    """What one reconcile finds and does.

    `live` has every child that may exist, None for one that doesn't; those that could not be read are in `unread`.
    """

    live: dict[Ref, Manifest | None] = field(default_factory=dict)
    unread: dict[Ref, ApiError] = field(default_factory=dict)
    missing: list[Missing] = field(default_factory=list)
    gateways: list[Manifest] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    retry_s: float | None = None
    created: list[Ref] = field(default_factory=list)
    updated: list[Ref] = field(default_factory=list)
    deleted: list[Ref] = field(default_factory=list)
    replicas: tuple[int, int] | None = None
    store_trouble: str = ""  # why the pool's own user of the shared store can't be made

    def again(self, delay_s: float) -> None:
        """Look again after so long, or earlier."""
        self.retry_s = min(delay_s, self.retry_s or delay_s)

    def refuse(self, ref: Ref, reason: str, message: str) -> None:
        """Note why a child is not as it should be, once."""
        if (refusal := Refusal(ref.kind, ref.name, reason, message)) not in self.refusals:
            self.refusals.append(refusal)
        if reason != INVALID:  # that is the spec's fault, and only its change helps
            self.again(CONFLICT_S if reason == CONFLICT else AGAIN_S)

    def refused(self, ref: Ref, error: ApiError, about: str = "") -> None:
        """Likewise, in the API server's words."""
        self.refuse(ref, _reason(error), f"{about}{error.message}")

    async def unless_refused(self, ref: Ref, reading: Awaitable[Found], otherwise: Found) -> Found:
        """What is read; `otherwise`, and a note, where it may not be. Raises where the API server is in trouble."""
        try:
            return await reading
        except ApiError as error:
            if error.status in TRANSIENT:
                raise
            self.refused(ref, error)
            return otherwise


class Maker:
    """Makes children of pools."""

    def __init__(self, view: View, writes: Writes, metrics: Metrics) -> None:
        self._view = view
        self._writes = writes
        self._metrics = metrics

    async def read(self, pool: Pool, refs: Sequence[Ref], memory: Memory) -> Turn:
        """Every child that may exist, as it is now. Raises where the API server is in trouble."""
        turn = Turn()
        for ref in refs:
            if not self._view.serves(ref, pool.namespace):
                continue
            try:
                if self._view.watches(ref, pool.namespace):
                    turn.live[ref] = await self._view.find(ref, pool.namespace)
                else:
                    turn.live[ref] = await memory.looked_up.find(Reference(ref, pool.namespace), awaited=False)
            except ApiError as error:
                if error.status in TRANSIENT:
                    raise
                turn.unread[ref] = error
        config = Ref("v1", "ConfigMap", "")
        listed = self._view.of_pool(config.api_version, config.kind, pool.namespace, pool.name)
        for one in await turn.unless_refused(config, listed, []):
            turn.live[config._replace(name=one["metadata"]["name"])] = one
        return turn

    async def make(self, pool: Pool, wanted: Sequence[Manifest], turn: Turn, memory: Memory) -> None:
        """Apply what differs, then delete what is no longer wanted. Raises where the API server is in trouble."""
        made: set[Ref] = set()
        for manifest in wanted:
            ref = ref_of(manifest)
            if not self._view.serves(ref, pool.namespace):
                if Missing(ref.kind, "") not in turn.missing:
                    turn.missing.append(Missing(ref.kind, ""))
            elif await self._apply(pool, ref, manifest, turn, memory):
                made.add(ref)
        kept = {ref_of(manifest) for manifest in wanted}
        complete = any(ref.kind in WORKLOADS and ref.name == engine_name(pool) for ref in made)
        # what was ours the spec may come to name itself
        kept |= {reference.ref for reference in references(pool)}
        kept.add(Ref("v1", "ServiceAccount", pool.spec.service_account.name or ""))
        for ref, live in turn.live.items():
            if live is None or ref in kept or not is_owned(pool, live) or "deletionTimestamp" in live["metadata"]:
                continue
            if ref.kind in WORKLOADS and not complete and not pool.spec.existing_pods:
                continue  # pods that serve stay until those that replace them can be made
            if ref.kind in NEEDED and _is_needed(pool, ref, turn):
                continue  # pods of before still need it, also to be made anew
            await self.delete(ref, live, turn, memory)

    async def delete(self, ref: Ref, live: Manifest, turn: Turn, memory: Memory) -> None:
        """Delete a child of the pool's. A refusal is noted."""
        try:
            await self._writes.delete(live, ref)
        except ApiError as error:
            if error.status in TRANSIENT:
                raise
            if error.status not in (404, 409):  # gone, or another object by now
                turn.refused(ref, error, "not deleted: ")
                return
        memory.applied.forget(ref)
        memory.looked_up.forget(Reference(ref, live["metadata"]["namespace"]))
        turn.live[ref] = None
        turn.deleted.append(ref)

    async def _apply(self, pool: Pool, ref: Ref, manifest: Manifest, turn: Turn, memory: Memory) -> bool:
        """Whether the child is there as wanted. A refusal by the API server is noted, and doesn't stop the others."""
        if unread := turn.unread.get(ref):
            turn.refused(ref, unread)
            return False
        try:
            live = turn.live.get(ref) or await self._view.ask(ref, pool.namespace)  # no watch has what is not ours
            if live is not None and not is_owned(pool, live) and not _is_orphan(pool, live):
                if _is_predecessors(pool, live):
                    memory.looked_up.forget(Reference(ref, pool.namespace))  # it may be gone by now
                    turn.refuse(ref, CONFLICT, "is an earlier pool's of this name, and not yet gone")
                else:
                    turn.refuse(ref, "NameTaken", "exists and is not this pool's: delete or rename one of them")
                return False
            if memory.applied.is_current(ref, manifest, live):
                return True
            result = await self._writes.apply(manifest)
        except ApiError as error:
            transient = error.status in TRANSIENT
            self._metrics.applies.labels(ref.kind, "error" if transient else "refused").inc()
            if transient:
                raise
            turn.refused(ref, error)
            return False
        self._metrics.applies.labels(ref.kind, "ok").inc()
        memory.applied.remember(ref, manifest, result)
        memory.looked_up.forget(Reference(ref, pool.namespace))
        turn.live[ref] = result
        if live is None:
            turn.created.append(ref)
        elif fingerprint(ref, live) != fingerprint(ref, result):
            turn.updated.append(ref)
            if ref.kind in WORKLOADS and ref.name == engine_name(pool):
                turn.replicas = (live["spec"].get("replicas", 1), result["spec"].get("replicas", 1))
        return True


def is_owned(pool: Pool, live: Manifest) -> bool:
    """The object is this very pool's."""
    return any(owner["uid"] == pool.uid for owner in live["metadata"].get("ownerReferences", []))


def first(live: Mapping[Ref, Manifest | None], name: str, *kinds: str) -> Manifest | None:
    """The child of this name and one of these kinds, if there is one."""
    return next((one for ref, one in live.items() if one and ref.name == name and ref.kind in kinds), None)


def _is_needed(pool: Pool, ref: Ref, turn: Turn) -> bool:
    """There may be pods that were made when the spec still asked for this child."""
    picker, engine = picker_name(pool), engine_name(pool)
    if ref.name.startswith(picker):
        return not is_rolled_out(first(turn.live, picker, "Deployment"))
    workload = first(turn.live, engine, *WORKLOADS)
    if workload is None or workload.get("kind") == "LeaderWorkerSet":
        return False  # none makes pods; or it does not tell of which template its numbers are
    return not is_rolled_out(workload)


def _is_predecessors(pool: Pool, live: Manifest) -> bool:
    """A pool of this name owned it, that was deleted: the garbage collector is about to."""
    owners = live["metadata"].get("ownerReferences", [])
    return any((one["apiVersion"], one["kind"], one["name"]) == (API_VERSION, KIND, pool.name) for one in owners)


def _is_orphan(pool: Pool, live: Manifest) -> bool:
    """An earlier pool of this name made it and was deleted without it: `kubectl delete --cascade=orphan`."""
    meta = live["metadata"]
    labels = meta.get("labels", {})
    ours = labels.get(POOL_LABEL) == pool.name and labels.get("app.kubernetes.io/managed-by") == MANAGER
    return ours and not meta.get("ownerReferences")


def _reason(error: ApiError) -> str:
    """Whose fault it is that the API server refused a write.

    A manifest that has not its kind's form gets 500 from server-side apply, as does one whose webhook does not answer;
    409 is a quota, or the object, that others wrote at the same moment.
    """
    if error.status >= 500 and not error.message.startswith("failed to "):
        return "ServerError"
    return {403: "Forbidden", 404: "NotFound", 409: CONFLICT}.get(error.status, INVALID)
