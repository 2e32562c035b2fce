"""The tracker holds what the engine holds, block for block."""

from collections.abc import Sequence

import pytest
from multipick_epp.blocks import block_keys, encode_extra, root_key, token_bytes
from multipick_epp.events.decode import Batch, Cleared, Event, Removed, Stored
from multipick_epp.events.key_table import MAX_IDLE, MAX_WAITING_BLOCKS, MAX_WAITING_BYTES, KeyTable
from multipick_epp.events.tracker import MIN_TURN, Tracker
from multipick_epp.events.unnamed import MAX_UNNAMED
from multipick_epp.state.cache import Cache
from multipick_epp.state.caches import CACHES_AT_MOST, WINDOWS_AT_MOST
from multipick_epp.types import BlockKey, Endpoint, Mode

POD = Endpoint("10.0.0.1:8000")
SIZE = 2
IDS = [1, 2, 3, 4, 5, 6, 7, 8]


def root(lora: str | None) -> BlockKey:
    return root_key(b"secret", "model", lora)


KEYS = block_keys(root(None), IDS, SIZE)


def stored(
    hashes: Sequence[int],
    parent: int | None,
    ids: Sequence[int],
    *,
    medium: str = "GPU",
    group: int = 0,
    size: int = SIZE,
    kind: str = "full_attention",
    window: int = 0,
    lora: str | None = None,
    extras: dict[int, bytes] | None = None,
    remote: bool = False,
) -> Stored:
    return Stored(hashes, parent, token_bytes(ids), size, medium, group, kind, window, lora, extras or {}, remote)


def removed(*hashes: int, medium: str = "GPU", group: int = 0, remote: bool = False) -> Removed:
    return Removed(hashes, medium, group, remote)


def prompt(first: int = 101) -> Stored:
    """IDS from the start of a prompt, as hashes 101 to 104."""
    return stored([first, first + 1, first + 2, first + 3], None, IDS)


def tell(tracker: Tracker, *events: Event, unreadable: int = 0) -> None:
    tracker.apply(Batch(0.0, events, 0, unreadable))


def gpu(group: int = 0, **fields: int | str) -> Cache:
    return Cache(POD, SIZE, "GPU", group, **fields)  # type: ignore[arg-type]


def held(tracker: Tracker, cache: Cache | None = None) -> set[BlockKey]:
    return set(tracker.contents().get(cache or gpu(), ()))


@pytest.fixture
def tracker() -> Tracker:
    return Tracker(POD, root, complete=True, media=("CPU",))


def test_stored_blocks_have_the_keys_of_the_same_prompt_in_a_request(tracker: Tracker) -> None:
    tell(tracker, stored([101, 102], None, IDS[:4]), stored([103, 104], 102, IDS[4:]))
    clears, (change,) = tracker.take()
    assert (clears, change.cache, change.stored, change.removed) == ([], gpu(), KEYS, [])


def test_a_change_is_told_once_and_the_last_operation_wins(tracker: Tracker) -> None:
    tell(tracker, prompt(), removed(104), removed(103), stored([103], 102, IDS[4:6]))
    (change,) = tracker.take()[1]
    assert (set(change.stored), change.removed) == (set(KEYS[:3]), [KEYS[3]])
    assert tracker.take() == ([], [])


def test_only_the_first_and_the_last_copy_change_the_index(tracker: Tracker) -> None:
    """As in the recording A, steps 12: two copies, and the removal of one leaves the hit whole."""
    tell(tracker, prompt())
    tracker.take()
    again = stored([104], 103, IDS[6:])
    tell(tracker, again, again)
    tell(tracker, removed(104), removed(104))
    assert tracker.take() == ([], [])
    tell(tracker, removed(104))
    (change,) = tracker.take()[1]
    assert change.removed == [KEYS[3]]


def test_a_repeated_prompt_of_one_block_is_a_second_copy(tracker: Tracker) -> None:
    one = stored([101], None, IDS[:2])
    tell(tracker, one, one, removed(101))
    assert held(tracker) == {KEYS[0]}
    tell(tracker, removed(101))
    assert held(tracker) == set()


def test_a_full_report_adds_no_copies(tracker: Tracker) -> None:
    """As in the recording A, step 10: what was hit is reported from the start, then the recomputed block follows."""
    tell(tracker, prompt())
    tell(tracker, stored([101, 102, 103], None, IDS[:6]), stored([104], 103, IDS[6:]))
    tell(tracker, removed(104), removed(103), removed(102), removed(101))
    assert held(tracker) == {KEYS[3]}  # of which there were two copies
    tell(tracker, removed(104))
    assert held(tracker) == set()


