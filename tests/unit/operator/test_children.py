from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import yaml
from multipick_operator.api.pool import Pool, SpecError
from multipick_operator.children import catalogue, desired, ref_of
from multipick_operator.children.context import Context

MakePool = Callable[..., Pool]


def child(pool: Pool, context: Context, kind: str, name: str) -> dict[str, Any]:
    return next(c for c in desired(pool, context) if (c["kind"], c["metadata"]["name"]) == (kind, name))


def kinds(pool: Pool, context: Context) -> set[tuple[str, str]]:
    return {(c["kind"], c["metadata"]["name"]) for c in desired(pool, context)}


def engine_pod(pool: Pool, context: Context) -> dict[str, Any]:
    pod: dict[str, Any] = child(pool, context, "Deployment", "p-engine")["spec"]["template"]
    return pod


def engine(pool: Pool, context: Context) -> dict[str, Any]:
    container: dict[str, Any] = engine_pod(pool, context)["spec"]["containers"][0]
    return container


def configuration(pool: Pool, context: Context) -> dict[str, Any]:
    (made,) = [one for one in desired(pool, context) if one["kind"] == "ConfigMap"]
    loaded: dict[str, Any] = yaml.safe_load(made["data"]["epp.yaml"])
    return loaded


def test_every_child_is_owned_by_the_pool_and_lies_beside_it(make_pool: MakePool, context: Context) -> None:
    for made in desired(make_pool(), context):
        assert made["metadata"]["namespace"] == "ml"
        (owner,) = made["metadata"]["ownerReferences"]
        assert owner["uid"] == "u-1"
        assert owner["controller"]


def test_the_same_pool_gives_the_same_children(make_pool: MakePool, context: Context) -> None:
    assert desired(make_pool(), context) == desired(make_pool(), context)


