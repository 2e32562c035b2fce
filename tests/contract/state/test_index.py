"""What `State` promises of the index, whoever implements it."""

from collections.abc import Awaitable, Callable, Sequence

import pytest
from multipick_epp.blocks import Chains
from multipick_epp.state.cache import Cache
from multipick_epp.state.memory import MemoryState
from multipick_epp.state.protocol import Applied, Delta, State
from multipick_epp.state.succession import Notes, Tenure
from multipick_epp.types import BlockKey, Endpoint, Mode, ReservationId, rank_at

Eventually = Callable[[Callable[[], object]], Awaitable[None]]

A, B = Endpoint("10.0.0.1:8000"), Endpoint("[fd00::2]:8000")
SIZE = 16
EPOCH = 1
CACHE_A, CACHE_B = Cache(A, SIZE), Cache(B, SIZE)


def keys(count: int, first: int = 0) -> list[BlockKey]:
    return [BlockKey((1 << 59) + first + index) for index in range(count)]


def prompt(*chain: BlockKey, size: int = SIZE) -> Chains:
    return Chains(len(chain) * size + 1, {size: chain})


def delta(
    cache: Cache,
    first: int,
    last: int | None = None,
    stored: Sequence[BlockKey] = (),
    removed: Sequence[BlockKey] = (),
    epoch: int = EPOCH,
) -> Delta:
    return Delta(cache, epoch, first, first if last is None else last, stored, removed)


def tokens(state: State, chain: Sequence[BlockKey]) -> dict[Endpoint, int]:
    return dict(state.hits(prompt(*chain)))


async def write(state: State, *deltas: Delta) -> list[Applied]:
    return list(await state.apply(deltas))


async def test_an_empty_index_hits_nothing(state: State) -> None:
    assert state.hits(prompt(*keys(3))) == {}
    assert state.hits(Chains(100)) == {}
    assert list(state.block_sizes()) == []
    assert state.block_size(A) is None


async def test_stored_blocks_hit_as_deep_as_they_reach(state: State, eventually: Eventually) -> None:
    chain = keys(5)
    assert await state.take_over(A)
    assert await state.take_over(B)
    outcome = await write(state, delta(CACHE_A, 0, stored=chain), delta(CACHE_B, 0, stored=chain[:2]))
    assert outcome == [Applied.NEW, Applied.NEW]
    await eventually(lambda: tokens(state, chain) == {A: 5 * SIZE, B: 2 * SIZE})
    assert list(state.block_sizes()) == [SIZE]
    assert state.block_size(A) == SIZE


async def test_the_last_prompt_token_never_hits(state: State, eventually: Eventually) -> None:
    chain = keys(4)
    await state.take_over(A)
    await write(state, delta(CACHE_A, 0, stored=chain))
    await eventually(lambda: state.hits(prompt(*chain)))
    assert state.hits(Chains(4 * SIZE, {SIZE: chain}))[A] == 3 * SIZE


async def test_removed_blocks_hit_no_more(state: State, eventually: Eventually) -> None:
    chain = keys(4)
    await state.take_over(A)
    await write(state, delta(CACHE_A, 0, stored=chain), delta(CACHE_A, 1, removed=chain[2:]))
    await eventually(lambda: tokens(state, chain) == {A: 2 * SIZE})
    await write(state, delta(CACHE_A, 2, removed=chain[:2]))
    await eventually(lambda: tokens(state, chain) == {})


async def test_a_block_behind_a_hole_does_not_count(state: State, eventually: Eventually) -> None:
    chain = keys(6)
    await state.take_over(A)
    await write(state, delta(CACHE_A, 0, stored=chain), delta(CACHE_A, 1, removed=chain[3:4]))
    await eventually(lambda: tokens(state, chain) == {A: 3 * SIZE})


async def test_each_endpoint_uses_the_chain_of_its_own_block_size(state: State, eventually: Eventually) -> None:
    small, large = keys(8), keys(2, first=100)
    await state.take_over(A)
    await state.take_over(B)
    await write(state, delta(CACHE_A, 0, stored=small), delta(Cache(B, 64), 0, stored=large[:1]))
    chains = Chains(8 * SIZE + 1, {SIZE: small, 64: large})
    await eventually(lambda: state.hits(chains) == {A: 128, B: 64})
    assert state.block_sizes() == {16: 1, 64: 1}


