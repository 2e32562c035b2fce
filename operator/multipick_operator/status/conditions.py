"""Each condition from what was observed. Positive polarity throughout: True is well."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from multipick_operator.api.pool import Pool
from multipick_operator.children.names import selector_text
from multipick_operator.status import adapters, pickers
from multipick_operator.status.observed import Observed
from multipick_operator.status.pods import (
    CAPACITY,
    FAILURES,
    FETCHING,
    Trouble,
    group_revisions,
    is_ready,
    is_rolled_out,
    not_created,
    overdue,
    worst,
)
from multipick_operator.status.verdict import Verdict


class Counts(NamedTuple):
    """Engine pods (groups) by how far they are."""

    replicas: int = 0
    ready: int = 0
    updated: int = 0
    available: int = 0


def counts(pool: Pool, seen: Observed) -> Counts:
    """From the workload's status; of somebody else's pods, from the pods."""
    if pool.spec.existing_pods:
        staying = [pod for pod in seen.engine_pods if "deletionTimestamp" not in pod["metadata"]]
        ready = sum(is_ready(pod) for pod in staying)
        return Counts(len(staying), ready, len(staying), ready)
    status = (seen.workload or {}).get("status", {})
    ready = status.get("readyReplicas", 0)
    return Counts(
        status.get("replicas", 0), ready, status.get("updatedReplicas", 0), status.get("availableReplicas", ready)
    )


def rollout_done(pool: Pool, seen: Observed) -> bool:
    """Every wanted pod runs the wanted template and serves, and no other is left."""
    if pool.spec.existing_pods:
        return True
    if seen.workload is None:
        return False
    if pool.spec.parallelism.nodes > 1:  # LeaderWorkerSet does not tell of which template its numbers are
        current = seen.superseded not in group_revisions(seen.engine_pods)
    else:
        observed = seen.workload.get("status", {}).get("observedGeneration", 0)
        current = observed >= seen.workload["metadata"].get("generation", 0)
    return current and set(counts(pool, seen)) == {pool.spec.replicas}


def accepted(pool: Pool, seen: Observed) -> Verdict:
    """The spec can be carried out."""
    spec = pool.spec
    if seen.refusals:
        told = "; ".join(f"{f'{one.kind} {one.name}'.strip()}: {one.message}" for one in seen.refusals)
        return Verdict("False", seen.refusals[0].reason, told)
    if seen.sharing:
        message = f"its pods are also those of {', '.join(seen.sharing)}: neither picker sees the other's load"
        return Verdict("False", "PodsShared", message)
    if max(spec.routing.picker.replicas, spec.routing.picker.workers) > 1 and not seen.shared_state:
        message = "several pickers or workers need shared state: give index.url, or install the operator with a Valkey"
        return Verdict("False", "InvalidSpec", message)
    if seen.image is None and not spec.existing_pods:
        message = f"no default image for engine {spec.engine.type.value}: give engine.image"
        return Verdict("False", "UnsupportedEngine", message)
    if any(one.kind == "LeaderWorkerSet" and not one.name for one in seen.missing):
        message = "parallelism.nodes above 1 needs LeaderWorkerSet, which is not installed in this cluster"
        return Verdict("False", "MultiNodeUnavailable", message)
    return Verdict("True", "Accepted", "")


def resolved_refs(pool: Pool, seen: Observed) -> Verdict:
    """What the spec names exists."""
    named = [one for one in seen.missing if one.name]
    if named:
        reasons = {"PersistentVolumeClaim": "PVCNotFound"}
        listed = ", ".join(f"{one.kind} {one.name}" for one in named)
        return Verdict("False", reasons.get(named[0].kind, f"{named[0].kind}NotFound"), f"not found: {listed}")
    optional = {
        "DestinationRule": True,
        "InferencePool": not _wants_route(pool),
        "PodMonitor": not pool.spec.monitoring.pod_monitor.enabled,
    }
    kinds = [one.kind for one in seen.missing if not optional.get(one.kind)]
    if kinds:
        return Verdict("False", "KindNotInstalled", f"not installed in this cluster: {', '.join(kinds)}")
    return Verdict("True", "ResolvedRefs", "")


def available(pool: Pool, seen: Observed) -> Verdict:
    """At least one engine serves."""
    count = counts(pool, seen)
    if count.available:
        return Verdict("True", "MinimumReplicasAvailable", f"{count.available} of {_wanted(pool, count)} serve")
    if (existing := pool.spec.existing_pods) and not count.replicas:
        labels = selector_text(existing.match_labels)
        return Verdict("False", "NoPods", f"no pod of namespace {pool.namespace} has the labels {labels}")
    if pool.spec.replicas == 0 and not existing:
        return Verdict("False", "ScaledToZero", "spec.replicas is 0")
    if cause := _engine_trouble(seen):
        return Verdict("False", cause.reason, cause.message)
    return Verdict("False", "NoReadyReplicas", f"none of {count.replicas} engine pods is ready")


def progressing(pool: Pool, seen: Observed) -> Verdict:
    """The pods are what the spec says, or get there."""
    if pool.spec.suspend:
        return Verdict("False", "Paused", "spec.suspend: the operator leaves the children as they are")
    if pool.spec.rollout.paused:
        return Verdict("False", "Paused", "spec.rollout.paused")
    if rollout_done(pool, seen):
        return _picker_progress(seen)
    count = counts(pool, seen)
    state = f"{count.updated} of {pool.spec.replicas} updated, {count.available} serve"
    cause = _engine_trouble(seen)
    if cause and cause.reason == FETCHING:
        state = f"{state}; {cause.message}"
    if cause and cause.reason in FAILURES:
        return Verdict("False", cause.reason, f"{state}; {cause.message}{_advice(pool, seen, cause.reason)}")
    if late := overdue(seen.workload):
        return Verdict("False", late.reason, f"{state}; {late.message}")
    if failed := _picker_failure(seen):
        return _failed_pickers(failed)
    return Verdict("True", "RolloutInProgress", state)


def _engine_trouble(seen: Observed) -> Trouble | None:
    cause = not_created(seen.workload) or worst(seen.engine_pods)
    if cause and cause.reason == FETCHING and seen.fetching:
        return Trouble(cause.reason, f"{cause.message}; {'; '.join(seen.fetching)}")
    return cause


def _picker_progress(seen: Observed) -> Verdict:
    """The engines are as they should be; so may be the pickers."""
    if failed := _picker_failure(seen):
        return _failed_pickers(failed)
    if seen.picker and not is_rolled_out(seen.picker):
        return Verdict("True", "RolloutInProgress", "the pickers are being replaced")
    return Verdict("True", "RolloutComplete", "")


def _picker_failure(seen: Observed) -> Trouble | None:
    """Why the pickers' last version can't be had, or is not ready when it should have been for long."""
    if is_rolled_out(seen.picker):
        return None
    cause = not_created(seen.picker) or worst(seen.picker_pods)
    return cause if cause and cause.reason in FAILURES else overdue(seen.picker)


def _failed_pickers(failed: Trouble) -> Verdict:
    return Verdict("False", "PickerRolloutFailed", f"{failed.message}; pickers that are ready go on serving")


def picker_ready(pool: Pool, seen: Observed) -> Verdict:
    """At least one picker answers."""
    ready = (seen.picker or {}).get("status", {}).get("readyReplicas", 0)
    if ready:
        said = f"{ready} of {pool.spec.routing.picker.replicas} ready"
        failed = _picker_failure(seen)
        return Verdict("True", "PickerReady", f"{said}; the next version fails: {failed.message}" if failed else said)
    if cause := not_created(seen.picker) or worst(seen.picker_pods):
        reason = "NoReadyReplicas" if cause.reason == "LoadingModel" else cause.reason
        return Verdict("False", reason, cause.message)
    return Verdict("False", "NoReadyReplicas", "no picker is ready")


def route_ready(pool: Pool, seen: Observed) -> Verdict | None:
    """What gateways say of the route and of the Gateway API object; None: the pool asks for no route."""
    if not _wants_route(pool):
        return None
    if any(one.kind in ("HTTPRoute", "InferencePool") and not one.name for one in seen.missing):
        return Verdict("False", "KindNotInstalled", "the Gateway API or its inference extension is not installed")
    for found, kind in ((seen.http_route, "HTTPRoute"), (seen.inference_pool, "InferencePool")):
        parents = [one for one in (found or {}).get("status", {}).get("parents", []) if _is_named(pool, one)]
        if not parents:
            return Verdict("False", "Pending", f"no gateway has taken up the {kind} yet")
        for parent in parents:
            name = parent.get("parentRef", {}).get("name", "")
            for condition in parent.get("conditions", []):
                if condition["type"] in ("Accepted", "ResolvedRefs") and condition["status"] != "True":
                    message = f"Gateway {name} on the {kind}: {condition.get('message') or condition['type']}"
                    return Verdict("False", condition.get("reason") or "Rejected", message)
    if seen.shadowing:
        return Verdict("False", "Shadowed", f"the route of pool {seen.shadowing} asks for the same and is older")
    return Verdict("True", "Accepted", "")


def _is_named(pool: Pool, parent: Mapping[str, Any]) -> bool:
    """The route names this Gateway: what others say of the pool is none of its business."""
    ref = parent.get("parentRef", {})
    named = {(one.namespace or pool.namespace, one.name) for one in pool.spec.routing.gateway.http_route.parent_refs}
    return (ref.get("namespace", pool.namespace), ref.get("name")) in named


def index_ready(pool: Pool, seen: Observed) -> Verdict:
    """The pickers know what the engines cache, and share it. Serving goes on without."""
    found = pickers.index_ready(seen.reports, seen.store)
    if seen.store_trouble and found.reason in ("RedisUnreachable", "NotReported"):
        message = f"the pool's user of the store at {seen.store} can't be made: {seen.store_trouble}"
        return Verdict("False", "StoreUserFailed", message)
    if found.reason == "RedisUnreachable":
        return found
    if not pool.spec.engine.kv_events.enabled:
        return Verdict("False", "EventsDisabled", "engine.kvEvents is off: pickers go by their own routing history")
    if found.status == "False" and seen.warming:
        return Verdict("Unknown", "Warming", found.message)
    return found


def engines_match(pool: Pool, seen: Observed) -> Verdict:
    """The engines are what requests, tokenizer and spec take them for. They may serve all the same."""
    return pickers.engines_match(seen.reports)


def prefixes_spread(pool: Pool, seen: Observed) -> Verdict:
    """No prefix is hot. Pickers see to it themselves; who sizes the pool may want to know."""
    return pickers.prefixes_spread(seen.reports)


def gateways_match(pool: Pool, seen: Observed) -> Verdict:
    """Gateways and pickers speak the same. One that doesn't may not be the pool's own, so the pool stays Ready."""
    return pickers.gateways_match(seen.reports)


def scaling_active(pool: Pool, seen: Observed) -> Verdict | None:
    """The autoscaler's own word; None: the pool asks for none."""
    if pool.spec.autoscaling is None:
        return None
    if any(one.kind == "ScaledObject" and not one.name for one in seen.missing):
        return Verdict("False", "KindNotInstalled", "KEDA is not installed in this cluster")
    for name in ("ScalingActive", "Ready"):  # HorizontalPodAutoscaler, ScaledObject
        for condition in (seen.scaler or {}).get("status", {}).get("conditions", []):
            if condition["type"] == name:
                reason = condition.get("reason") or name
                status = condition["status"] if condition["status"] in ("True", "False") else "Unknown"
                return Verdict(status, reason, condition.get("message") or "")
    return Verdict("Unknown", "Pending", "the autoscaler has not looked yet")


