from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from multipick_operator.api.pool import Pool
from multipick_operator.api.status import CONDITION_TYPES, Condition, Status
from multipick_operator.children import Ref
from multipick_operator.children.tls import TLS_PORT
from multipick_operator.status import last_status, status, superseded
from multipick_operator.status.observed import Missing, Observed, Refusal
from multipick_operator.status.pickers import Endpoints, HotPrefix, Mismatch, PickerReport
from multipick_operator.status.pods import is_ready, ready_for_s, trouble
from multipick_operator.status.transitions import Changes, Note, notes

MakePool = Callable[..., Pool]
NOW, LATER = "2026-11-22T08:00:00Z", "2026-11-22T09:00:00Z"
PICKER = {
    "metadata": {"generation": 1},
    "spec": {"replicas": 1},
    "status": {
        "observedGeneration": 1,
        "replicas": 1,
        "updatedReplicas": 1,
        "readyReplicas": 1,
        "availableReplicas": 1,
    },
}
# the old one serves, the new one does not yet
REPLACED = PICKER | {
    "metadata": {"generation": 2},
    "status": {
        "observedGeneration": 2,
        "replicas": 2,
        "updatedReplicas": 1,
        "readyReplicas": 1,
        "availableReplicas": 1,
    },
}


def workload(replicas: int, **status: int) -> dict[str, Any]:
    full = {"replicas": replicas, "readyReplicas": replicas, "updatedReplicas": replicas, "availableReplicas": replicas}
    return {"metadata": {"generation": 2}, "status": {"observedGeneration": 2} | full | status}


def serving(**more: Any) -> Observed:
    return replace(Observed(workload=workload(1), picker=PICKER, image="i", revision="r1"), **more)


def pod(*containers: dict[str, Any], name: str = "p-1", **status: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "status": {"phase": "Pending", "containerStatuses": list(containers)} | status}


def waiting(reason: str, message: str = "", **more: Any) -> dict[str, Any]:
    return {"name": "engine", "image": "img", "state": {"waiting": {"reason": reason, "message": message}}} | more


def ended(code: int, message: str = "", reason: str = "Error") -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "message": message, "reason": reason}}


WELL = PickerReport(endpoints=Endpoints(ready=2, checked=2, modes={"exact": 2}))
replaced = msgspec.structs.replace


def silent(report: PickerReport) -> PickerReport:
    found = [Mismatch("events", "10.0.0.1:8000", "no KV events can be had: the engine has its events off")]
    endpoints = Endpoints(ready=2, checked=2, modes={"exact": 1, "blind": 1})
    return replaced(report, endpoints=endpoints, mismatches=found)


UNSCHEDULABLE = pod(
    conditions=[{"type": "PodScheduled", "status": "False", "message": "0/1 nodes: Insufficient nvidia.com/gpu"}]
)
FAILED = workload(0) | {"status": {"conditions": [{"type": "ReplicaFailure", "status": "True", "message": "quota"}]}}
PULLING = pod(waiting("ImagePullBackOff", "not found"))
CRASHING = pod(waiting("CrashLoopBackOff", restartCount=4, lastState=ended(1, "CUDA out of memory")))
NO_SECRET = pod(waiting("CreateContainerConfigError", 'secret "hf" not found'))
FETCHING = pod(initContainerStatuses=[{"name": "weights", "state": {"running": {}}, "ready": False, "restartCount": 0}])
FETCH_FAILED = pod(
    initContainerStatuses=[
        {"name": "weights", "restartCount": 2, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}
        | {"lastState": ended(1, "RepositoryNotFoundError: 404")}
    ]
)
LATE = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "timed out"}
LOADING = pod({"name": "engine", "state": {"running": {}}, "ready": False, "started": False, "restartCount": 0})


def condition(found: Status, kind: str) -> Condition:
    return next(one for one in found.conditions if one.type == kind)


