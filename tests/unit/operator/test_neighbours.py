"""Pools that get into each other's way, and where clients reach one."""

from typing import Any

import pytest
from multipick_operator.api.pool import Pool, pool_of
from multipick_operator.neighbours import shadowing, sharing
from multipick_operator.status.url import url

OLD, NEW = "2026-11-22T08:00:00Z", "2026-11-22T09:00:00Z"


def manifest(name: str, namespace: str = "ml", made: str = OLD, **spec: Any) -> dict[str, Any]:
    meta = {"name": name, "namespace": namespace, "uid": f"{namespace}/{name}", "generation": 1}
    return {"metadata": meta | {"creationTimestamp": made}, "spec": {"model": {"uri": "/m"}} | spec}


def routed(name: str, **more: Any) -> dict[str, Any]:
    own = {key: more.pop(key) for key in ("namespace", "made") if key in more}
    route = {"create": True, "parentRefs": [{"name": "gw", "namespace": "infra"}]} | more
    return manifest(name, **own, routing={"gateway": {"httpRoute": route}})


def existing(name: str, namespace: str = "ml", **labels: str) -> dict[str, Any]:
    return manifest(name, namespace, existingPods={"matchLabels": labels})


def pod(**labels: str) -> dict[str, Any]:
    return {"metadata": {"name": "x", "labels": {key.replace("_", "/"): value for key, value in labels.items()}}}


def shadow(mine: dict[str, Any], *others: dict[str, Any]) -> str | None:
    return shadowing(pool_of(mine), mine["metadata"]["creationTimestamp"], [mine, *others])


def test_pools_of_one_selector_are_said_to_share() -> None:
    mine = existing("a", app="x")
    others = [mine, existing("b", app="x", tier="1"), existing("c", app="y"), existing("d", "other", app="x")]
    assert sharing(pool_of(mine), [pod(app="x", tier="1"), pod(app="x")], others) == ["b"]
    assert sharing(pool_of(mine), [], others) == []


def test_pods_that_another_pool_made_are_said_to_be_shared() -> None:
    theirs = {"metadata": {"labels": {"multipick.dev/pool": "own", "app": "x"}}}
    assert sharing(pool_of(existing("a", app="x")), [theirs], []) == ["own"]
    assert sharing(pool_of(manifest("own")), [theirs], [existing("a", app="x")]) == ["a"]


def test_of_two_routes_to_one_place_the_older_gets_the_requests() -> None:
    one, two = routed("one", made=OLD), routed("two", made=NEW)
    assert shadow(two, one) == "ml/one"
    assert shadow(one, two) is None
    assert shadow(routed("b"), routed("a")) == "ml/a"
    assert shadow(routed("a", namespace="x", made=NEW), routed("b", namespace="y")) == "y/b"


@pytest.mark.parametrize(
    "other",
    [
        {"hostnames": ["b.test"]},
        {"pathPrefix": "/other"},
        {"headers": [{"name": "x", "value": "1"}]},
        {"parentRefs": [{"name": "gw"}]},
        {"parentRefs": [{"name": "gw", "namespace": "infra", "sectionName": "https"}]},
        {"create": False},
    ],
)
def test_routes_to_different_places_are_no_trouble(other: dict[str, Any]) -> None:
    mine = routed("two", made=NEW, hostnames=["a.test"])
    assert shadow(mine, routed("one", hostnames=["A.test"])) == "ml/one"
    assert shadow(mine, routed("one", **{"hostnames": ["a.test"]} | other)) is None


def gateway(*listeners: dict[str, Any], addresses: tuple[str, ...] = (), name: str = "gw") -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "infra"},
        "spec": {"listeners": list(listeners)},
        "status": {"addresses": [{"value": one} for one in addresses]},
    }


HTTP = {"name": "http", "port": 80, "protocol": "HTTP"}
HTTPS = {"name": "https", "port": 443, "protocol": "HTTPS", "hostname": "*.test"}
HIGH = {"name": "high", "port": 8443, "protocol": "HTTPS", "hostname": "g.test"}


@pytest.mark.parametrize(
    ("route", "found", "expected"),
    [
        ({"hostnames": ["a.test"]}, gateway(HTTP), "http://a.test/v1"),
        ({"hostnames": ["a.test"]}, gateway(HTTPS, HTTP), "https://a.test/v1"),
        (
            {"hostnames": ["a.test"], "parentRefs": [{"name": "gw", "namespace": "infra", "sectionName": "http"}]},
            gateway(HTTPS, HTTP),
            "http://a.test/v1",
        ),
        (
            {"parentRefs": [{"name": "gw", "namespace": "infra", "port": 8443}], "pathPrefix": "/x"},
            gateway(HTTP, HIGH),
            "https://g.test:8443/x",
        ),
        ({}, gateway(HTTP, addresses=("10.0.0.1",)), "http://10.0.0.1/v1"),
        ({"hostnames": ["*.a.test"]}, gateway(HTTP), ""),
        ({"hostnames": ["a.test"]}, gateway(HTTP, name="other"), ""),
        ({"hostnames": ["a.test"]}, gateway(), ""),
    ],
)
def test_a_url_is_what_a_listener_answers_to(route: dict[str, Any], found: dict[str, Any], expected: str) -> None:
    pool: Pool = pool_of(routed("a", **route))
    assert url(pool, [found]) == expected
