"""Where an endpoint's publisher is: by the engine's answer, or by the pool's ports."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from multipick_epp.engines import EngineClient, Unanswered, Why, event_sources
from multipick_epp.engines.event_sources import EventSource
from multipick_epp.events.discover import Addresses, FeedSpec, NoEvents, Ports, Unreachable, by_ports, discover, said
from multipick_epp.types import Endpoint

FEED = FeedSpec(Endpoint("10.1.2.3:8000"))


def answer(**ranks: Any) -> Mapping[int, EventSource]:
    found = event_sources.parse(json.dumps({rank.removeprefix("rank"): said for rank, said in ranks.items()}).encode())
    assert found is not None
    return found


class Engines(EngineClient):
    """Whose answer is this one."""

    def __init__(self, answer_is: Unanswered) -> None:
        super().__init__()
        self._answer_is = answer_is

    async def event_sources(self, endpoint: Endpoint) -> Mapping[int, EventSource] | Unanswered:
        return self._answer_is


def source(port: int = 5557, **more: Any) -> dict[str, Any]:
    """As vLLM 0.32 answers, in short."""
    return {"enable_kv_cache_events": True, "publisher": "zmq", "endpoint": f"tcp://*:{port}", "topic": "", **more}


def test_the_engines_wildcard_is_the_pods_address() -> None:
    assert said(FEED, answer(rank0=source(replay_endpoint="tcp://*:5558", buffer_steps=10000))) == Addresses(
        "tcp://10.1.2.3:5557", "tcp://10.1.2.3:5558"
    )


@pytest.mark.parametrize("host", ["*", "0.0.0.0", "[::]", "::", "[0:0:0:0:0:0:0:0]"])
def test_every_form_of_any_host_is_known(host: str) -> None:
    assert said(FEED, answer(rank0=source(endpoint=f"tcp://{host}:7"))) == Addresses("tcp://10.1.2.3:7")


@pytest.mark.parametrize(
    ("own", "host"),
    [
        ("10.1.2.3", "10.1.2.3"),
        ("10.1.2.3", "[::ffff:10.1.2.3]"),
        ("[fd00::1]", "[fd00::1]"),
        ("[fd00::1]", "fd00:0:0::1"),
        ("[FD00::1]", "[fd00::0001]"),
        ("pod-0.pods", "POD-0.pods"),
    ],
)
def test_a_publisher_bound_to_a_random_port_says_its_own_address(own: str, host: str) -> None:
    """vLLM, started with `tcp://*:0`."""
    said_at = source(endpoint=f"tcp://{host}:41234", replay_endpoint=f"tcp://{host}:41235")
    assert said(FeedSpec(Endpoint(f"{own}:8000")), answer(rank0=said_at)) == Addresses(
        f"tcp://{own}:41234", f"tcp://{own}:41235"
    )


@pytest.mark.parametrize(
    "host",
    ["10.1.2.4", "127.0.0.1", "localhost", "10.1.2.3.evil.example", "[::1]", "[fd00::1]", "metadata", "10.1.2.3:1"],
)
def test_an_engine_cannot_send_the_picker_to_another_host(host: str) -> None:
    elsewhere = f"tcp://{host}:5557"
    assert isinstance(said(FEED, answer(rank0=source(endpoint=elsewhere))), NoEvents)
    assert said(FEED, answer(rank0=source(replay_endpoint=elsewhere))) == Addresses("tcp://10.1.2.3:5557")


@pytest.mark.parametrize("port", ["0", "65536", "99999", "-1", "٣", "123456"])
def test_what_is_no_port_is_refused(port: str) -> None:
    assert isinstance(said(FEED, answer(rank0=source(endpoint=f"tcp://*:{port}"))), NoEvents)
    assert said(FEED, answer(rank0=source(replay_endpoint=f"tcp://*:{port}"))) == Addresses("tcp://10.1.2.3:5557")


def test_an_ipv6_pod_keeps_its_brackets() -> None:
    assert said(FeedSpec(Endpoint("[fd00::1]:8000")), answer(rank0=source())) == Addresses("tcp://[fd00::1]:5557")


def test_the_endpoints_rank_is_taken() -> None:
    ranks = answer(rank0=source(1), rank1=source(2))
    assert said(FeedSpec(FEED.endpoint, rank=1), ranks) == Addresses("tcp://10.1.2.3:2")
    assert isinstance(said(FeedSpec(FEED.endpoint, rank=2), ranks), NoEvents)
    assert said(FeedSpec(FEED.endpoint, rank=1), answer(rank0=source(7))) == Addresses("tcp://10.1.2.3:7")


@pytest.mark.parametrize(
    ("sources", "reason"),
    [
        (answer(), "off"),
        (answer(rank0=source(endpoint="tcp://10.9.9.9:1")), "connects"),
        (answer(rank0=source(endpoint="ipc:///tmp/x")), "connects"),
        (answer(rank0={"endpoint": None}), "no rank"),
    ],
)
def test_what_can_not_be_followed_has_a_reason(sources: Mapping[int, EventSource], reason: str) -> None:
    found = said(FEED, sources)
    assert isinstance(found, NoEvents)
    assert reason in found.reason


def test_a_publisher_that_keeps_nothing_has_no_replay() -> None:
    assert said(FEED, answer(rank0=source(replay_endpoint="tcp://*:1", buffer_steps=0))) == Addresses(
        "tcp://10.1.2.3:5557"
    )


def test_ports_go_up_with_the_rank() -> None:
    assert by_ports(FeedSpec(FEED.endpoint, rank=3), Ports(5557, 5657)) == Addresses(
        "tcp://10.1.2.3:5560", "tcp://10.1.2.3:5660"
    )
    assert by_ports(FEED, Ports(5557)) == Addresses("tcp://10.1.2.3:5557")
    assert isinstance(by_ports(FEED, Ports()), NoEvents)
    assert isinstance(by_ports(FEED, Ports(0)), NoEvents)
    assert isinstance(by_ports(FeedSpec(FEED.endpoint, rank=9), Ports(65530)), NoEvents)
    assert by_ports(FeedSpec(FEED.endpoint, rank=9), Ports(5557, 65530)) == Addresses("tcp://10.1.2.3:5566")


@pytest.mark.parametrize("answer_is", [Unanswered(Why.REFUSED, "", 404), Unanswered(Why.REFUSED, "", 307)])
async def test_an_engine_that_does_not_know_the_question_is_followed_at_the_pools_ports(answer_is: Unanswered) -> None:
    assert await discover(Engines(answer_is), FEED, Ports(5557)) == Addresses("tcp://10.1.2.3:5557")


@pytest.mark.parametrize(
    "answer_is",
    [Unanswered(Why.REFUSED, "", 503), Unanswered(Why.SLOW), Unanswered(Why.AWAY), Unanswered(Why.TOO_LONG)],
)
async def test_an_engine_that_does_not_answer_is_asked_again(answer_is: Unanswered) -> None:
    with pytest.raises(Unreachable):
        await discover(Engines(answer_is), FEED, Ports(5557))


async def test_an_answer_that_is_none_is_told() -> None:
    found = await discover(Engines(Unanswered(Why.UNREADABLE)), FEED, Ports(5557))
    assert isinstance(found, NoEvents)
    assert "unreadable" in found.reason
