"""What `State` promises of reservations and loads, whoever implements it."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest
from multipick_epp.state.protocol import Candidates, Context, EqualPrompt, Marginal, State
from multipick_epp.types import BlockKey, Endpoint, Load, ReservationId

Eventually = Callable[[Callable[[], object]], Awaitable[None]]

A, B = Endpoint("10.0.0.1:8000"), Endpoint("10.0.0.2:8000")


def rid(number: int) -> ReservationId:
    return ReservationId(f"r{number}")


def candidates(*new_tokens: int) -> Candidates:
    return Candidates([Endpoint(f"10.0.0.{place + 1}:8000") for place in range(len(new_tokens))], new_tokens)


async def test_an_idle_pool_carries_nothing(state: State) -> None:
    assert state.load(A) == Load(0, 0)


async def test_the_smallest_product_is_charged(state: State) -> None:
    first = await state.reserve(rid(1), candidates(100, 90))
    assert (first.index, first.load) == (1, Load())
    second = await state.reserve(rid(2), candidates(100, 90))  # 100 x 1 against (90 + 90) x 2
    assert (second.index, second.load) == (0, Load())
    third = await state.reserve(rid(3), Candidates([A, B], [500, 1]))
    assert (third.index, third.load) == (1, Load(90, 1))
    state.release(rid(3))
    assert (state.load(A), state.load(B)) == (Load(100, 1), Load(90, 1))


async def test_the_first_of_equals_is_charged(state: State) -> None:
    assert (await state.reserve(rid(1), candidates(5, 5, 5))).index == 0
    assert (await state.reserve(rid(2), candidates(5, 5, 5))).index == 1


async def test_load_that_no_reservation_explains_counts(state: State) -> None:
    busy = Candidates([A, B], [10, 99], [90, 0], [0, 0])
    assert (await state.reserve(rid(1), busy)).index == 1
    crowded = Candidates([A, Endpoint("c:1")], [10, 999], [0, 0], [99, 0])
    assert (await state.reserve(rid(2), crowded)).index == 1
    assert state.load(A) == Load()


async def test_a_known_reservation_is_not_charged_twice(state: State) -> None:
    first = await state.reserve(rid(1), candidates(10, 20))
    again = await state.reserve(rid(1), candidates(10, 20))
    assert first.index == again.index == 0
    assert state.load(A) == Load(10, 1)
    elsewhere = await state.reserve(rid(1), Candidates([B], [20]))
    assert elsewhere.index == 0
    assert (state.load(A), state.load(B)) == (Load(), Load(20, 1))
    state.release(rid(1))
    assert (state.load(A), state.load(B)) == (Load(), Load())


async def test_without_candidates_there_is_nothing_to_reserve(state: State) -> None:
    with pytest.raises(ValueError, match="no candidates"):
        await state.reserve(rid(1), candidates())


async def test_a_pool_of_thousands_can_be_reserved_among(state: State) -> None:
    pool = Candidates([Endpoint(f"pod-{number}:1") for number in range(3000)], range(10, 3010))
    reserved = await state.reserve(rid(1), pool)
    assert (reserved.index, reserved.new_tokens) == (0, 10)


async def test_progress_lowers_the_queue_and_never_raises_it(state: State) -> None:
    await state.reserve(rid(1), candidates(100))
    state.progress(rid(1), 60)
    assert state.load(A) == Load(60, 1)
    state.progress(rid(1), 80)
    assert state.load(A) == Load(60, 1)
    state.progress(rid(1), -5)
    assert state.load(A) == Load(0, 1)
    state.progress(rid(9), 1)
    state.release(rid(1))
    assert state.load(A) == Load()


async def test_a_recharge_lowers_and_raises_the_queue(state: State) -> None:
    await state.reserve(rid(1), candidates(100))
    state.progress(rid(1), 1)
    state.recharge(rid(1), 4096)
    assert state.load(A) == Load(4096, 1)
    assert (await state.reserve(rid(2), candidates(5))).load == Load(4096, 1), "what the truth itself says"
    state.recharge(rid(1), -5)
    state.recharge(rid(9), 7)
    assert state.load(A) == Load(5, 2)
    state.release(rid(1))
    state.release(rid(2))
    state.recharge(rid(1), 7)
    assert state.load(A) == Load()


async def test_a_move_takes_what_is_left_along(state: State) -> None:
    await state.reserve(rid(1), candidates(100))
    state.progress(rid(1), 60)
    state.move(rid(1), B)
    assert (state.load(A), state.load(B)) == (Load(), Load(60, 1))
    state.move(rid(1), B)
    state.move(rid(9), A)
    assert (state.load(A), state.load(B)) == (Load(), Load(60, 1))
    state.release(rid(1))
    assert (state.load(A), state.load(B)) == (Load(), Load())


async def test_a_release_twice_is_a_release_once(state: State) -> None:
    await state.reserve(rid(1), candidates(7))
    await state.reserve(rid(2), candidates(7))
    for _ in range(3):
        state.release(rid(1))
    assert state.load(A) == Load(7, 1)
    state.release(rid(2))
    assert state.load(A) == Load()


async def test_the_load_of_a_dropped_endpoint_is_void(state: State) -> None:
    await state.reserve(rid(1), candidates(7))
    await state.drop(A)
    assert state.load(A) == Load()
    await state.reserve(rid(2), candidates(5))  # the address has come back
    state.progress(rid(1), 1)
    state.release(rid(1))
    reserved = await state.reserve(rid(3), Candidates([A, B], [1, 10_000]))
    assert (reserved.index, reserved.load) == (0, Load(5, 1))


async def test_concurrent_duplicates_are_charged_once(state: State) -> None:
    outcomes = await asyncio.gather(*(state.reserve(rid(1), candidates(10, 10, 10)) for _ in range(20)))
    assert {reserved.index for reserved in outcomes} == {0}
    assert state.load(A) == Load(10, 1)


async def test_a_cancelled_reserve_charges_nothing(state: State) -> None:
    attempts = [asyncio.create_task(state.reserve(rid(number), candidates(10))) for number in range(20)]
    await asyncio.sleep(0)
    for attempt in attempts:
        attempt.cancel()
    outcomes = await asyncio.gather(*attempts, return_exceptions=True)
    kept = [number for number, outcome in enumerate(outcomes) if not isinstance(outcome, asyncio.CancelledError)]
    await state.reserve(rid(99), candidates(1))
    reserved = await state.reserve(rid(100), candidates(1))
    assert reserved.load.in_flight == len(kept) + 1


async def test_loads_are_the_pools_not_the_replicas(
    replica: Callable[[], Awaitable[State]], eventually: Eventually
) -> None:
    one, two = await replica(), await replica()
    await one.reserve(rid(1), candidates(50))
    reserved = await two.reserve(rid(2), candidates(30, 60))
    assert (reserved.index, reserved.load) == (1, Load())
    assert (await two.reserve(rid(3), candidates(1))).load == Load(50, 1)
    two.release(rid(3))
    await eventually(lambda: (one.load(A), one.load(B)) == (Load(50, 1), Load(60, 1)))
    await one.close()  # releases what it reserved
    await eventually(lambda: (two.load(A), two.load(B)) == (Load(), Load(60, 1)))


async def test_a_candidate_that_an_equal_prompt_went_to_counts_as_holding_it(state: State) -> None:
    equal_prompt = EqualPrompt(BlockKey(77), new_tokens=3)
    first = await state.reserve(rid(1), candidates(100, 100, 100), equal_prompt)
    state.expect(A, 16, [BlockKey(76), BlockKey(77)], 60.0)
    assert (first.index, first.new_tokens) == (0, 100)
    second = await state.reserve(rid(2), Candidates([A, B], [100, 600]), equal_prompt)
    assert (second.index, second.new_tokens) == (0, 3)  # 103 x 2 against 600; it would be 400 without the equal_prompt
    assert state.load(A) == Load(103, 2)
    other = await state.reserve(rid(3), Candidates([A, B], [10, 33]), EqualPrompt(BlockKey(78), new_tokens=3))
    assert (other.index, other.new_tokens) == (1, 33)


async def test_an_equal_prompt_that_will_not_be_computed_counts_no_more(state: State) -> None:
    equal_prompt = EqualPrompt(BlockKey(77), new_tokens=3)
    await state.reserve(rid(1), candidates(100), equal_prompt)
    state.expect(A, 16, [BlockKey(76), BlockKey(77), BlockKey(78)], 60.0, rid(1))
    assert (await state.reserve(rid(2), candidates(100), equal_prompt)).new_tokens == 3
    state.withdraw(A, rid(1))
    assert (await state.reserve(rid(3), candidates(100), equal_prompt)).new_tokens == 100


async def test_an_equal_prompt_counts_as_long_as_one_of_them_will_be_computed(state: State) -> None:
    equal_prompt = EqualPrompt(BlockKey(77), new_tokens=3)
    for number in (1, 2):
        await state.reserve(rid(number), candidates(100), equal_prompt)
        state.expect(A, 16, [BlockKey(76), BlockKey(77)], 60.0, rid(number))
    state.withdraw(A, rid(1))
    assert (await state.reserve(rid(3), candidates(100), equal_prompt)).new_tokens == 3


async def test_an_equal_prompt_that_goes_elsewhere_counts_there_still(state: State) -> None:
    equal_prompt = EqualPrompt(BlockKey(77), new_tokens=3)
    for number, endpoint in enumerate((A, B)):
        await state.reserve(rid(number), Candidates([endpoint], [100]), equal_prompt)
        state.expect(endpoint, 16, [BlockKey(76), BlockKey(77)], 60.0, rid(number))
    state.withdraw(A, rid(0))
    assert (await state.reserve(rid(2), Candidates([A], [100]), equal_prompt)).new_tokens == 100
    assert (await state.reserve(rid(3), Candidates([B], [100]), equal_prompt)).new_tokens == 3


async def test_equal_prompts_that_were_decided_blindly_spread_evenly(replica: Callable[[], Awaitable[State]]) -> None:
    """All know of the first one alone when they decide: without the repeat its pod would get a third of them."""
    replicas = [await replica() for _ in range(4)]
    equal_prompt = EqualPrompt(BlockKey(77), new_tokens=3)
    pool = Candidates([Endpoint(f"pod-{number}:8000") for number in range(16)], [1000] * 16)
    first = await replicas[0].reserve(rid(0), pool, equal_prompt)
    known = pool._replace(new_tokens=[3 if place == first.index else 1000 for place in range(16)])
    others = await asyncio.gather(*(replicas[n % 4].reserve(rid(n), known, equal_prompt) for n in range(1, 200)))
    chosen = Counter(reserved.index for reserved in (first, *others))
    assert len(chosen) == 16
    assert max(chosen.values()) - min(chosen.values()) <= 1


async def test_a_burst_over_four_replicas_spreads_as_over_one(replica: Callable[[], Awaitable[State]]) -> None:
    replicas = [await replica() for _ in range(4)]
    pool = Candidates([Endpoint(f"pod-{number}:8000") for number in range(16)], [1000] * 16)
    outcomes = await asyncio.gather(
        *(replicas[number % 4].reserve(ReservationId(f"{number}"), pool) for number in range(200))
    )
    spread = Counter(reserved.index for reserved in outcomes)
    # One picker alone: (n x 1000 + 1000) x (n + 1) is smallest where n is, so 200 = 12 x 16 + 8 go round in turn.
    assert sorted(spread.values()) == [12] * 8 + [13] * 8


# --- contexts, which policy `marginal` weighs


async def test_contexts_count_from_the_reserve_to_the_release(state: State) -> None:
    await state.reserve(rid(1), candidates(100), context=Context(700))
    await state.reserve(rid(2), candidates(30), context=Context(50))
    assert state.load(A) == Load(130, 2, 750, 2)
    state.progress(rid(1), 60)
    assert state.load(A) == Load(90, 2, 750, 2)
    state.progress(rid(1), 0)
    assert state.load(A) == Load(30, 2, 750, 1), "it is prefilled"
    state.recharge(rid(1), 5)
    assert state.load(A) == Load(35, 2, 750, 2), "it is not, after all"
    state.move(rid(1), B)
    assert (state.load(A), state.load(B)) == (Load(30, 1, 50, 1), Load(5, 1, 700, 1))
    state.release(rid(1))
    state.release(rid(2))
    assert (state.load(A), state.load(B)) == (Load(), Load())


async def test_a_context_that_is_not_accounted_for_is_none(state: State) -> None:
    await state.reserve(rid(1), candidates(100))
    assert state.load(A) == Load(100, 1, 0, 0)
    state.progress(rid(1), 0)
    assert state.load(A) == Load(0, 1, 0, 0)


async def test_accounting_for_contexts_changes_no_choice(state: State) -> None:
    for number in range(2):
        await state.reserve(rid(number), Candidates([A], [1]), context=Context(1_000_000))
    assert (await state.reserve(rid(9), candidates(10, 37), context=Context(10))).index == 0  # (2 + 10) x 3 < 37


async def test_marginal_weighs_the_prompts_in_flight_and_the_least_of_the_pool(state: State) -> None:
    await state.reserve(rid(1), Candidates([A], [1]), context=Context(10_000))
    await state.reserve(rid(2), Candidates([B], [1]), context=Context(50))
    # 21 x 10,200 = 214,200 against 801 x 250 = 200,250
    near = await state.reserve(rid(3), candidates(20, 800), context=Context(100, Marginal(1, 0)))
    assert (near.index, near.load) == (1, Load(1, 1))
    state.release(rid(3))
    # 21 x 10,300 = 216,300 against 801 x 350 = 280,350
    far = await state.reserve(rid(4), candidates(20, 800), context=Context(100, Marginal(1, 100)))
    assert far.index == 0


async def test_marginals_price_counts_new_tokens_more_than_queued_ones(state: State) -> None:
    await state.reserve(rid(1), Candidates([A], [100]), context=Context(1))
    # (100 + 10) x (1 + 20) = 2,310 against 220 x 10; new tokens three times: 130 x 21 = 2,730 against 6,600
    pair = Candidates([A, B], [10, 220])
    assert (await state.reserve(rid(2), pair, context=Context(10, Marginal(1, 0)))).index == 1
    state.release(rid(2))
    assert (await state.reserve(rid(3), pair, context=Context(10, Marginal(3, 0)))).index == 0


async def test_for_marginal_what_no_reservation_explains_is_as_long_as_the_prompt(state: State) -> None:
    weighing = Context(100, Marginal(1, 0))
    # Two such requests: contexts of 200, and two that this one slows: 10 x 500 against 49 x 100
    crowded = Candidates([A, B], [10, 49], [0, 0], [2, 0])
    assert (await state.reserve(rid(1), crowded, context=weighing)).index == 1
    state.release(rid(1))
    crowded = crowded._replace(new_tokens=[10, 51])
    assert (await state.reserve(rid(2), crowded, context=weighing)).index == 0
    state.release(rid(2))
    behind = Candidates([A, B], [10, 49], [40, 0], [0, 0])
    assert (await state.reserve(rid(3), behind, context=weighing)).index == 1


async def test_contexts_are_shared(replica: Callable[[], Awaitable[State]], eventually: Eventually) -> None:
    one, two = await replica(), await replica()
    await one.reserve(rid(1), Candidates([A], [1]), context=Context(10_000))
    await two.reserve(rid(2), Candidates([B], [1]), context=Context(50))
    reserved = await two.reserve(rid(3), candidates(20, 800), context=Context(100, Marginal(1, 0)))
    assert reserved.index == 1, "two may not have heard of what one charged: the store has"
    await eventually(lambda: two.load(A) == Load(1, 1, 10_000, 1))
    await eventually(lambda: one.load(B) == Load(801, 2, 150, 2))
    older = await replica()  # one that accounts for none: it has no marginal, or is of a release that has none
    await older.reserve(rid(4), Candidates([B], [9]))
    await eventually(lambda: one.load(B) == two.load(B) == older.load(B) == Load(810, 3, 150, 2))
    assert one.load_columns([A, B]).context_tokens == (10_000, 150)
    one.release(rid(1))
    await eventually(lambda: two.load(A) == Load())
