"""Why a pod does not serve, in words: read off the pod's own status."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from multipick_operator.children.names import LWS_REVISION, Manifest
from multipick_operator.children.pod import FETCHING as INIT_STEP

IMAGE = "ImagePullFailed"
CRASH = "CrashLoop"
CONFIG = "ConfigurationError"
CAPACITY = "InsufficientCapacity"
FETCHING = "FetchingWeights"
LOADING = "LoadingModel"
WAITING = "NoReadyReplicas"
NOT_CREATED = "PodsNotCreated"
OVERDUE = "ProgressDeadlineExceeded"

_SEVERITY = (IMAGE, CRASH, CONFIG, CAPACITY, FETCHING, LOADING, WAITING)
FAILURES = frozenset((IMAGE, CRASH, CONFIG, CAPACITY, NOT_CREATED))  # won't pass by waiting
_IMAGE_REASONS = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"}
_CONFIG_REASONS = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
_TAIL = 500  # characters of an engine's last words


class Trouble(NamedTuple):
    """One cause."""

    reason: str
    message: str


def has_ended(pod: Manifest) -> bool:
    """It was evicted, or is over otherwise, and never comes back: another pod takes its place."""
    return pod.get("status", {}).get("phase") in ("Failed", "Succeeded")


def is_leaving(pod: Manifest) -> bool:
    """It is being deleted: no request may go there, whatever its readiness says."""
    return "deletionTimestamp" in pod["metadata"]


def is_ready(pod: Manifest) -> bool:
    """Its Ready condition holds and it stays."""
    conditions = pod.get("status", {}).get("conditions", [])
    return not is_leaving(pod) and any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def ready_for_s(pod: Manifest, now: str) -> float:
    """Seconds since it became ready, by the API server's clock and ours; infinity for one that is not ready."""
    if not is_ready(pod):
        return float("inf")
    since = next(c.get("lastTransitionTime") for c in pod["status"]["conditions"] if c["type"] == "Ready")
    if since is None:
        return float("inf")
    return (datetime.fromisoformat(now) - datetime.fromisoformat(since)).total_seconds()


def is_fetching(pod: Manifest) -> bool:
    """Its init step that fetches the weights runs."""
    found = pod.get("status", {}).get("initContainerStatuses", [])
    return any(one["name"] == INIT_STEP and "running" in one.get("state", {}) for one in found)


def group_revisions(pods: Sequence[Manifest]) -> set[str]:
    """LeaderWorkerSet's names of the templates that these pods were made from; a name follows from what is in it."""
    labels = [pod["metadata"].get("labels", {}) for pod in pods]
    return {one[LWS_REVISION] for one in labels if LWS_REVISION in one}


def worst(pods: Sequence[Manifest]) -> Trouble | None:
    """The most severe cause among pods that should serve and don't, with the number of pods that have it."""
    staying = [pod for pod in pods if not is_leaving(pod)]
    causes = [cause for pod in staying if not is_ready(pod) and (cause := trouble(pod))]
    if not causes:
        return None
    first = min(causes, key=lambda cause: _SEVERITY.index(cause.reason))
    count = sum(cause.reason == first.reason for cause in causes)
    return Trouble(first.reason, f"{count} of {len(staying)} pods: {first.message}")


def is_rolled_out(deployment: Manifest | None) -> bool:
    """Every wanted pod of the Deployment is of its last template and serves, and no other is left."""
    if deployment is None:
        return False
    wanted, status = deployment["spec"].get("replicas", 1), deployment.get("status", {})
    counts = [status.get(name, 0) for name in ("replicas", "updatedReplicas", "availableReplicas")]
    return status.get("observedGeneration", 0) >= deployment["metadata"]["generation"] and set(counts) == {wanted}


def not_created(workload: Manifest | None) -> Trouble | None:
    """Why the workload's pods can't even be made, in the API server's words: Pod Security, a quota, ..."""
    for condition in (workload or {}).get("status", {}).get("conditions", []):
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            return Trouble(NOT_CREATED, condition.get("message", ""))
    return None


def overdue(deployment: Manifest | None) -> Trouble | None:
    """It has made no progress for as long as its deadline, in the words of its controller."""
    for condition in (deployment or {}).get("status", {}).get("conditions", []):
        if condition["type"] == "Progressing" and condition.get("reason") == OVERDUE:
            return Trouble(OVERDUE, condition.get("message", ""))
    return None


def trouble(pod: Manifest) -> Trouble:
    """Why this pod, which is not ready, is not."""
    name, status = pod["metadata"]["name"], pod.get("status", {})
    for condition in status.get("conditions", []):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            said = condition.get("message", "")
            field = " (asked for by storage.cache.size)" if "ephemeral-storage" in said else ""
            return Trouble(CAPACITY, f"{name} fits no node: {said}{field}".strip())
    containers = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
    if is_fetching(pod):
        return Trouble(FETCHING, f"{name} fetches the weights")
    causes = [cause for container in containers if (cause := _container(name, container))]
    if causes:
        return min(causes, key=lambda cause: _SEVERITY.index(cause.reason))
    return Trouble(WAITING, f"{name} is {status.get('phase', 'Pending')}")


def _container(pod: str, status: Manifest) -> Trouble | None:
    state = status.get("state", {})
    if waiting := state.get("waiting"):
        reason, message = waiting.get("reason", ""), waiting.get("message", "")
        if reason in _IMAGE_REASONS:
            return Trouble(IMAGE, f"{pod}: {status.get('image', '')}: {message or reason}")
        if reason in _CONFIG_REASONS:
            return Trouble(CONFIG, f"{pod}: {message or reason}")
        if reason == "CrashLoopBackOff":
            return Trouble(CRASH, f"{pod} {_last_words(status)}")
        return None
    if state.get("terminated", {}).get("exitCode"):
        again = status.get("restartCount", 0) > 0  # the first end is none of a loop yet
        return Trouble(CRASH if again else LOADING, f"{pod} {_last_words(status)}")
    if "running" in state and not status.get("ready"):
        if status.get("restartCount", 0) > 1 and "terminated" in status.get("lastState", {}):
            return Trouble(CRASH, f"{pod} {_last_words(status)}")
        return Trouble(LOADING, f"{pod} is loading") if not status.get("started") else None
    return None


def _last_words(status: Manifest) -> str:
    ended = status.get("state", {}).get("terminated") or status.get("lastState", {}).get("terminated") or {}
    words = f"ended {status.get('restartCount', 0) + bool(status.get('state', {}).get('terminated'))} times"
    if "exitCode" in ended:
        words += f", last with exit code {ended['exitCode']}"
    if ended.get("reason") and ended["reason"] != "Error":
        words += f" ({ended['reason']})"
    return f"{words}: {' '.join(ended['message'][-_TAIL:].split())}" if ended.get("message") else words
