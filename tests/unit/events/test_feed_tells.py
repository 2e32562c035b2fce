import asyncio
from typing import TYPE_CHECKING, Any, cast

import pytest
import zmq
from multipick_epp.blocks import root_key
from multipick_epp.events import subscription as subscriptions
from multipick_epp.events.discover import Addresses, FeedSpec, Ports, Unreachable
from multipick_epp.events.feed import Feed
from multipick_epp.events.sequence import Begin, Take
from multipick_epp.types import Endpoint

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from multipick_epp.events.source import Source


def make_feed() -> Feed:
    return Feed(FeedSpec(Endpoint("10.0.0.1:8000")), lambda lora: root_key(b"", "m", lora), lambda: None)


class Subscribed:
    """A source whose socket loses its peer and finds it again by itself."""

    def __init__(self) -> None:
        self.connected = False
        self.failure = None


@pytest.fixture
async def subscribing(monkeypatch: pytest.MonkeyPatch) -> "tuple[Feed, Subscribed, Callable[[], Awaitable[None]]]":
    async def refuse(*_: object) -> None:
        raise Unreachable("nobody answers")

    monkeypatch.setattr(subscriptions, "discover", refuse)
    monkeypatch.setattr(subscriptions, "_RETRY_S", (0.0, 0.0))
    feed, source = make_feed(), Subscribed()
    feed.subscription.source = cast("Source", source)

    async def subscribe() -> None:
        nobody: Any = None
        await feed.subscription.keep_up(nobody, nobody, Ports())

    return feed, source, subscribe


async def test_what_kept_the_events_away_is_told_no_longer_once_they_come(
    subscribing: "tuple[Feed, Subscribed, Callable[[], Awaitable[None]]]",
) -> None:
    feed, source, subscribe = subscribing
    following = asyncio.ensure_future(subscribe())
    try:
        async with asyncio.timeout(60):
            while "unreachable" not in feed.subscription.why:
                await asyncio.sleep(0)
            source.connected = True
            while feed.subscription.why:
                await asyncio.sleep(0)
    finally:
        following.cancel()


def test_an_engine_that_is_another_one_with_each_message_is_told_no_more_often_for_that(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nor does it fill the log."""
    caplog.set_level("INFO")
    feed = make_feed()
    feed.sink(Begin(complete=True))
    assert feed.incarnation is not None
    feed.incarnation.next_s, feed.incarnation.retry_s, feed.incarnation.pause_s = 7.0, 8.0, 2.0
    for _ in range(100):
        feed.sink(Begin(complete=True))
        feed.sink(Take(0, b"nothing that can be read"))
    incarnation = feed.incarnation
    assert (incarnation.next_s, incarnation.retry_s, incarnation.pause_s) == (7.0, 8.0, 2.0)
    assert (incarnation.batches, incarnation.stale, feed.stats().restarts) == (100, True, 100)
    assert [record.message for record in caplog.records] == ["engine found", "batch not read"]


async def test_what_was_counted_stays_counted_when_the_subscription_is_made_anew() -> None:
    feed = make_feed()
    with zmq.Context() as context:
        for number in range(1, 4):
            feed.subscription.open(context, Addresses("tcp://127.0.0.1:1", None))
            assert feed.subscription.source is not None
            feed.subscription.source.sequence.gaps += 1
            feed.subscription.source.malformed += 1
            assert (feed.stats().gaps, feed.stats().undecodable) == (number, number)
        feed.close()
        assert (feed.stats().gaps, feed.stats().undecodable) == (3, 3)