def test_a_full_report_to_one_who_joined_late_adds_what_is_lacking_and_no_copies() -> None:
    tracker = Tracker(POD, root, complete=False)
    tell(tracker, stored([103], 102, IDS[4:6]), prompt())  # an orphan, and its parents with it
    assert held(tracker) == set(KEYS)
    tell(tracker, removed(103))
    assert held(tracker) == {KEYS[0], KEYS[1], KEYS[3]}


def test_a_prompt_stored_again_after_its_head_went_counts_copies_of_the_rest(tracker: Tracker) -> None:
    tell(tracker, prompt(), removed(101), prompt(), removed(102))
    assert held(tracker) == set(KEYS)


def test_media_and_groups_are_counted_apart(tracker: Tracker) -> None:
    tell(tracker, prompt(), stored([101], None, IDS[:2], medium="CPU"), stored([101], None, IDS[:2], group=1))
    tell(tracker, removed(101))
    assert held(tracker) == set(KEYS[1:])
    assert held(tracker, Cache(POD, SIZE, "CPU")) == held(tracker, gpu(1)) == {KEYS[0]}


def test_an_offload_tier_names_blocks_by_hash_alone(tracker: Tracker) -> None:
    cpu = Cache(POD, SIZE, "CPU")
    tell(tracker, prompt(), removed(102), stored([101, 102], None, [], medium="CPU", size=0))
    assert held(tracker, cpu) == set(KEYS[:2])
    tell(tracker, removed(101, medium="CPU"), Cleared())
    assert held(tracker, cpu) == {KEYS[1]}
    assert held(tracker) == set()


@pytest.mark.parametrize("size", [0, SIZE, 16], ids=["no size", "its size", "a size of its own"])
def test_an_offload_tier_may_speak_before_the_gpu(tracker: Tracker, size: int) -> None:
    cpu = Cache(POD, SIZE, "CPU")
    tell(tracker, stored([101, 102, 103], None, [], medium="CPU", size=size), removed(103, medium="CPU"))
    assert tracker.contents() == {}
    tell(tracker, prompt())
    assert (held(tracker, cpu), tracker.mode) == (set(KEYS[:2]), Mode.EXACT)
    tell(tracker, removed(101, medium="CPU"))
    assert held(tracker, cpu) == {KEYS[1]}


def test_an_offload_tier_that_says_no_tokens_names_no_block(tracker: Tracker) -> None:
    """No size and no tokens fit each other: they must not pass for whole blocks, whose name would stay."""
    tell(tracker, stored([900], None, [9, 9]), stored([101, 102], None, [], medium="CPU", size=0))
    assert held(tracker, Cache(POD, SIZE, "CPU")) == set()
    tell(tracker, prompt())
    assert held(tracker) == {*KEYS, *block_keys(root(None), [9, 9], SIZE)}


def test_an_offload_tier_takes_its_keys_from_whatever_names_them_later() -> None:
    """The GPU's events were missed; what names the blocks are other groups, orphans and their parents, copies."""
    tracker = Tracker(POD, root, complete=False, media=("CPU",))
    cpu = Cache(POD, SIZE, "CPU")
    tell(tracker, stored([900], None, [9, 9]))  # the GPU's cache is known by another block
    tell(tracker, stored([101, 102, 103, 104], None, [], medium="CPU", size=0))
    tell(tracker, stored([103, 104], 102, IDS[4:]))  # an orphan
    assert held(tracker, cpu) == set()
    tell(tracker, stored([101], None, IDS[:2]), stored([102], 101, IDS[2:4]))
    assert held(tracker, cpu) == set(KEYS)


def test_an_offload_tier_of_a_group_whose_blocks_another_group_has_named(tracker: Tracker) -> None:
    cpu = Cache(POD, SIZE, "CPU", 1, "sliding_window", 4)
    tell(tracker, stored([103], None, [], medium="CPU", size=0, group=1), prompt())
    tell(tracker, stored([103, 104], 102, IDS, group=1, kind="sliding_window", window=4))
    assert held(tracker, cpu) == {KEYS[2]}


