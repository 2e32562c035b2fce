"""The pool's promises: who goes first, what a lookup finds, and what is told of it."""

from multipick_sim.engine.block_pool import BlockPool
from multipick_sim.engine.values import Cleared, Removed, Stored


def pool_with(*hashes: int, blocks: int = 8) -> tuple[BlockPool, list[int]]:
    """A pool in which one request holds a cached block for each hash."""
    pool = BlockPool(blocks + 1)
    held = pool.allocate(len(hashes))
    pool.cache("r", 0, held, hashes, None)
    pool.take_events()
    return pool, held


def test_the_null_block_is_never_handed_out() -> None:
    pool = BlockPool(4)
    assert pool.allocate(3) == [1, 2, 3]
    assert pool.free == 0


def test_a_lookup_gives_the_longest_cached_prefix_up_to_the_limit() -> None:
    pool, held = pool_with(10, 11, 13)
    assert pool.lookup([10, 11, 12, 13], 4) == held[:2]
    assert pool.lookup([10, 11], 1) == held[:1]
    assert pool.lookup([11, 10], 1) == held[1:2]
    assert pool.lookup([99], 1) == []


def test_freed_blocks_stay_cached_until_they_are_handed_out() -> None:
    pool, held = pool_with(10, 11, blocks=3)
    pool.release(held)
    assert pool.take_events() == ()
    assert pool.lookup([10, 11], 2) == held
    assert pool.allocate(1) == [3]
    assert pool.take_events() == ()
    pool.allocate(1)
    assert pool.take_events() == [Removed([11])]
    assert pool.lookup([10, 11], 2) == held[:1]


def test_the_deepest_block_of_the_oldest_request_goes_first() -> None:
    pool = BlockPool(5)
    for base in (10, 20):
        blocks = pool.allocate(2)
        pool.cache("r", 0, blocks, [base, base + 1], None)
        pool.release(blocks)
    pool.take_events()
    pool.allocate(4)
    assert pool.take_events() == [Removed([11, 10, 21, 20])]


def test_unhashed_blocks_are_used_again_before_any_other() -> None:
    pool = BlockPool(9)
    blocks = pool.allocate(4)
    pool.cache("r", 0, blocks[:2], [10, 11], None)
    pool.release(blocks)
    assert pool.allocate(3) == [4, 3, 5]


def test_touched_blocks_leave_the_free_queue_and_come_back_at_its_end() -> None:
    pool, held = pool_with(10, 11, blocks=4)
    pool.release(held)
    other = pool.allocate(2)
    pool.cache("s", 0, other, [20, 21], None)
    pool.release(other)
    again = pool.lookup([10, 11], 2)
    assert pool.unheld(again) == 2
    pool.touch(again)
    assert pool.unheld(again) == 0
    assert pool.free == 2
    pool.release(again)
    pool.take_events()
    pool.allocate(4)
    assert pool.take_events() == [Removed([21, 20, 11, 10])]


def test_a_block_that_two_requests_hold_is_free_when_both_gave_it_back() -> None:
    pool, held = pool_with(10)
    pool.touch(held)
    pool.release(held)
    assert pool.free == 7
    pool.release(held)
    assert pool.free == 8
    pool.check()


def test_copies_of_a_hash_are_stored_and_removed_one_by_one_and_the_oldest_serves() -> None:
    pool, first = pool_with(10, blocks=3)
    second = pool.allocate(1)
    pool.cache("s", 0, second, [10], None)
    third = pool.allocate(1)
    pool.cache("t", 0, third, [10], None)
    assert pool.take_events() == [Stored("s", 0, [10], None), Stored("t", 0, [10], None)]
    assert pool.cached() == {10: 3}
    assert pool.lookup([10], 1) == first
    pool.release(first)
    pool.allocate(1)
    assert pool.lookup([10], 1) == second
    pool.release(third)
    pool.allocate(1)
    assert pool.take_events() == [Removed([10]), Removed([10])]
    assert pool.cached() == {10: 1}
    pool.check()
    pool.release(second)
    pool.allocate(1)
    assert not pool.has(10)
    pool.check()


def test_a_reset_needs_all_blocks_free() -> None:
    pool, held = pool_with(10, 11)
    assert not pool.reset()
    assert pool.cached() == {10: 1, 11: 1}
    pool.release(held)
    assert pool.reset()
    assert pool.take_events() == [Cleared()]
    assert pool.cached() == {}
    pool.check()


def test_a_reset_leaves_the_order_in_which_blocks_go() -> None:
    pool, held = pool_with(10, 11, blocks=4)
    pool.release(held)
    pool.reset()
    assert pool.allocate(4) == [3, 4, 2, 1]
