"""Events: what changed between two statuses, never what merely is. One reconcile without a change makes none."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from multipick_operator.api.pool import Pool
from multipick_operator.api.status import Status
from multipick_operator.children import Ref
from multipick_operator.children.pod import grace_seconds


class Note(NamedTuple):
    """An Event to come."""

    type: str  # Normal, Warning
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Changes:
    """What one reconcile did to the children."""

    created: Sequence[Ref] = ()
    updated: Sequence[Ref] = ()
    deleted: Sequence[Ref] = ()
    replicas: tuple[int, int] | None = None  # of the engines, before and after, where both are known


# a condition that turns to this reason -> the warning; "" stands for any reason with status False
_WARNINGS: Mapping[tuple[str, str], str] = {
    ("Accepted", "ServerError"): "ServerError",
    ("Accepted", ""): "InvalidSpec",
    ("ResolvedRefs", ""): "RefNotFound",
    ("RouteReady", ""): "RouteRejected",
    ("IndexReady", ""): "IndexDegraded",
    ("EnginesMatch", ""): "EngineMismatch",
    ("PrefixesSpread", ""): "HotPrefix",
    ("GatewaysMatch", ""): "GatewayMismatch",
    ("ScalingActive", ""): "ScalingInactive",
    ("AdaptersLoaded", "LoadFailed"): "AdapterFailed",
    ("Progressing", "ProgressDeadlineExceeded"): "RolloutStuck",
    ("Progressing", "InsufficientCapacity"): "InsufficientCapacity",
    ("Progressing", "ImagePullFailed"): "ImagePullFailed",
    ("Progressing", "CrashLoop"): "ModelLoadFailed",
    ("Progressing", "ConfigurationError"): "ModelLoadFailed",
    ("Progressing", "PodsNotCreated"): "PodsNotCreated",
    ("Progressing", "PickerRolloutFailed"): "PickerFailed",
    ("PickerReady", "PodsNotCreated"): "PickerFailed",
    ("PickerReady", "ImagePullFailed"): "PickerFailed",
    ("PickerReady", "CrashLoop"): "PickerFailed",
    ("PickerReady", "ConfigurationError"): "PickerFailed",
}
_QUIET = {"Pending", "EventsDisabled", "Conflict"}


def notes(pool: Pool, before: Status | None, after: Status, changes: Changes) -> list[Note]:
    """All Events of one reconcile, at most one a child verb and one a condition."""
    found = [
        Note("Normal", reason, ", ".join(f"{ref.kind} {ref.name}" for ref in refs))
        for reason, refs in (
            ("ChildCreated", changes.created),
            ("ChildUpdated", changes.updated),
            ("ChildDeleted", changes.deleted),
        )
        if refs
    ]
    found += _scaled(pool, changes)
    return found + _rollout(before, after) + _warnings(before, after) + _ready(before, after)


def _scaled(pool: Pool, changes: Changes) -> list[Note]:
    if changes.replicas is None or changes.replicas[0] == changes.replicas[1]:
        return []
    old, new = changes.replicas
    if new > old:
        return [Note("Normal", "ScaledUp", f"{old} -> {new} replicas")]
    return [Note("Normal", "ScaledDown", f"{old} -> {new} replicas; each has {grace_seconds(pool)} s to drain")]


def _rollout(before: Status | None, after: Status) -> list[Note]:
    found = []
    if before and before.update_revision and before.update_revision != after.update_revision:
        found.append(Note("Normal", "RolloutStarted", f"revision {after.update_revision}"))
    known = before.current_revision if before else ""
    if after.current_revision and after.current_revision != known:
        found.append(Note("Normal", "RolloutComplete", f"revision {after.current_revision}"))
    return found


def _warnings(before: Status | None, after: Status) -> list[Note]:
    old = {one.type: one for one in before.conditions} if before else {}
    found = []
    for one in after.conditions:
        was = old.get(one.type)
        if one.status != "False" or (was and (was.status, was.reason) == (one.status, one.reason)):
            continue
        reason = _WARNINGS.get((one.type, one.reason)) or _WARNINGS.get((one.type, ""))
        if reason and one.reason not in _QUIET:
            found.append(Note("Warning", reason, one.message))
    return found


def _ready(before: Status | None, after: Status) -> list[Note]:
    def state(status: Status | None) -> str:
        return next((one.status for one in status.conditions if one.type == "Ready"), "") if status else ""

    if state(after) == "True" and state(before) != "True":
        return [Note("Normal", "Ready", "requests are served")]
    return []