def test_a_tier_that_lost_events_leave_in_doubt_is_named_and_dropped_unless_confirmed(tracker: Tracker) -> None:
    cpu = Cache(POD, SIZE, "CPU")
    tell(tracker, stored([900], None, [9, 9]), stored([101, 102, 103], None, [], medium="CPU", size=0))
    tracker.lost()
    tell(tracker, prompt())
    assert held(tracker, cpu) == set(KEYS[:3])
    tell(tracker, stored([101], None, [], medium="CPU", size=0), Cleared(), prompt())
    assert held(tracker, cpu) == {KEYS[0]}


def test_media_that_are_not_followed_cost_nothing(tracker: Tracker) -> None:
    tell(tracker, *(stored([hash_], None, [], medium=f"M{hash_}", size=0) for hash_ in range(1000)))
    tell(tracker, stored([101], None, IDS[:2], medium="DISK"), removed(101, medium="DISK"))
    assert (tracker.contents(), tracker.skipped_blocks, tracker.entries) == ({}, 1001, 0)
    assert tracker.mode is Mode.EXACT


def test_more_caches_than_are_indexed_leave_the_endpoint_approximate_and_say_so(tracker: Tracker) -> None:
    """Eleven groups on three media: what the index has no place for is not sent to it again and again."""
    tracker = Tracker(POD, root, complete=True, media=("CPU", "STORAGE"))
    for group in range(11):
        for medium in ("CPU", "STORAGE", "GPU"):
            tell(tracker, stored([101], None, IDS[:2], medium=medium, group=group))
    assert len(tracker.contents()) == CACHES_AT_MOST
    assert (tracker.mode, tracker.limit, tracker.unplaced_blocks) == (Mode.APPROX, "more than 32 caches", 1)
    tell(tracker, Cleared(), stored([101], None, IDS[:2]), removed(101, group=10))
    assert tracker.mode is Mode.APPROX


def test_more_windows_than_are_indexed_leave_the_endpoint_approximate_and_say_so(tracker: Tracker) -> None:
    tell(tracker, stored([101], None, IDS[:2]))
    for group, window in enumerate([9, *(8 * each + 1 for each in range(1, WINDOWS_AT_MOST + 2))], start=1):
        assert (tracker.mode, tracker.limit) == (Mode.EXACT, "")
        tell(tracker, stored([101], None, IDS[:2], group=group, kind="sliding_window", window=window))
    assert (tracker.mode, tracker.limit) == (Mode.APPROX, f"more than {WINDOWS_AT_MOST} windows")
    assert len(tracker.contents()) == 1 + WINDOWS_AT_MOST + 1, "two groups share a window"


def test_more_block_sizes_than_requests_are_hashed_by_are_not_followed(tracker: Tracker) -> None:
    for group in range(8):
        tell(tracker, stored([group], None, [1] * (group + 1), size=group + 1, group=group))
    assert {cache.block_size for cache in tracker.contents()} == {1, 2, 3, 4}
    assert (tracker.mode, tracker.limit) == (Mode.APPROX, "more than 4 block sizes")


def test_what_waits_for_a_parent_is_bounded_in_bytes() -> None:
    tracker = Tracker(POD, root, complete=False)
    size = 65_536
    for orphan in range(200):
        tell(tracker, stored([2 * orphan + 1], 2 * orphan, [orphan] * size, size=size))
    assert tracker.waiting_blocks == MAX_WAITING_BYTES // (4 * size)


def test_blocks_without_a_name_are_bounded(tracker: Tracker) -> None:
    tell(tracker, *(stored([number], None, [], medium="CPU", size=0) for number in range(MAX_UNNAMED + 1)))
    assert 0 < tracker.entries <= MAX_UNNAMED


def test_a_sliding_window_group_takes_its_keys_from_the_full_group(tracker: Tracker) -> None:
    """Its events are sparse, may come before those of the full group, and their tokens don't fit."""
    window = {"group": 1, "kind": "sliding_window", "window": 4}
    cache = gpu(1, kind="sliding_window", window=4)
    tell(tracker, stored([103, 104], 102, IDS, **window))  # type: ignore[arg-type]
    assert (held(tracker, cache), tracker.mode) == (set(), Mode.APPROX)
    tell(tracker, stored([], None, [], **window), prompt())  # type: ignore[arg-type]
    assert (held(tracker, cache), tracker.mode) == (set(KEYS[2:]), Mode.EXACT)
    tell(tracker, removed(103, group=1))
    assert held(tracker, cache) == {KEYS[3]}
    assert held(tracker) == set(KEYS)