async def test_whoever_took_over_last_is_the_only_one_who_writes(state: State, eventually: Eventually) -> None:
    chain = keys(3)
    assert await state.take_over(A) == Tenure(1, -1, Mode.BLIND if isinstance(state, MemoryState) else None, None)
    await write(state, delta(CACHE_A, 0, 4, stored=chain))
    await eventually(lambda: tokens(state, chain) == {A: 48})
    tenure = await state.take_over(A)
    assert tenure is not None
    assert (tenure.epoch, tenure.last, tenure.inheritance) == (2, 4, None)
    for epoch in (1, 3):
        assert await write(state, delta(CACHE_A, 5, stored=keys(1, 50), epoch=epoch)) == [Applied.STALE]
        assert await state.clear(A, epoch, 5) is Applied.STALE
        assert await state.replace(A, epoch, 5, {}) is Applied.STALE
        assert await state.set_mode(A, epoch, Mode.EXACT) is Applied.STALE
        assert await state.note(A, epoch, Notes(None, (), {})) is Applied.STALE
    assert await write(state, delta(CACHE_A, 5, removed=chain[1:], epoch=2)) == [Applied.NEW]
    await eventually(lambda: tokens(state, chain) == {A: 16})


async def test_one_who_takes_over_and_has_nothing_to_go_on_from_makes_no_index_exact(
    state: State, eventually: Eventually
) -> None:
    await state.take_over(A)
    await write(state, delta(CACHE_A, 0, stored=keys(2)))
    await state.set_mode(A, 1, Mode.EXACT)
    await eventually(lambda: state.mode(A) is Mode.EXACT)
    tenure = await state.take_over(A)
    assert tenure is not None
    assert tenure.mode is Mode.APPROX
    await eventually(lambda: state.mode(A) is Mode.APPROX)
    assert tokens(state, keys(2)) == {A: 32}


async def test_nothing_is_written_of_an_endpoint_that_nobody_took_over(state: State) -> None:
    assert await write(state, delta(CACHE_A, 0, stored=keys(1))) == [Applied.GAP]
    assert await state.clear(A, EPOCH, 0) is Applied.GAP
    assert await state.set_mode(A, EPOCH, Mode.EXACT) is Applied.GAP
    assert await state.note(A, EPOCH, Notes(None, (), {})) is Applied.GAP
    await state.take_over(A)
    assert await write(state, delta(CACHE_A, 0, stored=keys(1))) == [Applied.NEW]


async def test_a_delta_twice_is_a_duplicate(state: State, eventually: Eventually) -> None:
    chain = keys(3)
    await state.take_over(A)
    assert await write(state, delta(CACHE_A, 0, 4, stored=chain)) == [Applied.NEW]
    assert await write(state, delta(CACHE_A, 5, removed=chain[2:])) == [Applied.NEW]
    assert await write(state, delta(CACHE_A, 0, 4, stored=chain), delta(CACHE_A, 3, stored=chain)) == [
        Applied.DUPLICATE,
        Applied.DUPLICATE,
    ]
    assert await write(state, delta(CACHE_A, 4, 6, stored=keys(1, first=9))) == [Applied.NEW]
    await eventually(lambda: tokens(state, keys(1, first=9)))
    assert tokens(state, chain) == {A: 32}


async def test_missing_batches_are_a_gap_that_is_written(state: State, eventually: Eventually) -> None:
    chain = keys(3)
    await state.take_over(A)
    assert await write(state, delta(CACHE_A, 0, stored=chain[:1]), delta(CACHE_A, 2, stored=chain[1:])) == [
        Applied.NEW,
        Applied.GAP,
    ]
    assert await write(state, delta(CACHE_A, 3, stored=keys(1, first=9))) == [Applied.NEW]
    await eventually(lambda: tokens(state, chain) == {A: 48})


async def test_caches_of_an_endpoint_share_its_batches(state: State) -> None:
    other = Cache(A, SIZE, group=1, kind="sliding_window", window=32)
    await state.take_over(A)
    assert await write(state, delta(CACHE_A, 0, 2, stored=keys(1)), delta(other, 0, 2, stored=keys(1))) == [
        Applied.NEW,
        Applied.NEW,
    ]
    assert await write(state, delta(CACHE_A, 3, 7, stored=keys(1, 5))) == [Applied.NEW]
    assert await write(state, delta(other, 8, stored=keys(1, 6))) == [Applied.NEW]
    assert await write(state, delta(CACHE_A, 10, stored=keys(1, 7))) == [Applied.GAP]


