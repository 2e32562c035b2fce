"""What is done in one turn of the loop leaves as one call, in order, and every reserve gets its own answer."""

import asyncio
from typing import Any, cast

import pytest
from multipick_epp.state.ledger import Charge
from multipick_epp.state.protocol import Candidates, Context, EqualPrompt, Reserved
from multipick_epp.state.redis.connection import LATER_S, Connection, LostError, Waiter
from multipick_epp.state.redis.keys import HINT_ENTRIES
from multipick_epp.state.redis.scripts import Script
from multipick_epp.state.redis.turns import ALONE_S, STEPS_A_CALL, Outcome, Reserve, Turns
from multipick_epp.types import BlockKey, Endpoint, Load, ReservationId

A, B = Endpoint("a:1"), Endpoint("b:1")
ONE = ReservationId("one")
CANDIDATES = Candidates([A, B], [7, 8])
HEAD = ("EVALSHA", "sha", 1, "key")


class Recorder:
    """A connection that keeps what it is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.waiters: list[Waiter] = []
        self.flushed = 0

    def ask(self, waiter: Waiter, *command: Any) -> None:
        self.asked.append(command)
        self.waiters.append(waiter)

    def flush(self) -> None:
        self.flushed = len(self.asked)


def taken(reserve: Reserve, outcome: Outcome) -> Reserved:
    winner, new_tokens, queued_tokens = outcome
    return Reserved(winner, new_tokens, Load(queued_tokens))


def made() -> tuple[Recorder, Turns, list[Charge]]:
    """The last is what reserves have charged that were given up."""
    recorder = Recorder()
    given_up: list[Charge] = []
    turns = Turns(cast("Connection", recorder), Script("", "sha"), ("key",), taken, given_up.append)
    return recorder, turns, given_up


async def asked(recorder: Recorder, calls: int) -> None:
    """Wait for so many."""
    async with asyncio.timeout(60):
        while len(recorder.asked) < calls:
            await asyncio.sleep(0.001)


async def test_the_steps_of_a_turn_leave_as_one_call_in_order() -> None:
    recorder, turns, _ = made()
    turns.change(B, -7)
    turns.reserve(ONE, CANDIDATES, EqualPrompt(BlockKey(77), 3))
    turns.change(A, 5)
    assert not recorder.asked
    await asyncio.sleep(0)
    [command] = recorder.asked
    assert command[:9] == (*HEAD, "change", B, -7, "reserve", command[8])
    assert command[9:] == ("a:1\0b:1\0", 77, b"", b"", "change", A, 5)
    assert recorder.flushed == 1


async def test_a_change_waits_a_little_for_a_reserve_to_go_with() -> None:
    recorder, turns, _ = made()
    turns.change(A, -5)
    await asyncio.sleep(0)
    assert not recorder.asked
    turns.reserve(ONE, CANDIDATES, None)
    await asyncio.sleep(0)
    [command] = recorder.asked
    assert command[: len(HEAD) + 4] == (*HEAD, "change", A, -5, "reserve")
    turns.change(A, 5)
    await asked(recorder, 2)
    assert recorder.asked[1] == (*HEAD, "change", A, 5)


async def test_what_comes_after_a_call_has_left_waits_its_own_time() -> None:
    """Not only until the time of what has left already is over: it might leave alone, just before a reserve."""
    recorder, turns, _ = made()
    loop = asyncio.get_running_loop()
    turns.change(A, -5)
    turns.flush()
    left = loop.time() + LATER_S
    while loop.time() < left:  # the loop does not run: its timer is due when it does
        turns.change(A, 5)
        turns.flush()
    calls = len(recorder.asked)
    turns.change(A, 7)
    await asyncio.sleep(0)
    assert len(recorder.asked) == calls
    await asked(recorder, calls + 1)
    assert recorder.asked[-1] == (*HEAD, "change", A, 7)


async def test_a_hint_waits_for_a_reserve_too() -> None:
    recorder, turns, _ = made()
    turns.hint("by", "r1", "expect", b"record")
    await asyncio.sleep(0)
    assert not recorder.asked
    turns.change(A, -5)
    turns.reserve(ONE, CANDIDATES, None)
    await asyncio.sleep(0)
    [command] = recorder.asked
    hint = ("hint", HINT_ENTRIES, 4, "by", "r1", "expect", b"record")
    assert command[: len(HEAD) + 11] == (*HEAD, *hint, "change", A, -5, "reserve")
    turns.hint("withdraw", b"record")
    await asked(recorder, 2)


async def test_changes_of_a_field_between_two_reserves_are_one() -> None:
    recorder, turns, _ = made()
    turns.change(A, 5)
    turns.change(B, 1)
    turns.change(A, -2)
    turns.reserve(ONE, CANDIDATES, None)
    turns.change(A, 7)
    turns.hint("withdraw", b"record")
    turns.change(A, 1)
    turns.flush()
    turns.change(A, 9)
    turns.flush()
    first, second = recorder.asked
    assert first[: len(HEAD) + 7] == (*HEAD, "change", A, 3, "change", B, 1, "reserve")
    assert first[len(HEAD) + 12 :] == ("change", A, 8, "hint", HINT_ENTRIES, 2, "withdraw", b"record")
    assert second == (*HEAD, "change", A, 9)


async def test_alone_what_nobody_waits_for_waits_longer() -> None:
    recorder, turns, _ = made()
    loop = asyncio.get_running_loop()
    turns.company.clear()
    changed = loop.time()
    turns.change(A, 5)
    while not recorder.asked:
        await asyncio.sleep(0)
    assert loop.time() >= changed + ALONE_S


async def test_a_call_is_bounded() -> None:
    recorder, turns, _ = made()
    for number in range(2 * STEPS_A_CALL + 1):
        turns.change(f"{number}", number)
    assert len(recorder.asked) == recorder.flushed == 2
    await asked(recorder, 3)
    sent = [argument for command in recorder.asked for argument in command[len(HEAD) :]]
    assert sent == [word for number in range(2 * STEPS_A_CALL + 1) for word in ("change", f"{number}", number)]
    assert len(recorder.asked) == 3


async def test_a_flush_leaves_nothing_for_the_end_of_the_turn() -> None:
    recorder, turns, _ = made()
    turns.change(A, 1)
    turns.reserve(ONE, CANDIDATES, None)
    turns.flush()
    turns.flush()
    await asyncio.sleep(0)
    assert len(recorder.asked) == 1


async def test_every_reserve_gets_its_own_answer_and_what_nobody_waits_for_is_told() -> None:
    recorder, turns, given_up = made()
    first = turns.reserve(ONE, CANDIDATES, None)
    turns.change(A, 1)
    cancelled = turns.reserve(ONE, CANDIDATES, None, Context(700))
    last = turns.reserve(ONE, CANDIDATES, None)
    turns.flush()
    cancelled.cancel()
    recorder.waiters[0].set_result([0, 7, 70, 1, 8, 80, 1, 9, 90])
    assert (await first, await last) == (Reserved(0, 7, Load(70)), Reserved(1, 9, Load(90)))
    assert given_up == [Charge(B, 8, 700)]


async def test_all_reserves_of_a_call_learn_that_the_connection_is_lost() -> None:
    recorder, turns, given_up = made()
    reserves = [turns.reserve(ONE, CANDIDATES, None) for number in range(3)]
    turns.flush()
    recorder.waiters[0].set_exception(LostError("away"))
    for reserve in reserves:
        with pytest.raises(LostError, match="away"):
            await reserve
    assert not given_up