def test_blocks_elsewhere_are_not_counted(tracker: Tracker) -> None:
    tell(tracker, stored([101], None, IDS[:2], remote=True))
    assert tracker.contents() == {}
    tell(tracker, prompt(), removed(101, remote=True))
    assert held(tracker) == set(KEYS)


def test_an_adapter_and_a_salt_are_part_of_the_key(tracker: Tracker) -> None:
    """As in the recording C: LoRA and salt at once, in an event and in a request."""
    salt = {0: encode_extra(["S"])}
    tell(tracker, stored([1, 2], None, IDS[:4], lora="ad1", extras=salt), stored([3], 2, IDS[4:6], lora="ad1"))
    assert held(tracker) == set(block_keys(root("ad1"), IDS[:6], SIZE, salt))
    assert held(tracker).isdisjoint(KEYS)


def test_all_blocks_cleared_empties_the_gpu_and_is_told_before_what_follows(tracker: Tracker) -> None:
    tell(tracker, prompt())
    tracker.take()
    tell(tracker, removed(104), stored([9], None, [9, 9]), Cleared(), stored([101], None, IDS[:2]))
    clears, (change,) = tracker.take()
    assert (clears, change.stored, change.removed) == (["GPU"], [KEYS[0]], [])
    assert held(tracker) == {KEYS[0]}