def outcome(pool: Pool, seen: Observed, kind: str) -> tuple[str, str]:
    one = condition(status(pool, seen, None, NOW), kind)
    return one.status, one.reason


def test_a_pool_that_serves_is_ready(make_pool: MakePool) -> None:
    found = status(make_pool(), serving(), None, NOW)
    assert {one.type: one.status for one in found.conditions} == {
        "Ready": "True",
        "Accepted": "True",
        "ResolvedRefs": "True",
        "Available": "True",
        "Progressing": "True",
        "PickerReady": "True",
        "IndexReady": "Unknown",
        "EnginesMatch": "Unknown",
        "PrefixesSpread": "Unknown",
        "GatewaysMatch": "Unknown",
    }
    assert {one.type for one in found.conditions} <= set(CONDITION_TYPES)
    assert found.selector == "multipick.dev/pool=p,multipick.dev/role=engine"
    assert (found.current_revision, found.update_revision) == ("r1", "r1")
    assert all(one.observed_generation == 3 for one in found.conditions)


@pytest.mark.parametrize(
    ("spec", "seen", "kind", "expected"),
    [
        (
            {},
            serving(refusals=[Refusal("Deployment", "e", "InvalidSpec", "bad")]),
            "Accepted",
            ("False", "InvalidSpec"),
        ),
        ({"routing": {"picker": {"replicas": 2}}}, serving(), "Accepted", ("False", "InvalidSpec")),
        ({"routing": {"picker": {"workers": 2}}}, serving(), "Accepted", ("False", "InvalidSpec")),
        ({}, serving(image=None), "Accepted", ("False", "UnsupportedEngine")),
        (
            {"parallelism": {"tensor": 2, "nodes": 2}},
            serving(missing=[Missing("LeaderWorkerSet", "")]),
            "Accepted",
            ("False", "MultiNodeUnavailable"),
        ),
        ({}, serving(missing=[Missing("Secret", "hf")]), "ResolvedRefs", ("False", "SecretNotFound")),
        ({}, serving(missing=[Missing("PersistentVolumeClaim", "c")]), "ResolvedRefs", ("False", "PVCNotFound")),
        ({}, serving(missing=[Missing("Gateway", "g")]), "ResolvedRefs", ("False", "GatewayNotFound")),
        (
            {"monitoring": {"podMonitor": {"enabled": True}}},
            serving(missing=[Missing("PodMonitor", "")]),
            "ResolvedRefs",
            ("False", "KindNotInstalled"),
        ),
        ({}, serving(missing=[Missing("PodMonitor", "")]), "ResolvedRefs", ("True", "ResolvedRefs")),
        ({}, serving(missing=[Missing("InferencePool", "")]), "ResolvedRefs", ("True", "ResolvedRefs")),
        ({}, serving(missing=[Missing("ConfigMap", "m")]), "ResolvedRefs", ("False", "ConfigMapNotFound")),
        ({}, serving(sharing=["b"]), "Accepted", ("False", "PodsShared")),
        ({"existingPods": {"matchLabels": {"app": "x"}}}, serving(), "Available", ("False", "NoPods")),
        ({"replicas": 0}, serving(workload=workload(0)), "Available", ("False", "ScaledToZero")),
        ({}, serving(workload=workload(0)), "Available", ("False", "NoReadyReplicas")),
        (
            {},
            serving(workload=workload(0), engine_pods=[UNSCHEDULABLE]),
            "Available",
            ("False", "InsufficientCapacity"),
        ),
        ({}, serving(workload=workload(0), engine_pods=[PULLING]), "Available", ("False", "ImagePullFailed")),
        ({}, serving(workload=workload(0), engine_pods=[FETCHING]), "Available", ("False", "FetchingWeights")),
        ({}, serving(workload=workload(0), engine_pods=[FETCHING]), "Progressing", ("True", "RolloutInProgress")),
        ({}, serving(workload=workload(0), engine_pods=[FETCH_FAILED]), "Available", ("False", "CrashLoop")),
        ({}, serving(workload=workload(0), engine_pods=[CRASHING]), "Available", ("False", "CrashLoop")),
        ({}, serving(workload=workload(0), engine_pods=[NO_SECRET]), "Available", ("False", "ConfigurationError")),
        ({}, serving(workload=workload(0), engine_pods=[LOADING]), "Available", ("False", "LoadingModel")),
        ({"replicas": 2}, serving(engine_pods=[UNSCHEDULABLE]), "Available", ("True", "MinimumReplicasAvailable")),
        ({"replicas": 2}, serving(engine_pods=[UNSCHEDULABLE]), "Progressing", ("False", "InsufficientCapacity")),
        ({"replicas": 2}, serving(engine_pods=[LOADING]), "Progressing", ("True", "RolloutInProgress")),
        ({}, serving(), "Progressing", ("True", "RolloutComplete")),
        ({"suspend": True}, serving(), "Progressing", ("False", "Paused")),
        ({"rollout": {"paused": True}}, serving(), "Progressing", ("False", "Paused")),
        ({}, serving(picker=None), "PickerReady", ("False", "NoReadyReplicas")),
        ({}, serving(picker=REPLACED), "PickerReady", ("True", "PickerReady")),
        ({}, serving(picker=REPLACED), "Progressing", ("True", "RolloutInProgress")),
        ({}, serving(picker=REPLACED, picker_pods=[PULLING]), "Ready", ("True", "Serving")),
        ({}, serving(picker=REPLACED, picker_pods=[PULLING]), "PickerReady", ("True", "PickerReady")),
        ({}, serving(picker=REPLACED, picker_pods=[PULLING]), "Progressing", ("False", "PickerRolloutFailed")),
        ({}, serving(workload=FAILED), "Available", ("False", "PodsNotCreated")),
        ({}, serving(workload=FAILED), "Progressing", ("False", "PodsNotCreated")),
        ({}, serving(refusals=[Refusal("Service", "s", "Forbidden", "no")]), "Ready", ("True", "Serving")),
        ({}, serving(picker=None, picker_pods=[PULLING]), "PickerReady", ("False", "ImagePullFailed")),
        ({"engine": {"kvEvents": {"enabled": False}}}, serving(), "IndexReady", ("False", "EventsDisabled")),
        (
            {},
            serving(reports=[WELL, replaced(WELL, state="loads: away")]),
            "IndexReady",
            ("False", "RedisUnreachable"),
        ),
        (
            {},
            serving(reports=[silent(WELL)], warming=True),
            "IndexReady",
            ("Unknown", "Warming"),
        ),
        (
            {"engine": {"kvEvents": {"enabled": False}}},
            serving(reports=[replaced(WELL, state="loads: away")], warming=True),
            "IndexReady",
            ("False", "RedisUnreachable"),
        ),
        (
            {"engine": {"kvEvents": {"enabled": False}}},
            serving(reports=[WELL]),
            "IndexReady",
            ("False", "EventsDisabled"),
        ),
        ({}, serving(reports=[silent(WELL)]), "IndexReady", ("False", "NoEvents")),
        ({}, serving(reports=[silent(WELL)], warming=True), "EnginesMatch", ("True", "EnginesMatch")),
        (
            {},
            serving(reports=[WELL], warming=True),
            "IndexReady",
            ("True", "EventsArriving"),
        ),
        ({"autoscaling": {"maxReplicas": 2}}, serving(), "ScalingActive", ("Unknown", "Pending")),
        (
            {"autoscaling": {"maxReplicas": 2}},
            serving(
                scaler={
                    "status": {
                        "conditions": [{"type": "ScalingActive", "status": "False", "reason": "FailedGetPodsMetric"}]
                    }
                }
            ),
            "ScalingActive",
            ("False", "FailedGetPodsMetric"),
        ),
        (
            {"autoscaling": {"maxReplicas": 2, "backend": "KEDA", "prometheusUrl": "http://p"}},
            serving(missing=[Missing("ScaledObject", "")]),
            "ScalingActive",
            ("False", "KindNotInstalled"),
        ),
    ],
)
def test_each_reason_is_reached(
    make_pool: MakePool, spec: dict[str, Any], seen: Observed, kind: str, expected: tuple[str, str]
) -> None:
    assert outcome(make_pool(**spec), seen, kind) == expected