def test_the_kubelet_waits_longer_than_the_farewell_and_the_drain(make_pool: MakePool, context: Context) -> None:
    pod = engine_pod(make_pool(drain={"propagationSeconds": 20, "timeoutSeconds": 300}), context)["spec"]
    assert pod["terminationGracePeriodSeconds"] > 20 + 300
    assert pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"] == 20
    arguments = pod["containers"][0]["args"]
    assert arguments[arguments.index("--shutdown-timeout") + 1] == "300"
    picker = child(make_pool(drain={"timeoutSeconds": 300}), context, "Deployment", "p-epp")
    assert picker["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > 300


def test_a_picker_goes_when_gateways_know_the_next_one_and_have_forgotten_it(
    make_pool: MakePool, context: Context
) -> None:
    picker = child(make_pool(drain={"propagationSeconds": 0, "timeoutSeconds": 0}), context, "Deployment", "p-epp")
    assert picker["spec"]["minReadySeconds"] == 10
    assert picker["spec"]["progressDeadlineSeconds"] > picker["spec"]["minReadySeconds"]
    pod = picker["spec"]["template"]["spec"]
    forgotten_s = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    drain_s = configuration(make_pool(), context)["limits"]["drain_s"]
    assert pod["terminationGracePeriodSeconds"] > forgotten_s + drain_s


def test_a_user_argument_comes_last(make_pool: MakePool, context: Context) -> None:
    pool = make_pool(engine={"args": ["--shutdown-timeout", "5"]})
    assert engine(pool, context)["args"][-2:] == ["--shutdown-timeout", "5"]


def test_a_user_variable_replaces_ours(make_pool: MakePool, context: Context) -> None:
    pool = make_pool(engine={"env": [{"name": "HF_HUB_CACHE", "value": "/x"}]})
    assert [e for e in engine(pool, context)["env"] if e["name"] == "HF_HUB_CACHE"] == [
        {"name": "HF_HUB_CACHE", "value": "/x"}
    ]


def test_the_pod_template_is_merged_last_but_moves_no_pod_out_of_the_pool(
    make_pool: MakePool, context: Context
) -> None:
    template = {
        "metadata": {"labels": {"team": "x", "multipick.dev/pool": "other"}},
        "spec": {
            "enableServiceLinks": True,
            "containers": [{"name": "engine", "image": "mine"}, {"name": "sidecar", "image": "s"}],
        },
    }
    pod = engine_pod(make_pool(podTemplate=template), context)
    assert pod["metadata"]["labels"]["team"] == "x"
    assert pod["metadata"]["labels"]["multipick.dev/pool"] == "p"
    assert pod["spec"]["enableServiceLinks"] is True
    assert [c["image"] for c in pod["spec"]["containers"]] == ["mine", "s"]
    assert pod["spec"]["containers"][0]["args"][0] == "serve"


@pytest.mark.parametrize(
    "template",
    [
        {"metadata": None},
        {"metadata": {"labels": None}},
        {"metadata": {"labels": {"multipick.dev/role": None, "multipick.dev/pool": None}}},
    ],
)
def test_no_template_can_take_the_pods_labels_away(
    make_pool: MakePool, context: Context, template: dict[str, Any]
) -> None:
    labels = engine_pod(make_pool(podTemplate=template), context)["metadata"]["labels"]
    assert labels.items() >= {"multipick.dev/pool": "p", "multipick.dev/role": "engine"}.items()


@pytest.mark.parametrize(
    "template", [{"spec": "x"}, {"metadata": []}, {"spec": {"containers": "x"}}, {"metadata": {"labels": 1}}]
)
def test_a_template_of_another_form_is_named(make_pool: MakePool, context: Context, template: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match="podTemplate"):
        desired(make_pool(podTemplate=template), context)


def test_each_data_parallel_rank_is_an_endpoint_with_ports_of_its_own(make_pool: MakePool, context: Context) -> None:
    pool = make_pool(
        parallelism={"data": 2, "tensor": 2},
        podTemplate={"spec": {"containers": [{"name": "engine", "workingDir": "/w"}]}},
    )
    first, second = engine_pod(pool, context)["spec"]["containers"]
    assert (first["name"], second["name"]) == ("engine", "engine-1")
    assert second["args"][second["args"].index("--data-parallel-rank") + 1] == "1"
    assert [p["containerPort"] for p in second["ports"]] == [8001, 5558, 5658]
    assert second["resources"]["limits"] == {"nvidia.com/gpu": "2"}
    assert second["workingDir"] == "/w"
    assert child(pool, context, "InferencePool", "p")["spec"]["targetPorts"] == [{"number": 8000}, {"number": 8001}]
    assert configuration(pool, context)["kubernetes"]["ports"] == [8000, 8001]


def test_replicas_that_span_nodes_are_groups_and_only_their_leaders_are_endpoints(
    make_pool: MakePool, context: Context
) -> None:
    pool = make_pool(parallelism={"tensor": 8, "nodes": 2})
    assert ("Deployment", "p-engine") not in kinds(pool, context)
    group = child(pool, context, "LeaderWorkerSet", "p-engine")["spec"]["leaderWorkerTemplate"]
    leader = group["leaderTemplate"]["spec"]["containers"][0]
    worker = group["workerTemplate"]["spec"]["containers"][0]
    assert group["size"] == 2
    assert leader["resources"]["limits"] == {"nvidia.com/gpu": "4"}
    assert "readinessProbe" in leader
    assert "readinessProbe" not in worker
    assert "--headless" in worker["args"]
    assert "--headless" not in leader["args"]
    selector = child(pool, context, "InferencePool", "p")["spec"]["selector"]["matchLabels"]
    assert selector["leaderworkerset.sigs.k8s.io/worker-index"] == "0"


def test_sglang_is_told_nothing_of_vllms(make_pool: MakePool, context: Context) -> None:
    arguments = engine(make_pool(engine={"type": "SGLang"}), context)["args"]
    assert "--shutdown-timeout" not in arguments
    assert arguments[arguments.index("--page-size") + 1] == "64"
    assert "--enable-cache-report" in arguments


def test_sglang_without_adapters_to_start_with_is_told_what_later_ones_may_change(
    make_pool: MakePool, context: Context
) -> None:
    def arguments(**lora: Any) -> list[str]:
        return list(engine(make_pool(engine={"type": "SGLang"}, lora=lora), context)["args"])

    later = arguments(allowRuntimeUpdates=True)
    assert later[later.index("--lora-target-modules") + 1] == "all"
    assert later[later.index("--max-lora-rank") + 1] == "16"
    assert "--lora-paths" not in later
    first = arguments(adapters=[{"name": "a", "uri": "hf://org/a"}])
    assert first[first.index("--lora-paths") + 1] == "a=org/a"
    assert "--lora-target-modules" not in first


def test_a_new_default_image_is_for_new_pools(make_pool: MakePool, context: Context) -> None:
    assert engine(make_pool(), context)["image"] == "example.com/vllm:1"
    running = replace(context, pin="VLLM example.com/vllm:0")
    assert engine(make_pool(), running)["image"] == "example.com/vllm:0"
    assert engine(make_pool(engine={"image": "mine"}), running)["image"] == "mine"
    assert engine(make_pool(engine={"type": "SGLang"}), running)["image"] == "example.com/sglang:1"


def test_what_pods_of_before_need_stays_where_no_image_is_known(make_pool: MakePool, context: Context) -> None:
    unknown = replace(context, defaults=replace(context.defaults, engine_images={}))
    pool = make_pool(storage={"cache": {"type": "PVC"}, "fetch": {}})
    assert kinds(pool, context) - kinds(pool, unknown) == {("Deployment", "p-engine")}


def test_existing_pods_get_a_picker_and_nothing_else(make_pool: MakePool, context: Context) -> None:
    pool = make_pool(existingPods={"matchLabels": {"app": "x"}}, model={"name": "m"})
    assert {name for kind, name in kinds(pool, context) if kind == "Deployment"} == {"p-epp"}
    assert configuration(pool, context)["kubernetes"]["selector"] == {"app": "x"}
    assert child(pool, context, "InferencePool", "p")["spec"]["selector"]["matchLabels"] == {"app": "x"}


def test_a_section_that_is_switched_on_brings_its_child_and_the_catalogue_knows_it(
    make_pool: MakePool, context: Context
) -> None:
    plain = kinds(make_pool(), context)
    pool = make_pool(
        autoscaling={"maxReplicas": 4},
        storage={"cache": {"type": "PVC"}},
        networkPolicy={"enabled": True},
        monitoring={"podMonitor": {"enabled": True, "labels": {"release": "prometheus"}}},
        routing={"gateway": {"httpRoute": {"create": True, "parentRefs": [{"name": "g"}]}}},
    )
    assert {kind for kind, _ in kinds(pool, context) - plain} == {
        "HorizontalPodAutoscaler",
        "PersistentVolumeClaim",
        "NetworkPolicy",
        "PodMonitor",
        "HTTPRoute",
    }
    made = {ref_of(one) for one in desired(pool, context)}
    assert {ref for ref in made if ref.kind != "ConfigMap"} <= set(catalogue(pool))
    keda = make_pool(autoscaling={"maxReplicas": 4, "backend": "KEDA", "prometheusUrl": "http://p"})
    assert ("ScaledObject", "p-engine") in kinds(keda, context)


def test_a_changed_configuration_rolls_the_pickers_and_no_engine(make_pool: MakePool, context: Context) -> None:
    def stamp(pool: Pool, context: Context) -> str:
        return str(child(pool, context, "Deployment", "p-epp")["spec"]["template"])

    before, after = make_pool(), make_pool(routing={"picker": {"logLevel": "Debug"}})
    rotated = replace(context, secret_version="8")
    assert len({stamp(before, context), stamp(after, context), stamp(before, rotated)}) == 3
    assert engine_pod(before, context) == engine_pod(after, rotated)


def test_a_configuration_is_never_changed_but_replaced(make_pool: MakePool, context: Context) -> None:
    def config(pool: Pool) -> dict[str, Any]:
        (made,) = [one for one in desired(pool, context) if one["kind"] == "ConfigMap"]
        return made

    before, after = config(make_pool()), config(make_pool(routing={"picker": {"logLevel": "Debug"}}))
    assert before["metadata"]["name"] != after["metadata"]["name"]
    assert before["immutable"] is True
    volume = child(make_pool(), context, "Deployment", "p-epp")["spec"]["template"]["spec"]["volumes"][0]
    assert volume["configMap"]["name"] == before["metadata"]["name"]
    assert config(make_pool(replicas=3)) == before


def test_ports_of_pods_that_are_not_gone_yet_stay_open(make_pool: MakePool, context: Context) -> None:
    pool = make_pool(engine={"port": 9000, "kvEvents": {"port": 6000}}, networkPolicy={"enabled": True})
    rolling = replace(context, other_ports=(8000,), other_event_ports=(5557,))
    numbers = [one["number"] for one in child(pool, rolling, "InferencePool", "p")["spec"]["targetPorts"]]
    assert numbers == [9000, 8000]
    assert [one["port"] for one in child(pool, rolling, "Service", "p-engine")["spec"]["ports"]] == [9000, 8000]
    rule, events = child(pool, rolling, "NetworkPolicy", "p-engine")["spec"]["ingress"]
    assert [one["port"] for one in rule["ports"]] == [9000, 8000]
    assert [one["port"] for one in events["ports"]] == [6000, 5657, 5557]
    assert configuration(pool, rolling)["kubernetes"]["ports"] == [9000]


def test_ports_of_all_ranks_stay_open_where_a_gateway_can_be_told_of_eight_only(
    make_pool: MakePool, context: Context
) -> None:
    pool = make_pool(engine={"port": 9000}, parallelism={"data": 8}, networkPolicy={"enabled": True})
    rolling = replace(context, other_ports=tuple(range(8000, 8008)))
    every = [*range(9000, 9008), *range(8000, 8008)]
    rule = child(pool, rolling, "NetworkPolicy", "p-engine")["spec"]["ingress"][0]
    assert [one["port"] for one in rule["ports"]] == every
    assert [one["port"] for one in child(pool, rolling, "Service", "p-engine")["spec"]["ports"]] == every
    assert len(child(pool, rolling, "InferencePool", "p")["spec"]["targetPorts"]) == 8


def test_no_label_of_a_pod_monitor_makes_it_another_s_child(make_pool: MakePool, context: Context) -> None:
    taken = {"app.kubernetes.io/managed-by": "x", "multipick.dev/pool": "q", "multipick.dev/role": "r"}
    labels = taken | {"release": "prometheus", "app.kubernetes.io/name": "mine"}
    pool = make_pool(monitoring={"podMonitor": {"enabled": True, "labels": labels}})
    plain = child(pool, context, "Service", "p-engine")["metadata"]["labels"]
    found = child(pool, context, "PodMonitor", "p-engine")["metadata"]["labels"]
    assert {name: found[name] for name in taken} == {name: plain[name] for name in taken}
    assert (found["release"], found["app.kubernetes.io/name"]) == ("prometheus", "mine")


def test_no_secret_stands_in_a_manifest_but_a_secret(make_pool: MakePool, context: Context) -> None:
    defaults = replace(context.defaults, state_url="redis://v:6379", state_password="hunter2")
    made = desired(make_pool(), replace(context, defaults=defaults))
    assert "hunter2" not in repr(defaults)
    assert "hunter2" not in yaml.safe_dump([c for c in made if c["kind"] != "Secret"])
    assert [c["metadata"]["name"] for c in made if c["kind"] == "Secret"] == ["p-epp"]


def test_a_pool_with_an_index_of_its_own_uses_its_own_secret(make_pool: MakePool, context: Context) -> None:
    defaults = replace(context.defaults, state_url="redis://v:6379", state_password="hunter2")
    pool = make_pool(index={"url": "rediss://mine:6380", "passwordSecretRef": {"name": "mine", "key": "pw"}})
    own = replace(context, defaults=defaults)
    assert "Secret" not in {kind for kind, _ in kinds(pool, own)}
    assert configuration(pool, own)["state"] == "rediss://mine:6380"
    env = child(pool, own, "Deployment", "p-epp")["spec"]["template"]["spec"]["containers"][0]["env"]
    assert [e["valueFrom"]["secretKeyRef"] for e in env] == [{"name": "mine", "key": "pw"}]


def test_kv_events_are_for_the_pickers_alone(make_pool: MakePool, context: Context) -> None:
    policy = child(make_pool(networkPolicy={"enabled": True}), context, "NetworkPolicy", "p-engine")
    open_to_all, events = policy["spec"]["ingress"]
    assert [p["port"] for p in open_to_all["ports"]] == [8000]
    assert "from" not in open_to_all
    assert [p["port"] for p in events["ports"]] == [5557, 5657]
    assert events["from"][0]["podSelector"]["matchLabels"]["multipick.dev/role"] == "picker"