async def test_a_delta_of_any_size_is_one_delta(state: State, eventually: Eventually) -> None:
    chain = keys(1500)
    await state.take_over(A)
    assert await write(state, delta(CACHE_A, 0, stored=chain)) == [Applied.NEW]
    await eventually(lambda: tokens(state, chain) == {A: 1500 * SIZE})
    fresh = keys(700, first=5000)
    big = delta(CACHE_A, 1, 3, stored=fresh, removed=chain[600:])
    assert await write(state, big) == [Applied.NEW]
    assert await write(state, big) == [Applied.DUPLICATE]
    assert await write(state, delta(CACHE_A, 4, stored=keys(1, 9000))) == [Applied.NEW]
    await eventually(lambda: tokens(state, keys(1, 9000)))
    assert tokens(state, fresh) == {A: 700 * SIZE}
    assert tokens(state, chain[:600]) == {A: 600 * SIZE}
    assert tokens(state, chain[600:601]) == {}


async def test_many_small_deltas_keep_their_order(state: State, eventually: Eventually) -> None:
    chain = keys(2)
    await state.take_over(A)
    flips = [delta(CACHE_A, seq, stored=chain if seq % 2 == 0 else (), removed=() if seq % 2 == 0 else chain[1:])
             for seq in range(1201)]  # fmt: skip
    assert set(await state.apply(flips)) == {Applied.NEW}
    await eventually(lambda: tokens(state, chain) == {A: 32})


async def test_caches_of_one_endpoint_are_bounded(state: State) -> None:
    await state.take_over(A)
    caches = [Cache(A, SIZE, group=group) for group in range(33)]
    outcome = await state.apply([delta(cache, 0, stored=keys(1)) for cache in caches])
    assert list(outcome) == [Applied.NEW] * 32 + [Applied.REFUSED]


async def test_clear_empties_and_what_the_same_batch_stored_afterwards_stays(
    state: State, eventually: Eventually
) -> None:
    old, new = keys(3), keys(2, first=50)
    await state.take_over(A)
    await write(state, delta(CACHE_A, 0, stored=old))
    assert await state.clear(A, EPOCH, 1) is Applied.NEW
    assert await write(state, delta(CACHE_A, 1, stored=new)) == [Applied.NEW]
    await eventually(lambda: tokens(state, new) == {A: 32})
    assert tokens(state, old) == {}
    assert state.block_size(A) == SIZE
    assert await state.clear(A, EPOCH, 1) is Applied.DUPLICATE
    assert await write(state, delta(CACHE_A, 2, stored=old)) == [Applied.NEW]
    await eventually(lambda: tokens(state, old) == {A: 48})
    assert tokens(state, new) == {A: 32}


async def test_clear_is_fenced(state: State) -> None:
    await state.take_over(A)
    await write(state, delta(CACHE_A, 0, stored=keys(1)))
    assert await state.clear(A, EPOCH, 7) is Applied.GAP
    assert await write(state, delta(CACHE_A, 8, stored=keys(1))) == [Applied.NEW]


async def test_clear_of_one_medium_leaves_the_others(state: State, eventually: Eventually) -> None:
    chain = keys(3)
    host = Cache(A, SIZE, medium="CPU")
    await state.take_over(A)
    await write(state, delta(CACHE_A, 0, stored=chain), delta(host, 0, stored=chain))
    assert await state.clear(A, EPOCH, 1, "CPU") is Applied.NEW
    assert await write(state, delta(CACHE_A, 2, stored=keys(1, first=9))) == [Applied.NEW]
    await eventually(lambda: tokens(state, keys(1, first=9)))
    assert tokens(state, chain) == {A: 48}
    assert await state.clear(A, EPOCH, 3, "GPU") is Applied.NEW
    await eventually(lambda: tokens(state, chain) == {})