def test_a_deadline_that_passed_is_said(make_pool: MakePool) -> None:
    late = workload(1, availableReplicas=0)
    late["status"]["conditions"] = [{"type": "Progressing", "reason": "ProgressDeadlineExceeded", "message": "m"}]
    assert outcome(make_pool(), serving(workload=late), "Progressing") == ("False", "ProgressDeadlineExceeded")


def test_pickers_that_never_become_ready_are_said_to_have_failed_also_while_engines_roll(make_pool: MakePool) -> None:
    late = REPLACED | {"status": REPLACED["status"] | {"conditions": [LATE]}}
    for engines in (workload(1), workload(1, updatedReplicas=0)):
        seen = serving(picker=late, workload=engines)
        assert outcome(make_pool(), seen, "Progressing") == ("False", "PickerRolloutFailed")
        assert outcome(make_pool(), seen, "Ready") == ("True", "Serving")
    told = condition(status(make_pool(), serving(picker=late), None, NOW), "PickerReady")
    assert told.message == "1 of 1 ready; the next version fails: timed out"


def test_a_rollout_without_a_spare_gpu_says_what_to_set(make_pool: MakePool) -> None:
    surge = workload(2, updatedReplicas=1, availableReplicas=1)
    found = status(make_pool(), serving(workload=surge, engine_pods=[UNSCHEDULABLE]), None, NOW)
    assert "rollout.maxUnavailable: 1" in condition(found, "Progressing").message
    assert "Insufficient nvidia.com/gpu" in condition(found, "Progressing").message


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"status": "False", "reason": "Trigger Error!"}, ("False", "Unspecified")),
        ({"status": "False", "reason": ""}, ("False", "ScalingActive")),
        ({"status": "no", "reason": "R", "message": None}, ("Unknown", "R")),
        ({"status": "True", "reason": "x" * 2000}, ("True", "x" * 256)),
    ],
)
def test_what_other_projects_say_never_freezes_the_status(
    make_pool: MakePool, said: dict[str, Any], expected: tuple[str, str]
) -> None:
    seen = serving(scaler={"status": {"conditions": [{"type": "ScalingActive"} | said]}})
    assert outcome(make_pool(autoscaling={"maxReplicas": 2}), seen, "ScalingActive") == expected
    found = status(make_pool(autoscaling={"maxReplicas": 2}), seen, None, NOW)
    assert last_status({"status": msgspec.to_builtins(found)}) == found


