from collections.abc import Callable
from typing import Any

from multipick_operator.api.pool import Pool
from multipick_operator.api.status import AdapterStatus, Status
from multipick_operator.status import last_status
from multipick_operator.status.adapters import Engine, Held, Order, engines_of, order_of, told, verdict

MakePool = Callable[..., Pool]
LORA: dict[str, Any] = {"lora": {"allowRuntimeUpdates": True}}
ONE = {"adapters": [{"name": "one", "uri": "hf://org/one"}]}
INDEX = "leaderworkerset.sigs.k8s.io/worker-index"
LABELS = {"multipick.dev/pool": "p", "multipick.dev/role": "engine"}


def pod(name: str, *ports: int, ready: bool = True, restarts: int = 0, group: str = "") -> dict[str, Any]:
    suffixes = ["", *(f"-{rank}" for rank in range(1, len(ports)))]
    containers: list[dict[str, Any]] = [
        {"name": f"engine{suffix}", "ports": [{"name": f"http{suffix}", "containerPort": port}]}
        for suffix, port in zip(suffixes, ports, strict=False)
    ]
    status = {
        "podIP": "10.0.0.1",
        "conditions": [{"type": "Ready", "status": str(ready)}],
        "containerStatuses": [{"name": "engine", "restartCount": restarts}],
    }
    for container in containers:
        container["ports"].append({"name": "kv-events", "containerPort": 5557})
    meta = {"name": name, "uid": f"u-{name}", "labels": LABELS | ({INDEX: group} if group else {})}
    return {"metadata": meta, "spec": {"containers": containers}, "status": status}


def test_a_port_of_another_container_is_no_engine(make_pool: MakePool) -> None:
    """A mesh's sidecar has one that is called http-envoy-prom."""
    meshed = pod("a", 9000, 9001)
    sidecar = {"name": "istio-proxy", "ports": [{"name": "http-envoy-prom", "containerPort": 15090}]}
    meshed["spec"]["containers"] += [sidecar, {"name": "plain"}]
    assert [one.address for one in engines_of(make_pool(), [meshed])] == ["10.0.0.1:9000", "10.0.0.1:9001"]


def status(*names: str) -> Status:
    """The last one of a pool with these adapters."""
    found = last_status(
        {
            "status": {
                "observedGeneration": 1,
                "replicas": 1,
                "readyReplicas": 1,
                "updatedReplicas": 1,
                "availableReplicas": 1,
                "selector": "",
                "currentRevision": "",
                "updateRevision": "",
                "picker": {"readyReplicas": 1, "service": ""},
                "model": {"name": "m"},
                "url": "",
                "conditions": [],
                "adapters": [{"name": name, "loaded": 1, "pods": [], "message": ""} for name in names],
            }
        }
    )
    assert found is not None
    return found


def test_nobody_is_asked_of_a_pool_without_such_adapters(make_pool: MakePool) -> None:
    assert order_of(make_pool(**LORA), None) is None
    assert order_of(make_pool(**LORA), status()) is None


def test_what_the_status_knows_and_the_spec_does_not_is_unloaded(make_pool: MakePool) -> None:
    assert order_of(make_pool(**LORA, **ONE), status("one", "old")) == Order("/v1", {"one": "org/one"}, ["old"])
    assert order_of(make_pool(**LORA), status("old")) == Order("/v1", {}, ["old"])


def test_sglang_has_paths_of_its_own(make_pool: MakePool) -> None:
    order = order_of(make_pool(**LORA, **ONE, engine={"type": "SGLang"}), None)
    assert order is not None
    assert order.prefix == ""


def test_every_rank_of_a_ready_pod_is_asked_at_the_port_that_the_pod_names(make_pool: MakePool) -> None:
    pods = [pod("a", 9000, 9001), pod("b", 8000, ready=False)]
    assert [one.address for one in engines_of(make_pool(), pods)] == ["10.0.0.1:9000", "10.0.0.1:9001"]


def test_of_a_group_that_spans_nodes_the_leader_is_asked(make_pool: MakePool) -> None:
    pods = [pod("a", 8000, group="0"), pod("b", 8000, group="1")]
    grouped = make_pool(parallelism={"nodes": 2, "tensor": 2})
    assert [one.pod for one in engines_of(grouped, pods)] == ["a"]


def test_a_container_that_was_started_anew_is_another_engine(make_pool: MakePool) -> None:
    before, after = (engines_of(make_pool(), [pod("a", 8000, restarts=count)]) for count in (0, 1))
    assert before != after


def test_a_pod_has_an_adapter_when_all_its_ranks_have_it() -> None:
    engines = [Engine("a", "h:1", ""), Engine("a", "h:2", ""), Engine("b", "i:1", "")]
    order = Order("/v1", {"one": "x"}, [])
    have, lack = Held(frozenset({"one"}), {}), Held(frozenset(), {"one": "no room"})
    held = {engines[0]: have, engines[1]: lack, engines[2]: have}
    pods = [pod("a", 1, 2), pod("b", 1)]
    assert told(order, pods, engines, held) == (AdapterStatus(name="one", loaded=1, pods=("b",), message="a: no room"),)


def test_an_unwanted_adapter_is_told_of_until_no_pod_can_have_it() -> None:
    engine, order = Engine("a", "h:1", ""), Order("/v1", {}, ["old"])
    gone = {engine: Held(frozenset(), {})}
    assert told(order, [pod("a", 1)], [engine], {engine: Held(frozenset({"old"}), {})})[0].loaded == 1
    assert [one.name for one in told(order, [pod("a", 1), pod("b", 1, ready=False)], [engine], gone)] == ["old"]
    assert [one.name for one in told(order, [pod("a", 1)], [engine], {})] == ["old"]
    waiting = pod("b", 1, ready=False)
    del waiting["status"]["podIP"]  # it fits no node, perhaps for ever
    assert told(order, [pod("a", 1), waiting], [engine], gone) == ()
    assert told(order, [pod("a", 1)], [engine], gone) == ()


def test_the_condition_says_how_far_it_is_and_why_not(make_pool: MakePool) -> None:
    pool = make_pool(**LORA, **ONE)

    def one(loaded: int, message: str = "", name: str = "one") -> AdapterStatus:
        return AdapterStatus(name=name, loaded=loaded, pods=(), message=message)

    assert verdict(pool, (), 2) is None
    for adapters, reason, words in (
        ([one(2)], "AdaptersLoaded", "1 adapters on 2 pods"),
        ([one(1)], "Loading", "one (1 of 2 pods)"),
        ([one(1, "a: no room")], "LoadFailed", "one: a: no room"),
        ([one(2), one(1, name="old")], "Unloading", "old"),
    ):
        found = verdict(pool, adapters, 2)
        assert found is not None
        assert (found.status, found.reason) == ("True" if reason == "AdaptersLoaded" else "False", reason)
        assert words in found.message
