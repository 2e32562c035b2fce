"""What is known of a beginning is that text's and no other's, and takes no more memory than it may."""

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multipick_epp.beginnings import Beginnings

ROOT = ("root",)
STRIDE = 100


def numbered(whole: str | bytes, known: int) -> list[str]:
    """A value for each stride behind the known ones: all that stands before its end."""
    return [str(whole[:end]) for end in range((known + 1) * STRIDE, len(whole) + 1, STRIDE)]


def put(beginnings: Beginnings[str], whole: str | bytes, root: tuple[str, ...] = ROOT) -> int:
    """How many strides were known, of which each had its own value."""
    known = beginnings.find(root, whole, STRIDE)
    assert [*known.values] == numbered(whole, 0)[: len(known.values)]
    beginnings.keep(known, whole, numbered(whole, len(known.values)))
    return len(known.values)


def large() -> Beginnings[str]:
    return Beginnings(10_000_000, len)


def random_text(length: int, seed: int = 0) -> str:
    return "".join(random.Random(seed).choices("abcdefgh ", k=length))


def test_a_text_that_grew_is_known_up_to_its_last_whole_stride() -> None:
    beginnings, text = large(), random_text(1_050)
    assert put(beginnings, text) == 0
    assert put(beginnings, text) == 10
    assert put(beginnings, text + random_text(500, 1)) == 10
    assert put(beginnings, text + random_text(500, 1)) == 15


@pytest.mark.parametrize("at", [0, 5, 99, 100, 450, 999])
def test_texts_that_part_are_known_to_where_they_do(at: int) -> None:
    beginnings, text = large(), random_text(1_000)
    put(beginnings, text)
    assert put(beginnings, text[:at] + "X" + text[at + 1 :]) == at // STRIDE
    assert put(beginnings, text[:at] + "X" + text[at + 1 :]) == 10


def test_a_text_shorter_than_a_stride_is_never_known() -> None:
    beginnings = large()
    assert put(beginnings, "") == put(beginnings, "x" * 99) == put(beginnings, "x" * 99) == 0
    assert len(beginnings) == 0


def test_what_was_kept_under_another_root_is_not_known() -> None:
    beginnings, text = large(), random_text(1_000)
    put(beginnings, text)
    assert put(beginnings, text, ("other",)) == 0
    assert put(beginnings, text.encode()) == 0
    assert put(beginnings, text.encode()) == 10


def test_equal_strides_behind_other_beginnings_are_others() -> None:
    beginnings = large()
    first, second, same = random_text(100), random_text(100, 1), random_text(300, 2)
    put(beginnings, first + same)
    assert put(beginnings, second + same) == 0
    assert put(beginnings, first + same) == put(beginnings, second + same) == 4


def test_of_strides_that_end_alike_the_later_is_kept() -> None:
    beginnings, end = large(), random_text(99)
    texts = ["a" + end + "rest" * 50, "b" + end + "rest" * 50]
    assert [put(beginnings, text) for text in (texts[0], texts[1], texts[1], texts[0])] == [0, 0, 3, 0]


def test_a_value_is_never_put_behind_one_that_it_does_not_follow() -> None:
    """Two that found nothing keep what they made, which may have been cut in another way."""
    beginnings, text = large(), random_text(200)
    one = beginnings.find(ROOT, text, STRIDE)
    other = beginnings.find(ROOT, text, STRIDE)
    beginnings.keep(one, text, ["one", "one"])
    beginnings.keep(other, text, ["other"])
    assert [*beginnings.find(ROOT, text, STRIDE).values] == ["other"]
    beginnings.keep(one, text, ["one", "one"])
    assert [*beginnings.find(ROOT, text, STRIDE).values] == ["one", "one"]


def test_what_two_found_at_once_is_kept_once() -> None:
    beginnings, text = large(), random_text(1_000)
    known = beginnings.find(ROOT, text, STRIDE)
    beginnings.keep(known, text, numbered(text, 0))
    size = beginnings.size_bytes
    beginnings.keep(known, text, numbered(text, 0))
    assert (beginnings.size_bytes, len(beginnings)) == (size, 10)


def test_the_least_recently_used_goes_first() -> None:
    texts = [random_text(100, seed) for seed in range(4)]
    beginnings: Beginnings[str] = Beginnings(1_000_000, lambda value: 300_000)
    for text in texts[:3]:
        put(beginnings, text)
    assert put(beginnings, texts[0]) == 1
    put(beginnings, texts[3])
    assert [put(beginnings, texts[seed]) for seed in (0, 3)] == [1, 1]
    assert len(beginnings) == 3
    assert put(beginnings, texts[1]) == 0


def test_a_value_larger_than_the_bound_is_not_kept() -> None:
    beginnings: Beginnings[str] = Beginnings(1_000, lambda value: 2_000)
    put(beginnings, "x" * 300)
    assert (len(beginnings), beginnings.size_bytes) == (0, 0)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 600)), max_size=40), st.integers(0, 20_000))
@settings(deadline=None, derandomize=True)
def test_the_bound_holds_and_every_value_is_the_texts_own(asked: list[tuple[int, int]], max_bytes: int) -> None:
    beginnings: Beginnings[str] = Beginnings(max_bytes, len)
    shared = random_text(250)
    for seed, length in asked:
        put(beginnings, (shared if seed % 2 else "") + random_text(length, seed))
        assert 0 <= beginnings.size_bytes <= max_bytes
        assert (beginnings.size_bytes == 0) == (len(beginnings) == 0)


@pytest.mark.parametrize("kept", [1, 3])
def test_what_was_dropped_since_it_was_found_harms_nothing(kept: int) -> None:
    beginnings: Beginnings[str] = Beginnings(kept * 900, lambda value: 1)
    text = random_text(400)
    put(beginnings, text)
    known = beginnings.find(ROOT, text, STRIDE)
    for seed in range(1, 6):
        put(beginnings, random_text(100, seed))
    longer = text + random_text(200, 9)
    beginnings.keep(known, longer, numbered(longer, len(known.values)))
    for before, after in pairwise([longer, text, longer]):
        put(beginnings, before)
        put(beginnings, after)
