import asyncio
from typing import TYPE_CHECKING, Any, cast

import pytest
from multipick_epp.blocks import root_key
from multipick_epp.events import feed as feeds
from multipick_epp.events.discover import FeedSpec, Ports, Unreachable
from multipick_epp.events.feed import Common, Feed
from multipick_epp.types import Endpoint

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from multipick_epp.events.source import Source


class Subscribed:
    """A source whose socket loses its peer and finds it again by itself."""

    def __init__(self) -> None:
        self.connected = False
        self.failure = None


@pytest.fixture
async def subscribing(monkeypatch: pytest.MonkeyPatch) -> "tuple[Feed, Subscribed, Callable[[], Awaitable[None]]]":
    async def refuse(*_: object) -> None:
        raise Unreachable("nobody answers")

    monkeypatch.setattr(feeds, "discover", refuse)
    monkeypatch.setattr(feeds, "_RETRY_S", (0.0, 0.0))
    feed, source = (
        Feed(FeedSpec(Endpoint("10.0.0.1:8000")), lambda lora: root_key(b"", "m", lora), lambda: None),
        Subscribed(),
    )
    feed._source = cast("Source", source)

    async def subscribe() -> None:
        nobody: Any = None
        await feed._subscribe(Common(nobody, nobody, nobody, Ports(), asyncio.Semaphore()))

    return feed, source, subscribe


async def test_what_kept_the_events_away_is_told_no_longer_once_they_come(
    subscribing: "tuple[Feed, Subscribed, Callable[[], Awaitable[None]]]",
) -> None:
    feed, source, subscribe = subscribing
    following = asyncio.ensure_future(subscribe())
    try:
        async with asyncio.timeout(5):
            while "unreachable" not in feed._why:
                await asyncio.sleep(0)
            source.connected = True
            while feed._why:
                await asyncio.sleep(0)
    finally:
        following.cancel()
