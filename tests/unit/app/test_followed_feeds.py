"""Which publisher each endpoint's events are looked for at: its own, or none."""

from collections.abc import Sequence

import pytest
from multipick_epp.app.feeds import specs_of
from multipick_epp.events.discover import Addresses, NoEvents, Ports, by_ports, one_spelling
from multipick_epp.pods.endpoints import Engine, PodEndpoint, Ranks, endpoints_of
from multipick_epp.types import Endpoint

PORTS = Ports(5557, 5657)


def found(pods: Sequence[PodEndpoint]) -> list[str | None]:
    """The publishers, of engines that don't name any."""
    specs = specs_of(pods, PORTS)
    addresses = [Addresses(spec.events) if spec.events else by_ports(spec, PORTS) for spec in specs]
    return [each.events if isinstance(each, Addresses) else None for each in addresses]


def pod(address: str, *, rank: int = 0, events: str | None = None) -> PodEndpoint:
    return PodEndpoint(Endpoint(address), events, rank=rank)


def test_ranks_of_one_port_have_ports_of_their_own() -> None:
    pods = endpoints_of(Engine(pod("10.0.0.1:8000"), Ranks(tuple(range(8, 16)))))
    assert found(pods) == [f"tcp://10.0.0.1:{5557 + rank}" for rank in range(8, 16)]


def test_ports_of_one_pod_are_its_ranks() -> None:
    pods = [pod(f"10.0.0.1:{8000 + rank}", rank=rank) for rank in range(2)]
    assert found(pods) == ["tcp://10.0.0.1:5557", "tcp://10.0.0.1:5558"]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("pod-1.svc", "POD-1.svc."),
        ("localhost", "127.0.0.1"),
        ("127.0.0.1", "[::1]"),
        ("[fd00::1]", "[fd00:0::0:1]"),
        ("10.0.0.1", "[::ffff:10.0.0.1]"),
    ],
)
def test_two_endpoints_of_one_host_have_no_port_in_common(first: str, second: str) -> None:
    """One of them would be known by the other's cache."""
    same, other = [pod(f"{first}:8000"), pod(f"{second}:8001")], pod("10.9.9.9:8000")
    assert found([*same, other]) == [None, None, "tcp://10.9.9.9:5557"]
    spec = specs_of(same, PORTS)[0]
    assert by_ports(spec, PORTS) == NoEvents(
        "several endpoints of its host would have the same event port: state `events` of each"
    )


def test_what_the_other_one_states_is_minded() -> None:
    stated = pod("10.0.0.1:8000", events="tcp://10.0.0.1:5557")
    assert found([stated, pod("10.0.0.1:8001")]) == ["tcp://10.0.0.1:5557", None]
    elsewhere = pod("10.0.0.1:8000", events="tcp://10.0.0.1:6000")
    assert found([elsewhere, pod("10.0.0.1:8001")]) == ["tcp://10.0.0.1:6000", "tcp://10.0.0.1:5557"]
    odd = pod("10.0.0.1:8000", events="ipc:///tmp/x")
    assert found([odd, pod("10.0.0.1:8001")]) == ["ipc:///tmp/x", "tcp://10.0.0.1:5557"]


def test_other_hosts_are_other_hosts() -> None:
    assert len({*map(one_spelling, ("10.0.0.1", "10.0.0.2", "a", "b", "localhost", "fd00::1"))}) == 6
