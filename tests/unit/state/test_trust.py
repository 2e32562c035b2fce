"""An owner's word is taken as long as it can be true, by this process's own clock."""

import pytest
from multipick_epp.state.index import LocalIndex
from multipick_epp.state.redis.leases import ALIVE_S
from multipick_epp.state.redis.trust import HEARD_S, Trust
from multipick_epp.state.stats import StateStats
from multipick_epp.types import Endpoint, Mode

A, B = Endpoint("10.0.0.1:8000"), Endpoint("10.0.0.2:8000")
ONE, TWO = b"one", b"two"


class Watch:
    """A picker that hears of the log and the leases four times a second."""

    def __init__(self) -> None:
        self.now = 100.0
        self.index = LocalIndex({}, StateStats())
        self.trust = Trust(self.index, lambda: self.now)
        self.stamps: dict[bytes, bytes] = {}

    def goes_on(self, seconds: float, *renewing: bytes, hears: bool = True) -> None:
        for _ in range(int(seconds * 4)):
            self.now += 0.25
            self.stamps |= dict.fromkeys(renewing, b"%f" % self.now)
            if hears:
                self.trust.saw(self.stamps)
                self.trust.heard()

    def mode(self, endpoint: Endpoint = A) -> Mode:
        self.trust.judge()
        return self.index.mode(endpoint)


@pytest.fixture
def watch() -> Watch:
    """Two owners, which are there."""
    watch = Watch()
    watch.trust.loaded({A: Mode.EXACT, B: Mode.EXACT}, {A: ONE, B: TWO})
    watch.goes_on(1.0, ONE, TWO)
    assert watch.trust.settled
    return watch


def test_what_nobody_is_seen_to_keep_is_not_exact() -> None:
    watch = Watch()
    watch.trust.loaded({A: Mode.EXACT, B: Mode.BLIND}, {A: ONE})
    assert not watch.trust.settled
    assert (watch.mode(A), watch.mode(B)) == (Mode.APPROX, Mode.BLIND)
    watch.goes_on(0.25, ONE)
    assert watch.mode() is Mode.APPROX, "a lease that is there may be a dead one's"
    watch.goes_on(0.25, ONE)
    assert watch.mode() is Mode.EXACT


def test_an_owner_that_does_not_renew_loses_its_word_and_no_other_does(watch: Watch) -> None:
    watch.goes_on(ALIVE_S - 0.25, TWO)
    assert watch.mode() is Mode.EXACT
    watch.goes_on(0.25, TWO)
    assert (watch.mode(A), watch.mode(B)) == (Mode.APPROX, Mode.EXACT)
    assert not watch.trust.settled
    watch.goes_on(0.25, ONE, TWO)
    assert watch.mode(A) is Mode.EXACT


def test_time_alone_ends_it(watch: Watch) -> None:
    """Nothing is heard, of anybody."""
    watch.goes_on(HEARD_S - 0.25, hears=False)
    assert watch.mode() is Mode.EXACT
    watch.goes_on(0.25, hears=False)
    assert watch.mode() is Mode.APPROX


def test_one_who_takes_over_has_just_been_there(watch: Watch) -> None:
    watch.trust.holds(A, b"three")
    assert watch.mode() is Mode.EXACT
    watch.goes_on(ALIVE_S, ONE, TWO)
    assert watch.mode() is Mode.APPROX


def test_a_lost_link_ends_it_at_once_and_the_owner_has_to_be_seen_anew(watch: Watch) -> None:
    watch.trust.lost()
    assert watch.mode() is Mode.APPROX
    watch.trust.holds(A, ONE)  # which the log tells late
    watch.goes_on(0.25)
    assert watch.mode() is Mode.APPROX
    watch.goes_on(0.5, ONE)
    assert watch.mode() is Mode.EXACT


def test_of_an_owner_without_a_name_the_word_counts(watch: Watch) -> None:
    """An older version's."""
    watch.trust.loaded({A: Mode.EXACT}, {})
    assert (watch.mode(A), watch.mode(B)) == (Mode.EXACT, Mode.APPROX)


def test_what_the_store_forgot_is_not_exact(watch: Watch) -> None:
    watch.trust.loaded({}, {})
    assert watch.mode() is Mode.APPROX
    watch.trust.holds(A, ONE)
    watch.trust.says(A, Mode.EXACT)
    assert watch.mode() is Mode.EXACT


def test_of_what_is_gone_nothing_is_said(watch: Watch) -> None:
    watch.trust.dropped(A)
    watch.index.drop(A)
    watch.goes_on(1.0, TWO)
    assert watch.mode() is Mode.BLIND


def test_a_store_that_refuses_our_writes_refuses_the_owners_and_their_words_count_when_they_are_seen_again(
    watch: Watch,
) -> None:
    watch.trust.judge(writable=False)
    assert watch.index.mode(A) is Mode.APPROX
    watch.trust.judge(writable=True)
    assert watch.index.mode(A) is Mode.APPROX, "they may not have said yet what they could not write"
    watch.goes_on(0.5, ONE)
    assert (watch.mode(A), watch.mode(B)) == (Mode.EXACT, Mode.APPROX)