def route(gateway: str = "g", **conditions: str) -> dict[str, Any]:
    listed = [{"type": name, "status": value, "reason": "R"} for name, value in conditions.items()]
    return {"status": {"parents": [{"parentRef": {"name": gateway}, "conditions": listed}]}}


def beside(first: dict[str, Any], gateway: str, **conditions: str) -> dict[str, Any]:
    """With what a Gateway says that the route does not name."""
    return {"status": {"parents": first["status"]["parents"] + route(gateway, **conditions)["status"]["parents"]}}


GOOD = route(Accepted="True", ResolvedRefs="True")


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (serving(), ("False", "Pending")),
        (serving(http_route=GOOD), ("False", "Pending")),
        (serving(http_route=GOOD, inference_pool=GOOD), ("True", "Accepted")),
        (serving(http_route=route(Accepted="False"), inference_pool=GOOD), ("False", "R")),
        (serving(http_route=GOOD, inference_pool=route(ResolvedRefs="False")), ("False", "R")),
        (serving(missing=[Missing("HTTPRoute", "")]), ("False", "KindNotInstalled")),
        (serving(http_route=GOOD, inference_pool=beside(GOOD, "other", Accepted="False")), ("True", "Accepted")),
        (serving(http_route=GOOD, inference_pool=route("other", Accepted="True")), ("False", "Pending")),
    ],
)
def test_the_route_is_as_ready_as_gateways_say(make_pool: MakePool, seen: Observed, expected: tuple[str, str]) -> None:
    pool = make_pool(routing={"gateway": {"httpRoute": {"create": True, "parentRefs": [{"name": "g"}]}}})
    assert outcome(pool, seen, "RouteReady") == expected
    assert outcome(pool, seen, "Ready")[0] == expected[0]


