"""Endpoints are spread over the replicas, and stay where they are."""

from collections import Counter

from multipick_epp.state.owners import owned_by, owner_of
from multipick_epp.types import Endpoint, ReplicaId

PODS = [Endpoint(f"10.0.{number // 250}.{number % 250}:8000") for number in range(1000)]
REPLICAS = [ReplicaId(f"picker-{number}") for number in range(5)]


def test_every_endpoint_has_one_owner() -> None:
    assert sorted(pod for replica in REPLICAS for pod in owned_by(replica, PODS, REPLICAS)) == sorted(PODS)


def test_the_order_of_the_replicas_does_not_matter() -> None:
    assert [owner_of(pod, REPLICAS) for pod in PODS] == [owner_of(pod, REPLICAS[::-1]) for pod in PODS]


def test_shares_are_alike() -> None:
    shares = Counter(owner_of(pod, REPLICAS) for pod in PODS)
    assert all(140 < share < 260 for share in shares.values())


def test_only_a_dead_replicas_endpoints_move() -> None:
    moved = [pod for pod in PODS if owner_of(pod, REPLICAS) != owner_of(pod, REPLICAS[1:])]
    assert moved == list(owned_by(REPLICAS[0], PODS, REPLICAS))


def test_without_replicas_nobody_owns_anything() -> None:
    assert owner_of(PODS[0], []) is None
    assert list(owned_by(REPLICAS[0], PODS, [])) == []