async def test_replace_is_the_whole_truth(state: State, eventually: Eventually) -> None:
    old, new = keys(3), keys(700, first=50)
    host = Cache(A, SIZE, medium="CPU")
    await state.take_over(A)
    await write(state, delta(CACHE_A, 0, stored=old), delta(host, 0, stored=old))
    assert await state.replace(A, EPOCH, 7, {CACHE_A: new}) is Applied.NEW
    await eventually(lambda: tokens(state, new) == {A: 700 * SIZE})
    assert tokens(state, old) == {}
    assert await write(state, delta(CACHE_A, 7, stored=old), delta(host, 7, stored=old)) == [Applied.DUPLICATE] * 2
    assert await write(state, delta(CACHE_A, 8, stored=old)) == [Applied.NEW]
    await eventually(lambda: tokens(state, old) == {A: 48})


async def test_replace_makes_a_lost_fence_anew(state: State, eventually: Eventually) -> None:
    assert await state.replace(A, 7, -1, {CACHE_A: keys(2)}) is Applied.NEW
    await eventually(lambda: tokens(state, keys(2)) == {A: 32})
    assert await write(state, delta(CACHE_A, 0, stored=keys(1, first=9), epoch=7)) == [Applied.NEW]
    tenure = await state.take_over(A)
    assert tenure is not None
    assert (tenure.epoch, tenure.last) == (8, 0)


async def test_a_dropped_endpoint_is_forgotten(state: State, eventually: Eventually) -> None:
    await state.take_over(A)
    await write(state, delta(CACHE_A, 0, stored=keys(2)))
    await state.set_mode(A, EPOCH, Mode.EXACT)
    await eventually(lambda: tokens(state, keys(2)) == {A: 32})
    await state.drop(A)
    await eventually(lambda: tokens(state, keys(2)) == {})
    assert state.mode(A) is Mode.BLIND
    assert state.block_size(A) is None
    assert await write(state, delta(CACHE_A, 1, stored=keys(2))) == [Applied.GAP]
    tenure = await state.take_over(A)
    assert tenure is not None
    assert (tenure.epoch, tenure.last) == (1, -1)
    await state.drop(B)


async def test_modes_are_told_and_change_no_hit(state: State, eventually: Eventually) -> None:
    assert state.mode(A) is Mode.BLIND
    await state.take_over(A)
    await write(state, delta(CACHE_A, 0, stored=keys(2)))
    for mode in (Mode.EXACT, Mode.APPROX):
        mode_changes = state.mode_changes
        assert await state.set_mode(A, EPOCH, mode) is Applied.NEW
        await eventually(lambda mode=mode: state.mode(A) is mode)  # type: ignore[misc]
        assert tokens(state, keys(2)) == {A: 32}
        assert state.mode_changes > mode_changes


async def test_expected_blocks_count_at_once_and_end_with_their_time(state: State, eventually: Eventually) -> None:
    chain = keys(4)
    await state.take_over(A)
    await write(state, delta(CACHE_A, 0, stored=chain[:1]))
    await eventually(lambda: tokens(state, chain) == {A: 16})
    state.expect(A, SIZE, chain, ttl_s=0.05)
    assert tokens(state, chain) == {A: 64}
    await eventually(lambda: tokens(state, chain) == {A: 16})


async def test_expected_blocks_that_were_stored_stay(state: State, eventually: Eventually) -> None:
    chain = keys(4)
    await state.take_over(A)
    state.expect(A, SIZE, chain, ttl_s=0.2)
    assert tokens(state, chain) == {A: 64}
    await write(state, delta(CACHE_A, 0, stored=chain[:3]))
    await eventually(lambda: tokens(state, chain) == {A: 48})


async def test_what_is_withdrawn_counts_no_more_unless_it_was_stored_or_is_anothers_too(
    state: State, eventually: Eventually
) -> None:
    chain, one, two = keys(6), ReservationId("one"), ReservationId("two")
    await state.take_over(A)
    state.expect(A, SIZE, chain, 60.0, one)
    state.expect(A, SIZE, chain[:4], 60.0, two)
    heard: list[Endpoint] = []
    state.on_stored(lambda endpoint, _: heard.append(endpoint))
    await write(state, delta(CACHE_A, 0, stored=chain[:1]))
    await eventually(lambda: heard)
    assert state.withdraw(A, two) == chain[1:4]
    assert tokens(state, chain) == {A: 96}
    assert state.withdraw(A, one) == chain[1:]
    assert tokens(state, chain) == {A: 16}
    assert state.withdraw(A, one) == []


