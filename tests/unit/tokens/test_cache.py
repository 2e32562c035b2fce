"""The cache keeps the segments used last, and never more bytes than it may."""

from hypothesis import given, settings
from hypothesis import strategies as st
from multipick_epp.tokens.cache import SegmentCache
from multipick_epp.tokens.segments import First, Ids, Segment, text_of


def known(cache: SegmentCache, *segments: Segment) -> dict[Segment, Ids]:
    found: dict[Segment, Ids] = {}
    unknown = cache.find(segments, found)
    assert sorted(map(text_of, [*found, *unknown])) == sorted(map(text_of, segments))
    return found


def test_the_least_recently_used_segment_goes_first() -> None:
    cache = SegmentCache(max_bytes=1_000_000)
    for segment in "abc":
        cache.put(segment * 1_000, bytes(300_000))
    assert len(cache) == 3
    assert known(cache, "a" * 1_000)
    cache.put("d" * 1_000, bytes(300_000))
    assert {*known(cache, *(segment * 1_000 for segment in "abcd"))} == {segment * 1_000 for segment in "acd"}


def test_the_first_segment_of_a_text_is_another_one() -> None:
    cache = SegmentCache(max_bytes=1_000)
    cache.put("a", b"1111")
    cache.put(First("a"), b"2222")
    assert known(cache, "a", First("a")) == {"a": b"1111", First("a"): b"2222"}


def test_a_segment_larger_than_the_cache_is_not_kept_and_drops_no_other() -> None:
    cache = SegmentCache(max_bytes=1_000)
    cache.put("a", b"1234")
    cache.put("b" * 2_000, b"1234")
    assert len(cache) == 1
    assert known(cache, "a", "b" * 2_000) == {"a": b"1234"}


@given(st.lists(st.tuples(st.text(max_size=40), st.binary(max_size=200)), max_size=60), st.integers(0, 3_000))
@settings(deadline=None, derandomize=True)
def test_the_bound_holds_after_each_put(entries: list[tuple[str, bytes]], max_bytes: int) -> None:
    cache = SegmentCache(max_bytes)
    for text, ids in entries:
        cache.put(text, ids)
        assert 0 <= cache.size_bytes <= max_bytes
        assert (cache.size_bytes == 0) == (len(cache) == 0)


def test_what_was_found_before_stays_and_each_unknown_segment_is_told_once() -> None:
    cache = SegmentCache(max_bytes=1_000)
    cache.put("a", b"1111")
    found: dict[Segment, Ids] = {"a": b"0000"}
    assert cache.find(["b", "a", "b", "c"], found) == ["b", "c"]
    assert found == {"a": b"0000"}
