"""A lease lives as long as its stamp is seen to change; what the stamp says, and whose clock wrote it, is nothing."""

import pytest
from multipick_epp.state.redis.leases import LOOKED_AWAY_S, Leases

A, B = b"a", b"b"


def test_who_renews_is_alive_and_who_does_not_grows_quiet() -> None:
    leases = Leases()
    for second in range(9):
        quiet_s = leases.see({A: b"%d" % second, B: b"7"}, float(second))
    assert quiet_s == {A: 0.0, B: 8.0}


@pytest.mark.parametrize("jump", [-1e12, 1e12])
def test_a_stores_clock_that_jumps_kills_nobody_and_keeps_nobody(jump: float) -> None:
    leases = Leases()
    for second in range(5):
        stamp = second + (jump if second > 2 else 0)
        quiet_s = leases.see({A: b"%f" % stamp, B: b"%f" % 1e15}, float(second))
    assert quiet_s == {A: 0.0, B: 4.0}


def test_who_comes_is_alive_and_who_goes_is_forgotten() -> None:
    leases = Leases()
    leases.see({A: b"1"}, 10.0)
    assert leases.see({B: b"1"}, 11.0) == {B: 0.0}
    assert leases.see({A: b"1", B: b"1"}, 12.0) == {A: 0.0, B: 1.0}


def test_what_happened_while_nobody_looked_is_held_against_nobody() -> None:
    leases = Leases()
    leases.see({A: b"1"}, 10.0)
    assert leases.see({A: b"1"}, 10.0 + 2 * LOOKED_AWAY_S) == {A: 0.0}
    assert leases.see({A: b"1"}, 11.0 + 2 * LOOKED_AWAY_S) == {A: 1.0}


def test_who_was_seen_to_renew_is_told_from_a_mere_name() -> None:
    leases = Leases()
    leases.see({A: b"1"}, 10.0)
    assert (set(leases.at_first), leases.renewed) == ({A}, set())
    leases.see({A: b"2", B: b"1"}, 11.0)
    assert (set(leases.at_first), leases.renewed) == ({A}, {A})
    leases.see({B: b"1"}, 12.0)
    assert leases.renewed == set()
    leases.see({A: b"3", B: b"2"}, 13.0)
    assert leases.renewed == {B}
    leases.see({A: b"4", B: b"3"}, 13.0 + 2 * LOOKED_AWAY_S)
    assert (set(leases.at_first), leases.renewed) == ({A, B}, set())