async def test_an_endpoint_without_events_is_known_by_what_was_routed_there(state: State) -> None:
    state.expect(A, SIZE, keys(4), ttl_s=60)
    assert tokens(state, keys(4)) == {A: 64}
    assert state.block_size(A) == SIZE


OTHERS_THAN_GUESSED = [
    pytest.param([Cache(A, SIZE, kind="mla_attention")], id="another kind"),
    pytest.param([Cache(A, 2 * SIZE)], id="another block size"),
    pytest.param([Cache(A, SIZE, kind="sliding_window", window=128), Cache(A, SIZE, group=1)], id="window first"),
    pytest.param([Cache(A, SIZE, group=1), Cache(A, SIZE, kind="sliding_window", window=128)], id="window last"),
    pytest.param([Cache(A, SIZE, kind="sliding_window", window=33)], id="window alone"),
]


async def told(state: State, eventually: Eventually) -> None:
    """All that was written until now is known."""
    marker = keys(1, first=900)
    await state.take_over(B)
    await write(state, delta(CACHE_B, 0, stored=marker))
    await eventually(lambda: tokens(state, marker) == {B: SIZE})


@pytest.mark.parametrize("caches", OTHERS_THAN_GUESSED)
async def test_what_was_guessed_of_an_endpoints_caches_takes_no_hit_from_what_events_tell(
    state: State, eventually: Eventually, caches: Sequence[Cache]
) -> None:
    """The first prompt is routed before the engine has told of any cache."""
    chain, size, later = keys(8), caches[0].block_size, keys(1, first=800)
    await state.take_over(A)
    state.expect(A, SIZE, chain[:2], ttl_s=0.05)
    await write(state, *(delta(cache, 0, stored=chain) for cache in caches))
    await told(state, eventually)
    assert dict(state.hits(prompt(*chain, size=size))) == {A: 8 * size}
    state.expect(B, SIZE, later, ttl_s=0.05)
    await eventually(lambda: not tokens(state, later))  # so the first prompt's time is up, too
    assert dict(state.hits(prompt(*chain, size=size))) == {A: 8 * size}


@pytest.mark.parametrize("caches", [each for each in OTHERS_THAN_GUESSED if each.id != "another block size"])
async def test_what_was_expected_before_any_event_counts_until_it_is_stored(
    state: State, eventually: Eventually, caches: Sequence[Cache]
) -> None:
    chain, owner = keys(8), ReservationId("one")
    await state.take_over(A)
    state.expect(A, SIZE, chain, 60.0, owner)
    await write(state, *(delta(cache, 0, stored=chain[:3]) for cache in caches))
    await told(state, eventually)
    assert tokens(state, chain) == {A: 8 * SIZE}
    assert state.withdraw(A, owner) == chain[3:]
    assert tokens(state, chain) == {A: 3 * SIZE}


async def test_a_new_incarnation_voids_what_was_expected(state: State, eventually: Eventually) -> None:
    state.expect(A, SIZE, keys(4), ttl_s=60)
    await state.take_over(A)
    assert tokens(state, keys(4)) == {A: 64}, "another owner is not another engine"
    assert await state.replace(A, EPOCH, -1, {}) is Applied.NEW
    await eventually(lambda: tokens(state, keys(4)) == {})


async def test_listeners_hear_of_full_attention_blocks_on_the_gpu(state: State, eventually: Eventually) -> None:
    heard: list[tuple[Endpoint, list[BlockKey]]] = []
    state.on_stored(lambda endpoint, stored: heard.append((endpoint, list(stored))))
    await state.take_over(A)
    await write(
        state,
        delta(Cache(A, SIZE, medium="CPU"), 0, stored=keys(1, first=50)),
        delta(Cache(A, SIZE, group=1, kind="sliding_window", window=64), 0, stored=keys(1, first=60)),
        delta(CACHE_A, 0, stored=keys(2), removed=keys(1, first=9)),
        delta(CACHE_A, 1, removed=keys(1)),
        delta(CACHE_A, 2, stored=keys(1, first=70)),
    )
    await eventually(lambda: len(heard) >= 2)
    assert heard == [(A, keys(2)), (A, keys(1, first=70))]


