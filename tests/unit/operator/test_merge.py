"""A user's pod template on top of ours, by the API's own rules; nothing of either is lost in silence."""

from typing import Any

import pytest
from multipick_operator.api.pool import SpecError
from multipick_operator.children.merge import merge

PROBE = {"httpGet": {"path": "/health", "port": "http"}, "periodSeconds": 5}


def merged(base: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    before = repr((base, patch))
    found = merge(base, patch)
    assert repr((base, patch)) == before
    return found


def container(**fields: Any) -> dict[str, Any]:
    return {"containers": [{"name": "engine", **fields}]}


def test_objects_are_merged_scalars_replaced_and_null_removes() -> None:
    base = {"a": {"x": 1, "y": 2}, "b": 1, "c": 1}
    assert merged(base, {"a": {"y": 3, "z": 4}, "b": None, "d": [1]}) == {
        "a": {"x": 1, "y": 3, "z": 4},
        "c": 1,
        "d": [1],
    }


def test_containers_are_merged_by_name_and_new_ones_follow() -> None:
    found = merged(
        container(image="a", args=["x"]), {"containers": [{"name": "sidecar"}, {"name": "engine", "image": "b"}]}
    )
    assert found == {"containers": [{"name": "engine", "image": "b", "args": ["x"]}, {"name": "sidecar"}]}


def test_a_list_without_keys_is_replaced_whole() -> None:
    assert merged(container(args=["x", "y"]), container(args=["z"])) == container(args=["z"])
    assert merged({"tolerations": [{"key": "a"}]}, {"tolerations": [{"key": "b"}]}) == {"tolerations": [{"key": "b"}]}


def test_one_port_number_may_be_tcp_and_udp() -> None:
    ours = [{"name": "http", "containerPort": 8000, "protocol": "TCP"}]
    patch = [{"containerPort": 8000, "protocol": "UDP"}, {"containerPort": 8000, "hostPort": 80}]
    assert merged({"ports": ours}, {"ports": patch})["ports"] == [
        {"name": "http", "containerPort": 8000, "protocol": "TCP", "hostPort": 80},
        {"containerPort": 8000, "protocol": "UDP"},
    ]


def test_two_spread_constraints_may_have_one_key() -> None:
    ours = [{"topologyKey": "h", "whenUnsatisfiable": "ScheduleAnyway", "maxSkew": 1}]
    patch = [
        {"topologyKey": "h", "whenUnsatisfiable": "DoNotSchedule", "maxSkew": 3},
        {"topologyKey": "h", "whenUnsatisfiable": "ScheduleAnyway", "maxSkew": 2},
    ]
    found = merged({"topologySpreadConstraints": ours}, {"topologySpreadConstraints": patch})
    assert found["topologySpreadConstraints"] == [patch[1], patch[0]]


@pytest.mark.parametrize(
    "handler",
    [
        {"exec": {"command": ["true"]}},
        {"tcpSocket": {"port": 1}},
        {"grpc": {"port": 1}},
        {"httpGet": {"path": "/x", "port": "http"}},
    ],
    ids=lambda one: next(iter(one)),
)
def test_a_probe_has_one_handler(handler: dict[str, Any]) -> None:
    found = merged({"livenessProbe": PROBE}, {"livenessProbe": handler})
    assert found == {"livenessProbe": handler | {"periodSeconds": 5}}


def test_a_handler_may_be_changed_in_part() -> None:
    found = merged({"livenessProbe": PROBE}, {"livenessProbe": {"httpGet": {"path": "/ping"}}})
    assert found["livenessProbe"]["httpGet"] == {"path": "/ping", "port": "http"}


def test_a_lifecycle_hook_has_one_handler() -> None:
    ours = {"lifecycle": {"preStop": {"sleep": {"seconds": 15}}}}
    patch = {"lifecycle": {"preStop": {"exec": {"command": ["x"]}}}}
    assert merged(ours, patch) == patch


def test_a_volume_has_one_source() -> None:
    ours = {"volumes": [{"name": "cache", "emptyDir": {"sizeLimit": "1Gi"}}, {"name": "shm", "emptyDir": {}}]}
    claim = {"name": "cache", "persistentVolumeClaim": {"claimName": "c"}}
    assert merged(ours, {"volumes": [claim]})["volumes"] == [claim, {"name": "shm", "emptyDir": {}}]
    memory = {"volumes": [{"name": "cache", "emptyDir": {"medium": "Memory"}}]}
    assert merged(ours, memory)["volumes"][0]["emptyDir"] == {"sizeLimit": "1Gi", "medium": "Memory"}


def test_a_variable_has_a_value_or_a_source_and_one_source() -> None:
    field = {"fieldRef": {"fieldPath": "status.podIP"}}
    secret = {"secretKeyRef": {"name": "s", "key": "k"}}
    ours = {"env": [{"name": "A", "value": "1"}, {"name": "B", "valueFrom": field}, {"name": "C", "valueFrom": field}]}
    patch = {
        "env": [{"name": "A", "valueFrom": secret}, {"name": "B", "value": "2"}, {"name": "C", "valueFrom": secret}]
    }
    assert merged(ours, patch) == patch


def test_a_seccomp_profile_of_another_type_keeps_nothing_of_ours() -> None:
    ours = {"seccompProfile": {"type": "Localhost", "localhostProfile": "p"}}
    assert merged(ours, {"seccompProfile": {"type": "RuntimeDefault"}}) == {
        "seccompProfile": {"type": "RuntimeDefault"}
    }


@pytest.mark.parametrize(
    ("patch", "words"),
    [
        ({"containers": [{"image": "x"}]}, r"podTemplate\.containers\[0\]: needs name"),
        ({"containers": ["engine"]}, r"podTemplate\.containers\[0\]: must be an object"),
        ({"containers": {"engine": {}}}, r"podTemplate\.containers: must be a list"),
        ({"containers": [{"name": "a"}, {"name": "a"}]}, r"containers\[1\]: a stands here twice"),
        (container(ports=[{"name": "x"}]), r"containers\[0\]\.ports\[0\]: needs containerPort"),
        ({"topologySpreadConstraints": [{"topologyKey": "h"}]}, r"needs whenUnsatisfiable"),
        ({"volumes": [{"emptyDir": {}}]}, r"volumes\[0\]: needs name"),
        ({"securityContext": "none"}, r"podTemplate\.securityContext: must be an object"),
        ({"containers": [{"name": ["engine"]}]}, r"needs name"),
    ],
)
def test_what_has_not_the_form_of_its_field_is_named(patch: dict[str, Any], words: str) -> None:
    ours = container() | {"securityContext": {}, "topologySpreadConstraints": []}
    with pytest.raises(SpecError, match=words):
        merge(ours, patch)
