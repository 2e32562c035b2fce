"""The rules by which an engine doesn't match its pool."""

from dataclasses import replace

import pytest
from multipick_epp.checks import mismatch
from multipick_epp.engines.models import ServedModels
from multipick_epp.events.feed_stats import FeedStats
from multipick_epp.types import Endpoint, Mode

FEED = FeedStats(
    endpoint=Endpoint("10.0.0.1:8000"),
    mode=Mode.APPROX,
    connected=True,
    blocks=0,
    waiting_blocks=0,
    unplaced_blocks=0,
    operations=0,
    batches=0,
    gaps=0,
    restarts=0,
    undecodable=0,
    uploads=0,
    lag_s=0.0,
    why="",
)


@pytest.mark.parametrize(
    ("wanted", "served", "words"),
    [
        (["a"], ServedModels(["a"]), None),
        ([], ServedModels(["a"]), None),
        (["a", "b"], ServedModels(["b", "a"]), None),
        (["a"], ServedModels(["b"]), "it serves b, and not a, which requests of this pool ask for"),
        (["a", "alias"], ServedModels(["a"]), "it serves a, and not alias, which requests of this pool ask for"),
        (["a"], ServedModels([]), "it serves no model, and not a, which requests of this pool ask for"),
        (["a", "alias"], ServedModels(["a"], takes_any=True), None),
        (["a"], ServedModels(["b"], takes_any=True), "it serves b, and not a, which requests of this pool ask for"),
    ],
)
def test_an_engine_has_to_serve_what_the_pools_requests_ask_for(
    wanted: list[str], served: ServedModels, words: str | None
) -> None:
    assert mismatch.model(wanted, served) == words


def test_an_engines_own_words_are_cut_short() -> None:
    found = mismatch.model(["a"], ServedModels([f"{number}" * 1000 for number in range(1000)]))
    assert found is not None
    assert len(found) < 600


@pytest.mark.parametrize(
    ("wanted", "found", "words"),
    [
        (16, 16, None),
        (None, 64, None),
        (16, None, None),
        (16, 64, "it caches blocks of 64 tokens, where the pool names 16"),
    ],
)
def test_a_block_size_is_wrong_where_both_are_told(wanted: int | None, found: int | None, words: str | None) -> None:
    assert mismatch.block_size(wanted, found) == words


@pytest.mark.parametrize(
    ("feed", "known", "longest", "words"),
    [
        (None, False, 1000, None),  # another picker follows it, and tells
        (replace(FEED, why="the engine has its events off"), False, 0, "the engine has its events off"),
        (replace(FEED, why="the engine has its events off", batches=9), True, 0, "the engine has its events off"),
        (replace(FEED, connected=False), False, 0, "nothing answers at its publisher's port"),
        (FEED, False, 0, None),  # it had nothing to tell yet
        (FEED, False, 31, None),
        (FEED, False, 32, "prefix caching"),
        (replace(FEED, batches=1), False, 1000, None),
        (FEED, True, 1000, None),  # it told whoever followed it before
        (replace(FEED, batches=1, limit="more than 32 caches"), True, 0, "in part: more than 32 caches"),
    ],
)
def test_an_engine_is_silent_where_it_had_something_to_tell(
    feed: FeedStats | None, known: bool, longest: int, words: str | None
) -> None:
    found = mismatch.events(feed, known, longest, size=16)
    assert (found is None) == (words is None)
    assert words is None or words in (found or "")