async def test_a_sliding_window_lowers_the_hit_to_where_its_last_blocks_are(
    state: State, eventually: Eventually
) -> None:
    chain = keys(8)
    window = Cache(A, SIZE, group=1, kind="sliding_window", window=33)  # needs the 2 blocks before the hit's end
    await state.take_over(A)
    await write(state, delta(CACHE_A, 0, stored=chain), delta(window, 0, stored=[chain[3], chain[4], chain[7]]))
    await eventually(lambda: tokens(state, chain) == {A: 5 * SIZE})
    await write(state, delta(window, 1, removed=[chain[4]]))
    await eventually(lambda: tokens(state, chain) == {})
    await write(state, delta(window, 2, stored=[chain[0]]))
    await eventually(lambda: tokens(state, chain) == {A: SIZE})


async def test_all_full_attention_groups_have_to_hold_a_block(state: State, eventually: Eventually) -> None:
    chain = keys(6)
    await state.take_over(A)
    await write(state, delta(CACHE_A, 0, stored=chain), delta(Cache(A, SIZE, group=1), 0, stored=chain[:4]))
    await eventually(lambda: tokens(state, chain) == {A: 4 * SIZE})


async def test_other_mediums_count_for_nothing_by_default(state: State, eventually: Eventually) -> None:
    chain = keys(6)
    await state.take_over(A)
    await write(state, delta(Cache(A, SIZE, medium="CPU"), 0, stored=chain), delta(CACHE_A, 0, stored=chain[:2]))
    await eventually(lambda: tokens(state, chain) == {A: 2 * SIZE})


@pytest.mark.parametrize("endpoints", [[A, B], []])
async def test_one_replica_owns_every_endpoint(state: State, endpoints: list[Endpoint]) -> None:
    assert list(state.owned(endpoints)) == endpoints


async def test_what_one_replica_writes_and_expects_every_replica_sees(
    replica: Callable[[], Awaitable[State]], eventually: Eventually
) -> None:
    one, two = await replica(), await replica()
    chain = keys(3)
    await one.take_over(A)
    await write(one, delta(CACHE_A, 0, stored=chain))
    await one.set_mode(A, EPOCH, Mode.EXACT)
    await eventually(lambda: tokens(two, chain) == {A: 48} and two.mode(A) is Mode.EXACT)
    one.expect(B, SIZE, chain[:2], ttl_s=60)
    await eventually(lambda: tokens(two, chain) == {A: 48, B: 32})
    three = await replica()  # comes late: loads the sets
    assert tokens(three, chain) == {A: 48}
    await eventually(lambda: three.mode(A) is Mode.EXACT)
    assert await two.apply([delta(CACHE_A, 0, stored=chain)]) == [Applied.DUPLICATE]
    await two.drop(A)
    await eventually(lambda: not tokens(one, chain).get(A) and not tokens(three, chain))


async def test_a_cache_with_many_blocks_is_loaded_whole(
    replica: Callable[[], Awaitable[State]],
) -> None:
    one = await replica()
    chain = keys(5000)
    await one.take_over(A)
    await write(one, delta(CACHE_A, 0, stored=chain), delta(CACHE_A, 1, removed=chain[4000:]))
    two = await replica()
    assert tokens(two, chain[3968:4001]) == {A: 32 * SIZE}
    assert tokens(two, chain) == {A: 4000 * SIZE}


async def test_all_ranks_of_an_engine_have_one_vote_for_its_block_size(state: State, eventually: Eventually) -> None:
    ranks = [rank_at(A, rank) for rank in range(3)]
    for rank in ranks:
        await state.take_over(rank)
    await state.take_over(B)
    await write(state, *(delta(Cache(rank, 1), 0, stored=keys(1)) for rank in ranks))
    await write(state, delta(Cache(B, SIZE), 0, stored=keys(1)))
    await eventually(lambda: state.block_sizes() == {1: 1, SIZE: 1})
    for rank in ranks[1:]:
        await state.drop(rank)
    await write(state, delta(Cache(B, 32), 1, stored=keys(1)))
    await eventually(lambda: state.block_sizes() == {1: 1, SIZE: 1, 32: 1})
    await state.drop(ranks[0])
    await eventually(lambda: state.block_sizes() == {SIZE: 1, 32: 1})