def test_a_pool_without_a_route_has_no_such_condition(make_pool: MakePool) -> None:
    assert "RouteReady" not in {one.type for one in status(make_pool(), serving(), None, NOW).conditions}


def test_a_degraded_index_does_not_stop_serving(make_pool: MakePool) -> None:
    seen = serving(reports=[replaced(WELL, state="loads: away")])
    assert outcome(make_pool(), seen, "IndexReady")[0] == "False"
    assert outcome(make_pool(), seen, "Ready") == ("True", "Serving")


def test_why_the_pools_user_of_the_store_can_not_be_made_is_told_where_pickers_have_no_store(
    make_pool: MakePool,
) -> None:
    trouble = {"store": "valkey:6379", "store_trouble": "certificate verify failed"}
    denied = serving(reports=[replaced(WELL, state="loads: denied")], **trouble)
    found = condition(status(make_pool(), denied, None, NOW), "IndexReady")
    message = "the pool's user of the store at valkey:6379 can't be made: certificate verify failed"
    assert (found.status, found.reason, found.message) == ("False", "StoreUserFailed", message)
    assert outcome(make_pool(), serving(**trouble), "IndexReady") == ("False", "StoreUserFailed")
    assert outcome(make_pool(), serving(reports=[WELL], **trouble), "IndexReady") == ("True", "EventsArriving")


def test_the_reason_of_what_is_lacking_is_ready_s_reason(make_pool: MakePool) -> None:
    found = status(make_pool(), serving(workload=workload(0), engine_pods=[CRASHING]), None, NOW)
    ready = condition(found, "Ready")
    assert (ready.status, ready.reason) == ("False", "CrashLoop")
    assert "CUDA out of memory" in ready.message
    assert "exit code 1" in ready.message


def test_the_gravest_cause_is_named_with_its_number(make_pool: MakePool) -> None:
    pods: Sequence[dict[str, Any]] = [LOADING, UNSCHEDULABLE, PULLING]
    found = status(make_pool(replicas=3), serving(workload=workload(0), engine_pods=pods), None, NOW)
    assert condition(found, "Available").message.startswith("1 of 3 pods: p-1: img: not found")


def test_a_leaving_pod_is_neither_ready_nor_a_cause(make_pool: MakePool) -> None:
    leaving = pod(conditions=[{"type": "Ready", "status": "True"}])
    leaving["metadata"]["deletionTimestamp"] = NOW
    assert not is_ready(leaving)
    assert outcome(make_pool(), serving(workload=workload(0), engine_pods=[leaving]), "Available") == (
        "False",
        "NoReadyReplicas",
    )


def test_existing_pods_are_counted_one_by_one(make_pool: MakePool) -> None:
    pool = make_pool(existingPods={"matchLabels": {"app": "x"}})
    good = pod(conditions=[{"type": "Ready", "status": "True"}], name="a")
    found = status(pool, Observed(picker=PICKER, engine_pods=[good, LOADING]), None, NOW)
    assert (found.replicas, found.ready_replicas) == (2, 1)
    assert condition(found, "Ready").status == "True"
    assert found.selector == "app=x"


def test_the_pickers_service_is_told_with_the_port_that_gateways_ask(make_pool: MakePool) -> None:
    asked = [status(make_pool(), serving(**port), None, NOW).picker.service for port in ({}, {"asked_port": TLS_PORT})]
    assert asked == ["ml/p-epp:9002", "ml/p-epp:9443"]