def adapters_loaded(pool: Pool, seen: Observed) -> Verdict | None:
    """Every ready pod has the adapters that it should, and no other; None: the pool has none."""
    pods = {one.pod for one in adapters.engines_of(pool, seen.engine_pods)}
    return adapters.verdict(pool, seen.adapters, len(pods))


Judge = Callable[[Pool, Observed], Verdict | None]
JUDGES: dict[str, Judge] = {
    "Accepted": accepted,
    "ResolvedRefs": resolved_refs,
    "Available": available,
    "Progressing": progressing,
    "PickerReady": picker_ready,
    "RouteReady": route_ready,
    "IndexReady": index_ready,
    "EnginesMatch": engines_match,
    "PrefixesSpread": prefixes_spread,
    "GatewaysMatch": gateways_match,
    "ScalingActive": scaling_active,
    "AdaptersLoaded": adapters_loaded,
}
NEEDED = ("Available", "PickerReady", "RouteReady")


def judge(pool: Pool, seen: Observed) -> dict[str, Verdict]:
    """All conditions that apply, `Ready` first: requests are served. What is wrong else has a condition of its own.

    Where they are not served, a spec that can't be carried out is the first cause to name.
    """
    found = {name: verdict for name, of in JUDGES.items() if (verdict := of(pool, seen))}
    if all(found[name].status == "True" for name in NEEDED if name in found):
        return {"Ready": Verdict("True", "Serving", found["Available"].message)} | found
    cause = next(name for name in ("Accepted", *NEEDED) if name in found and found[name].status != "True")
    return {"Ready": Verdict("False", found[cause].reason, f"{cause}: {found[cause].message}")} | found


def _wants_route(pool: Pool) -> bool:
    return pool.spec.routing.gateway.http_route.create


def _wanted(pool: Pool, count: Counts) -> int:
    return count.replicas if pool.spec.existing_pods else pool.spec.replicas


def _advice(pool: Pool, seen: Observed, reason: str) -> str:
    """A rollout that waits for a spare accelerator that will never come is the commonest way to be stuck."""
    workload = seen.workload or {}
    surging = workload.get("status", {}).get("replicas", 0) > pool.spec.replicas
    if reason == CAPACITY and surging and pool.spec.rollout.max_surge not in (0, "0%"):
        return "; without spare capacity set rollout.maxSurge: 0 and rollout.maxUnavailable: 1"
    return ""
