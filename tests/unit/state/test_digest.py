"""What events told of an endpoint is told apart from what is expected; its digest is equal where its blocks are."""

from functools import reduce
from operator import xor

from multipick_epp.state.cache import Cache
from multipick_epp.state.index import Digest, LocalIndex
from multipick_epp.state.stats import StateStats
from multipick_epp.types import BlockKey, Endpoint

POD = Endpoint("10.0.0.1:8000")
OTHER = Endpoint("10.0.0.2:8000")
THIRD = Endpoint("10.0.0.3:8000")
GPU = Cache(POD, 16)
KEYS = [BlockKey(7919 * number**3) for number in range(1, 3000)]


def index() -> LocalIndex:
    return LocalIndex({}, StateStats())


async def test_it_covers_the_blocks_that_are_held_whatever_their_history() -> None:
    one, two = index(), index()
    one.change(GPU, KEYS, ())
    one.change(GPU, (), KEYS[2000:])
    two.change(Cache(OTHER, 16), KEYS[1000:], ())
    two.change(GPU, KEYS[1000:2000], ())
    two.change(GPU, KEYS[1000::-1], ())
    expected = Digest(2000, reduce(xor, KEYS[:2000]), 0)
    assert await one.digest(POD) == await two.digest(POD) == {GPU: expected}


async def test_what_is_only_expected_is_counted_apart() -> None:
    pool = index()
    pool.change(GPU, KEYS[:10], ())
    pool.expect(POD, 16, KEYS[:15], 1e9)
    assert await pool.digest(POD) == {GPU: Digest(10, reduce(xor, KEYS[:10]), 5)}
    assert pool.blocks_of(POD) == 10
    pool.change(GPU, KEYS[10:12], ())
    assert await pool.digest(POD) == {GPU: Digest(12, reduce(xor, KEYS[:12]), 3)}
    assert pool.blocks_of(POD) == 12


def test_an_endpoint_that_prompts_were_routed_to_holds_nothing_by_its_events() -> None:
    pool = index()
    pool.expect(POD, 16, KEYS[:15], 10.0)
    assert pool.blocks_of(POD) == pool.blocks_of(OTHER) == 0
    pool.expire(11.0)
    assert pool.blocks_of(POD) == 0
    pool.change(GPU, KEYS[:3], ())
    assert pool.blocks_of(POD) == 3


def test_holders_of_a_block_are_told_by_all_groups_of_the_gpu_and_no_other_medium() -> None:
    pool = LocalIndex({"CPU": 0.5}, StateStats())
    sliding, cpu = Cache(OTHER, 16, group=1, kind="sliding", window=64), Cache(THIRD, 16, "CPU")
    for cache in (GPU, sliding, cpu, Cache(THIRD, 16)):
        pool.change(cache, KEYS[:1] if cache.endpoint != THIRD or cache is cpu else KEYS[1:2], ())
    assert pool.holders(KEYS[0]) == {POD, OTHER}
    assert pool.holders(KEYS[1]) == {THIRD}
    pool.expect(THIRD, 16, KEYS[:1], 10.0)
    assert pool.holders(KEYS[0]) == {POD, OTHER, THIRD}
    pool.expire(11.0)
    pool.void(GPU)
    assert pool.holders(KEYS[0]) == {OTHER}
    assert pool.holders(KEYS[2]) == set()


async def test_each_cache_of_an_endpoint_has_its_own() -> None:
    pool = index()
    cpu = Cache(POD, 16, "CPU")
    pool.change(GPU, KEYS[:1], ())
    pool.change(cpu, KEYS[:2], ())
    assert await pool.digest(POD) == {GPU: Digest(1, KEYS[0], 0), cpu: Digest(2, KEYS[0] ^ KEYS[1], 0)}
    assert await pool.digest(OTHER) == {}