def test_a_pod_knows_how_long_it_has_been_ready() -> None:
    ready = pod(conditions=[{"type": "Ready", "status": "True", "lastTransitionTime": NOW}])
    assert ready_for_s(ready, LATER) == 3600
    assert ready_for_s(pod(conditions=[{"type": "Ready", "status": "True"}]), LATER) == float("inf")
    assert ready_for_s(LOADING, LATER) == float("inf")


def test_an_out_of_memory_kill_is_named() -> None:
    killed = pod(waiting("CrashLoopBackOff", restartCount=2, lastState=ended(137, reason="OOMKilled")))
    assert "exit code 137 (OOMKilled)" in trouble(killed).message


def test_the_first_end_of_a_container_is_no_loop_and_its_words_are_one_line() -> None:
    first = trouble(pod({"name": "engine", "state": ended(1, "out of\n memory\n"), "restartCount": 0}))
    again = trouble(pod({"name": "engine", "state": ended(1, "out of\n memory\n"), "restartCount": 1}))
    assert first == ("LoadingModel", "p-1 ended 1 times, last with exit code 1: out of memory")
    assert again == ("CrashLoop", "p-1 ended 2 times, last with exit code 1: out of memory")


def test_times_move_only_when_a_condition_flips(make_pool: MakePool) -> None:
    first = status(make_pool(), serving(), None, NOW)
    second = status(make_pool(), serving(picker=None), first, LATER)
    assert condition(second, "Available").last_transition_time == NOW
    assert condition(second, "PickerReady").last_transition_time == LATER
    assert status(make_pool(), serving(), first, LATER) == first


def test_a_status_survives_the_api_server(make_pool: MakePool) -> None:
    found = status(make_pool(), serving(), None, NOW)
    assert last_status({"status": msgspec.to_builtins(found)}) == found
    assert last_status({}) is None


def test_the_old_revision_stays_current_until_the_rollout_is_done(make_pool: MakePool) -> None:
    first = status(make_pool(), serving(), None, NOW)
    moving = status(make_pool(), serving(revision="r2", workload=workload(1, updatedReplicas=0)), first, LATER)
    assert (moving.current_revision, moving.update_revision) == ("r1", "r2")


def test_a_rollout_of_groups_is_done_when_no_pod_is_of_the_template_of_before(make_pool: MakePool) -> None:
    """LeaderWorkerSet's numbers stay those of before until it has looked, and it does not tell when it has."""
    pool = make_pool(replicas=2, parallelism={"tensor": 2, "nodes": 2})
    last, told = None, []
    for revision, updated, ready, groups in (
        ("r1", 2, 2, "aa"),
        ("r2", 2, 2, "aa"),  # applied
        ("r2", 0, 2, "aa"),
        ("r2", 1, 1, "ab"),
        ("r2", 2, 2, "ab"),  # the last pod of before still leaves
        ("r2", 2, 2, "bb"),
        ("r2", 2, 2, "bb"),
        ("r1", 2, 2, "bb"),  # back to the first: LeaderWorkerSet gives it its old name
        ("r1", 2, 2, "aa"),
    ):
        pods = [pod(name=f"p-{index}") for index in range(2)]
        for one, group in zip(pods, groups, strict=True):
            one["metadata"]["labels"] = {"leaderworkerset.sigs.k8s.io/template-revision-hash": group}
        counted = workload(2, updatedReplicas=updated, readyReplicas=ready, availableReplicas=ready)
        counted["status"].pop("observedGeneration")
        seen = serving(workload=counted, engine_pods=pods, revision=revision, superseded=superseded(last, revision))
        now = status(pool, seen, last, NOW)
        reasons = [note.reason for note in notes(pool, last, now, Changes()) if note.reason.startswith("Rollout")]
        told.append((condition(now, "Progressing").reason, reasons))
        last = now
    going, done = "RolloutInProgress", "RolloutComplete"
    assert told == [
        (done, [done]),
        (going, ["RolloutStarted"]),
        (going, []),
        (going, []),
        (going, []),
        (done, [done]),
        (done, []),
        (going, ["RolloutStarted"]),
        (done, [done]),
    ]


