"""What to say of a pool: pure functions from what was observed to the status and to Events.

In: a `Pool`, an `Observed`, the last `Status`, the time. Out: the new `Status` and the `Note`s of what changed. The
reconciler calls `status` and `notes`, and writes only what differs.
"""

import msgspec

from multipick_operator.api.pool import Pool
from multipick_operator.api.status import Condition, ModelStatus, PickerStatus, Status
from multipick_operator.children.names import Manifest, endpoint_labels, picker_name, selector_text
from multipick_operator.children.picker import EXT_PROC_PORT
from multipick_operator.status.conditions import counts, judge, rollout_done
from multipick_operator.status.observed import Observed

MAX_MESSAGE = 1024  # the schema allows 32768; nobody reads that


def status(pool: Pool, seen: Observed, before: Status | None, now: str) -> Status:
    """The status now. `now` is RFC 3339, and used only for conditions that flip."""
    count = counts(pool, seen)
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
        picker=PickerStatus(
            ready_replicas=(seen.picker or {}).get("status", {}).get("readyReplicas", 0),
            service=f"{pool.namespace}/{picker_name(pool)}:{EXT_PROC_PORT}",
        ),
        model=ModelStatus(name=pool.model_name, uri=pool.spec.model.uri or ""),
        url=_url(pool),
        conditions=_conditions(pool, seen, before, now),
    )


def last_status(manifest: Manifest) -> Status | None:
    """The status that the object carries; None where there is none, or one of another version's making."""
    try:
        return msgspec.convert(manifest.get("status") or {}, Status)
    except msgspec.ValidationError:
        return None


def _conditions(pool: Pool, seen: Observed, before: Status | None, now: str) -> tuple[Condition, ...]:
    old = {one.type: one for one in before.conditions} if before else {}
    return tuple(
        Condition(
            type=name,
            status=verdict.status,
            reason=verdict.reason,
            message=verdict.message[:MAX_MESSAGE],
            last_transition_time=old[name].last_transition_time
            if name in old and old[name].status == verdict.status
            else now,
            observed_generation=pool.generation,
        )
        for name, verdict in judge(pool, seen).items()
    )


def _url(pool: Pool) -> str:
    route = pool.spec.routing.gateway.http_route
    return f"http://{route.hostnames[0]}{route.path_prefix}" if route.create and route.hostnames else ""
