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