def test_events_tell_changes_and_never_states(make_pool: MakePool) -> None:
    pool = make_pool()
    bad = serving(workload=workload(0), engine_pods=[PULLING], missing=[Missing("Secret", "hf")])
    first = status(pool, bad, None, NOW)
    told = notes(pool, None, first, Changes(created=[Ref("v1", "Service", "p-epp")], replicas=(1, 4)))
    assert [(note.type, note.reason) for note in told] == [
        ("Normal", "ChildCreated"),
        ("Normal", "ScaledUp"),
        ("Warning", "RefNotFound"),
        ("Warning", "ImagePullFailed"),
    ]
    assert notes(pool, first, status(pool, bad, first, LATER), Changes()) == []
    healed = status(pool, serving(), first, LATER)
    assert [note.reason for note in notes(pool, first, healed, Changes())] == ["RolloutComplete", "Ready"]
    started = status(pool, serving(revision="r2", workload=workload(1, updatedReplicas=0)), healed, LATER)
    assert [note.reason for note in notes(pool, healed, started, Changes(replicas=(4, 1)))] == [
        "ScaledDown",
        "RolloutStarted",
    ]


@pytest.mark.parametrize(
    ("reason", "event"),
    [
        ("InvalidSpec", ["InvalidSpec"]),
        ("ServerError", ["ServerError"]),
        ("Conflict", []),
        ("Forbidden", ["InvalidSpec"]),
    ],
)
def test_a_refusal_is_an_event_unless_it_passes_by_itself(make_pool: MakePool, reason: str, event: list[str]) -> None:
    pool = make_pool()
    well = status(pool, serving(), None, NOW)
    refused = status(pool, serving(refusals=[Refusal("Service", "s", reason, "no")]), well, LATER)
    assert [note.reason for note in notes(pool, well, refused, Changes())] == event


def test_a_prefix_that_becomes_hot_is_an_event_that_names_it_and_its_holders_once(make_pool: MakePool) -> None:
    pool = make_pool()
    calm = status(pool, serving(reports=[WELL]), None, NOW)
    hot = replaced(WELL, hotspots=[HotPrefix("0a41", 1024, 0.71, ["10.0.0.1:8000"])])
    told = status(pool, serving(reports=[hot]), calm, LATER)
    assert (condition(told, "PrefixesSpread").status, condition(told, "Ready").status) == ("False", "True")
    message = (
        "prefix 0a41 of 1024 tokens is in 71% of the requests and held by 10.0.0.1:8000; "
        "pickers let one endpoint more come to hold it"
    )
    assert notes(pool, calm, told, Changes()) == [Note("Warning", "HotPrefix", message)]
    assert notes(pool, told, status(pool, serving(reports=[hot]), told, LATER), Changes()) == []
    assert notes(pool, told, status(pool, serving(reports=[WELL]), told, LATER), Changes()) == []


def test_a_gateway_of_the_wrong_protocol_is_an_event_once_and_takes_no_pool_down(make_pool: MakePool) -> None:
    pool = make_pool()
    calm = status(pool, serving(reports=[WELL]), None, NOW)
    cut = replaced(WELL, refused={"tls_on_plaintext": "10.0.0.9"})
    told = status(pool, serving(reports=[cut]), calm, LATER)
    assert (condition(told, "GatewaysMatch").status, condition(told, "Ready").status) == ("False", "True")
    assert [(one.type, one.reason) for one in notes(pool, calm, told, Changes())] == [("Warning", "GatewayMismatch")]
    assert notes(pool, told, status(pool, serving(reports=[cut]), told, LATER), Changes()) == []
