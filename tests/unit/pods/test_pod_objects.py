from typing import Any

import msgspec
import pytest
from multipick_epp.pods.pod_objects import ACTIVE_PORTS, PodObject, read, view


def pod(**changes: Any) -> PodObject:
    started = {"running": {"startedAt": "2026-01-01T00:00:10Z"}}
    status = {
        "podIP": "10.1.2.3",
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [
            {"name": "engine", "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}},
            {"name": "sidecar", "state": started},
        ],
    }
    metadata = {"uid": "u", **changes.pop("metadata", {})}
    spec = {"containers": changes.pop("containers", [])}
    found = read(msgspec.json.encode({"metadata": metadata, "spec": spec, "status": status | changes}))
    assert found is not None
    return found


def test_a_running_pod_gives_an_endpoint_a_port_with_its_rank_and_epoch() -> None:
    seen = view(pod(), [8000, 8001], "engine")
    assert seen is not None
    assert seen.ready
    assert [(e.endpoint, e.rank, e.started_ms) for e in seen.endpoints] == [
        ("10.1.2.3:8000", 0, 1767225600000),
        ("10.1.2.3:8001", 1, 1767225600000),
    ]


def container(name: str, **ports: int) -> dict[str, Any]:
    return {
        "name": name,
        "ports": [{"name": key.replace("_", "-"), "containerPort": port} for key, port in ports.items()],
    }


def test_a_pod_that_names_its_ports_is_reached_at_them_whatever_the_pool_says_by_now() -> None:
    containers = [
        container("engine", http=9000, kv_events=5557),
        container("engine-1", http_1=9005),
        container("x", http=1),
    ]
    seen = view(pod(containers=containers), [8000], "engine")
    assert seen is not None
    assert [(e.endpoint, e.rank) for e in seen.endpoints] == [("10.1.2.3:9000", 0), ("10.1.2.3:9005", 1)]
    of_others = view(pod(containers=containers), [8000], None)
    assert of_others is not None
    assert [e.endpoint for e in of_others.endpoints] == ["10.1.2.3:8000"]


@pytest.mark.parametrize(
    "odd", [container("engine", other=1), container("engine", http=0), container("engine", http=70000)]
)
def test_a_pod_that_names_no_port_is_reached_at_the_pools(odd: dict[str, Any]) -> None:
    seen = view(pod(containers=[odd]), [8000], "engine")
    assert seen is not None
    assert [e.endpoint for e in seen.endpoints] == ["10.1.2.3:8000"]


def test_without_a_container_name_the_latest_start_counts() -> None:
    seen = view(pod(), [8000], None)
    assert seen is not None
    assert seen.endpoints[0].started_ms == 1767225610000


def test_a_pod_under_deletion_is_not_ready_at_once_and_still_known() -> None:
    seen = view(pod(metadata={"deletionTimestamp": "2026-01-01T00:01:00Z"}), [8000], None)
    assert seen is not None
    assert not seen.ready
    assert len(seen.endpoints) == 1


def test_a_pod_that_is_not_ready_keeps_its_endpoints() -> None:
    seen = view(pod(conditions=[{"type": "Ready", "status": "False"}]), [8000], None)
    assert seen is not None
    assert not seen.ready
    assert seen.endpoints


def test_pods_without_an_address_or_at_their_end_give_nothing() -> None:
    assert view(pod(podIP=None), [8000], None) is None
    assert view(pod(phase="Failed"), [8000], None) is None
    assert view(pod(podIP="evil.example/"), [8000], None) is None
    assert view(pod(podIP="10.0.0.1:80"), [8000], None) is None


def test_active_ports_restrict_the_pools_ports_and_garbage_means_none() -> None:
    seen = view(pod(metadata={"annotations": {ACTIVE_PORTS: "8001, 9999"}}), [8000, 8001], None)
    assert seen is not None
    assert [(e.endpoint, e.rank) for e in seen.endpoints] == [("10.1.2.3:8001", 1)]
    seen = view(pod(metadata={"annotations": {ACTIVE_PORTS: "all"}}), [8000, 8001], None)
    assert seen is not None
    assert not seen.endpoints


def test_an_ipv6_address_is_put_in_brackets() -> None:
    seen = view(pod(podIP="fd00::1"), [8000], None)
    assert seen is not None
    assert seen.endpoints[0].endpoint == "[fd00::1]:8000"


@pytest.mark.parametrize("time", [None, "", "yesterday", "99999-01-01T00:00:00Z", "0001-01-01T00:00:00+23:59"])
def test_a_start_that_is_no_time_is_not_known(time: str | None) -> None:
    seen = view(pod(containerStatuses=[{"name": "engine", "state": {"running": {"startedAt": time}}}]), [8000], None)
    assert seen is not None
    assert [endpoint.started_ms for endpoint in seen.endpoints] == [None]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"7",
        b'{"kind": "Status", "code": 410}',
        b'{"metadata": {}}',
        b'{"metadata": {"uid": 7}}',
        b'{"metadata": {"uid": "u", "annotations": {"a": {}}}}',
        b'{"metadata": {"uid": "u"}, "status": {"conditions": "Ready"}}',
        b'{"metadata": {"uid": "u"}, "status": {"containerStatuses": [[]]}}',
        b'{"metadata": {"uid": "\xff"}}',
        b'{"metadata":' * 100_000,
    ],
)
def test_what_is_no_pod_is_none(data: bytes) -> None:
    assert read(data) is None