def test_clears_in_a_row_cost_one_look_at_the_names(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine with a large tier behind its GPU has a million of them."""
    looks = []
    recount = KeyTable.recount

    def counted(names: KeyTable) -> None:
        looks.append(names)
        recount(names)

    monkeypatch.setattr(KeyTable, "recount", counted)
    twice = stored([103], 102, IDS[4:6])
    for hashes in ([101, 102], [103]):
        tell(tracker, prompt(), stored(hashes, None, [], medium="CPU", size=0))
    looks.clear()
    tell(tracker, *(event for _ in range(16) for event in (Cleared(), prompt(), twice, removed(104))))
    assert len(looks) == 1
    tell(tracker, *(removed(each) for each in (101, 102, 103)))
    assert held(tracker) == {KEYS[2]}, "one copy is left of two"
    tell(tracker, removed(103), *(removed(each, medium="CPU") for each in (101, 102, 103)))
    for number in range(1000, MAX_IDLE + 2000):  # names that nobody holds are forgotten
        tell(tracker, stored([number], None, [number, 0]), removed(number))
    tell(tracker, stored([105], 104, [9, 10]))
    assert (held(tracker), tracker.waiting_blocks) == (set(), 1)


def test_orphans_wait_for_their_parent() -> None:
    tracker = Tracker(POD, root, complete=False)
    tell(tracker, stored([104], 103, IDS[6:]), stored([102, 103], 101, IDS[2:6]))
    assert (held(tracker), tracker.waiting_blocks) == (set(), 3)
    tell(tracker, stored([101], None, IDS[:2]))
    assert (held(tracker), tracker.waiting_blocks) == (set(KEYS), 0)


def test_an_orphan_removed_while_it_waits_is_not_resident_after() -> None:
    tracker = Tracker(POD, root, complete=False)
    orphans = stored([102, 103], 101, IDS[2:6])
    tell(tracker, orphans, stored([103], 102, IDS[4:6]), removed(102), removed(103))
    tell(tracker, stored([101], None, IDS[:2]))
    assert held(tracker) == {KEYS[0], KEYS[2]}  # of the third there were two copies


def test_orphans_are_bounded_and_the_oldest_go_first() -> None:
    tracker = Tracker(POD, root, complete=False)
    for orphan in range(MAX_WAITING_BLOCKS + 1):
        tell(tracker, stored([10 * orphan + 1], 10 * orphan, [orphan, 0]))
    assert tracker.waiting_blocks == MAX_WAITING_BLOCKS
    tell(tracker, stored([0], None, [1, 1]), stored([10], None, [2, 2]))
    assert len(held(tracker)) == 3  # the two parents, and the child of the second


def test_a_block_stored_after_a_parent_proves_all_before_it(tracker: Tracker) -> None:
    tell(tracker, prompt(), removed(104), removed(103), removed(102))  # as after events that were miscounted
    tell(tracker, stored([104], 103, IDS[6:]))
    assert held(tracker) == set(KEYS)


def test_after_lost_events_what_is_held_stays_but_is_in_doubt(tracker: Tracker) -> None:
    tell(tracker, prompt())
    tracker.lost()
    assert (held(tracker), tracker.mode) == (set(KEYS), Mode.APPROX)
    tell(tracker, prompt(), removed(104))  # a copy, or stored again since: unknown, so counted once
    assert held(tracker) == set(KEYS[:3])


def test_an_event_that_cant_be_read_is_a_lost_one(tracker: Tracker) -> None:
    tell(tracker, prompt(), unreadable=1)
    assert tracker.mode is Mode.APPROX


def test_a_whole_turn_of_the_cache_makes_it_exact_and_drops_what_was_never_confirmed(tracker: Tracker) -> None:
    tell(tracker, prompt(), stored([900], None, [9, 9]))
    tracker.lost()
    tell(tracker, stored([105], 104, [9, 10]))  # confirms its parents
    modes = []
    for turn in range(MIN_TURN):
        modes.append(tracker.mode)
        tell(tracker, stored([1000 + turn], None, [turn, 77]), removed(1000 + turn))
    assert [*modes, tracker.mode] == [*[Mode.APPROX] * MIN_TURN, Mode.EXACT]
    assert held(tracker) == set(block_keys(root(None), [*IDS, 9, 10], SIZE))


def test_a_removal_of_an_unknown_block_starts_the_turn_anew() -> None:
    tracker = Tracker(POD, root, complete=False)
    for turn in range(MIN_TURN):
        tell(tracker, stored([turn], None, [turn, 77]), removed(turn), *([removed(999_999)] if turn == 9 else []))
    before = tracker.mode
    for turn in range(10):
        tell(tracker, stored([turn], None, [turn, 77]), removed(turn))
    assert [before, tracker.mode] == [Mode.APPROX, Mode.EXACT]


def test_a_clear_makes_it_exact() -> None:
    tracker = Tracker(POD, root, complete=False)
    assert tracker.mode is Mode.APPROX
    tell(tracker, Cleared(), prompt())
    assert (tracker.mode, held(tracker)) == (Mode.EXACT, set(KEYS))


def names_of(tracker: Tracker) -> KeyTable:
    (names,) = tracker._names.values()
    return names


def test_names_of_blocks_that_left_are_forgotten_in_the_end(tracker: Tracker) -> None:
    for number in range(MAX_IDLE + 1000):
        tell(tracker, stored([number], None, [number, 0]), removed(number))
    assert len(names_of(tracker).keys) == len(names_of(tracker).parents) <= MAX_IDLE


def test_names_are_forgotten_even_if_the_block_stays_under_another(tracker: Tracker) -> None:
    """Engines may hash more than the block (tokens that follow it): many hashes, one key."""
    tell(tracker, stored([1], None, IDS[:2]))
    for number in range(2, MAX_IDLE + 1000):
        tell(tracker, stored([number], None, IDS[:2]), removed(number))
    assert held(tracker) == {KEYS[0]}
    assert len(names_of(tracker).keys) <= MAX_IDLE + 1
    tell(tracker, removed(1))
    assert held(tracker) == set()


def test_a_resident_blocks_name_is_never_forgotten(tracker: Tracker) -> None:
    tell(tracker, prompt(), stored([102], 101, IDS[2:4]), removed(102))  # one of its two copies
    for number in range(1000, MAX_IDLE + 2000):
        tell(tracker, stored([number], None, [number, 0]), removed(number))
    tell(tracker, stored([105], 104, [9, 10]))
    assert set(KEYS) < held(tracker)
    tell(tracker, *(removed(block_hash) for block_hash in range(101, 106)))
    assert held(tracker) == set()


def test_hostile_events_have_no_place(tracker: Tracker) -> None:
    tell(
        tracker, stored([1], None, [1], size=0), prompt(), stored([1], None, IDS[:3], size=3)
    )  # another block size in the same group
    for group in range(200):
        tell(tracker, stored([1], None, IDS[:2], group=group))
    assert tracker.unplaced_blocks > 100
    assert len(tracker.contents()) <= CACHES_AT_MOST
    tell(tracker, stored([55], None, IDS[:3]))  # tokens don't fit the hashes
    assert tracker.mode is Mode.APPROX


def test_two_engine_hashes_of_one_key_are_two_copies(tracker: Tracker) -> None:
    """An adapter loaded again from another path: the engine's hashes differ, a request can't tell them apart."""
    tell(tracker, stored([1], None, IDS[:2], lora="ad1"), stored([2], None, IDS[:2], lora="ad1"), removed(1))
    assert len(held(tracker)) == 1
    tell(tracker, removed(2))
    assert held(tracker) == set()
