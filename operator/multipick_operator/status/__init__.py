"""What to say of a pool: pure functions from what was observed to the status and to Events.

In: a `Pool`, an `Observed`, the last `Status`, the time. Out: the new `Status` and the `Note`s of what changed. The
reconciler calls `status` and `notes`, and writes only what differs.
"""

import re
from collections.abc import Sequence

import msgspec

from multipick_operator.api.pool import Pool
from multipick_operator.api.status import Condition, ModelStatus, PickerStatus, Status
from multipick_operator.children.names import Manifest, endpoint_labels, picker_name, selector_text
from multipick_operator.status.conditions import counts, judge, rollout_done
from multipick_operator.status.observed import Observed
from multipick_operator.status.pods import group_revisions
from multipick_operator.status.url import url

_REASON = re.compile("[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?")  # what the schema takes; other projects' may be anything
MAX_MESSAGE = 1024  # the schema allows 32768; nobody reads that
_NOTHING = Status(
    observed_generation=0,
    replicas=0,
    ready_replicas=0,
    updated_replicas=0,
    available_replicas=0,
    selector="",
    current_revision="",
    update_revision="",
    picker=PickerStatus(ready_replicas=0, service=""),
    model=ModelStatus(name=""),
    url="",
    conditions=(),
)


def status(pool: Pool, seen: Observed, before: Status | None, now: str) -> Status:
    """The status now. `now` is RFC 3339, and used only for conditions that flip."""
    count = counts(pool, seen)
    conditions = _conditions(pool, seen, before, now)
    done = rollout_done(pool, seen)
    known = before.current_revision if before else ""
    return Status(
        observed_generation=pool.generation,
        replicas=count.replicas,
        ready_replicas=count.ready,
        updated_replicas=count.updated,
        available_replicas=count.available,
        selector=selector_text(endpoint_labels(pool)),
        current_revision=seen.revision if done and seen.revision else known,
        update_revision=seen.revision or known,
        group_revision=_group_revision(seen, before, done),
        picker=PickerStatus(
            ready_replicas=(seen.picker or {}).get("status", {}).get("readyReplicas", 0),
            service=f"{pool.namespace}/{picker_name(pool)}:{seen.asked_port}",
        ),
        model=ModelStatus(name=pool.model_name, uri=pool.spec.model.uri or ""),
        url=_url(pool, seen, conditions),
        adapters=tuple(seen.adapters),
        conditions=conditions,
    )


def not_made(manifest: Manifest, before: Status | None, reason: str, message: str, now: str) -> Status:
    """The status of a pool that can't be worked on: what was known stays, but it is not accepted."""
    generation = manifest["metadata"]["generation"]
    known = before.conditions if before else ()
    last = next((one for one in known if one.type == "Accepted"), None)
    accepted = Condition(
        type="Accepted",
        status="False",
        reason=reason,
        message=message[:MAX_MESSAGE],
        last_transition_time=last.last_transition_time if last and last.status == "False" else now,
        observed_generation=generation,
    )
    ready = next((one for one in known if one.type == "Ready"), None)
    if ready is None:
        ready = msgspec.structs.replace(accepted, type="Ready", message=f"Accepted: {accepted.message}")
    others = (one for one in known if one.type not in ("Ready", "Accepted"))
    return msgspec.structs.replace(
        before or _NOTHING, observed_generation=generation, conditions=(ready, accepted, *others)
    )


def last_status(manifest: Manifest) -> Status | None:
    """The status that the object carries; None where there is none, or one of another version's making."""
    try:
        return msgspec.convert(manifest.get("status") or {}, Status)
    except msgspec.ValidationError:
        return None


def superseded(before: Status | None, revision: str) -> str:
    """LeaderWorkerSet's name of the template of the last rollout; empty where that is of this very revision."""
    return before.group_revision if before and before.current_revision != revision else ""


def _group_revision(seen: Observed, before: Status | None, done: bool) -> str:
    found = group_revisions(seen.engine_pods)
    if done and len(found) == 1:
        return found.pop()
    return before.group_revision if before else ""


def _conditions(pool: Pool, seen: Observed, before: Status | None, now: str) -> tuple[Condition, ...]:
    old = {one.type: one for one in before.conditions} if before else {}
    return tuple(
        Condition(
            type=name,
            status=verdict.status,
            reason=verdict.reason[:256] if _REASON.fullmatch(verdict.reason[:256]) else "Unspecified",
            message=verdict.message[:MAX_MESSAGE],
            last_transition_time=old[name].last_transition_time
            if name in old and old[name].status == verdict.status
            else now,
            observed_generation=pool.generation,
        )
        for name, verdict in judge(pool, seen).items()
    )


def _url(pool: Pool, seen: Observed, conditions: Sequence[Condition]) -> str:
    """Only where a gateway has taken the route up."""
    routed = any(one.type == "RouteReady" and one.status == "True" for one in conditions)
    return url(pool, seen.gateways) if routed else ""
