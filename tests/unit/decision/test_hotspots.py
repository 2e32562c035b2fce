from random import Random

from multipick_epp.blocks import Chains, block_keys, root_key
from multipick_epp.decision.hotspots import SHOWN, Hotspots
from multipick_epp.decision.prompts import Blind, Known
from multipick_epp.policy.hotspot import LEAST
from multipick_epp.policy.lmetric import lmetric
from multipick_epp.policy.popularity import WINDOW
from multipick_epp.policy.snapshot import Ranking, Snapshot
from multipick_epp.types import Endpoint

ROOT = root_key(b"", "m")
BLOCK = 16
PODS = [Endpoint(f"10.0.0.{number}:8000") for number in range(8)]
SHARED = 64 * BLOCK


class Told:
    def __init__(self, guards: bool = True) -> None:
        self.began = 0
        self.kept_out = 0
        self.hotspots = Hotspots(guards, self._begin, self._keep)
        self._number = 0

    def _begin(self) -> None:
        self.began += 1

    def _keep(self) -> None:
        self.kept_out += 1

    def prompt(self, prefix: int = 0) -> Chains:
        """One of the class, with a question of its own."""
        self._number += 1
        start = prefix << 24
        tokens = [*range(start, start + SHARED), *range(-self._number * BLOCK, (1 - self._number) * BLOCK)]
        return Chains(len(tokens), {BLOCK: block_keys(ROOT, [each & 0xFFFFFFF for each in tokens], BLOCK)})

    def decide(self, holders: set[int], prefix: int = 0) -> Ranking:
        """One decision about a prompt that only `holders` hold, and where it wins every product."""
        prompt = self.prompt(prefix)
        hits = [SHARED if row in holders else 0 for row in range(len(PODS))]
        prefixes = self.hotspots.prefixes(prompt)
        zeros = [0] * len(PODS)
        snapshot = Snapshot(prompt.prompt_tokens, PODS, hits, zeros, zeros, prefixes=prefixes)
        return self.hotspots.guarded(snapshot, lmetric(snapshot, Random(1)), Random(1))[0]


def test_a_prefix_that_wins_all_requests_is_told_of_and_given_to_one_endpoint_more() -> None:
    told = Told()
    chosen = [told.decide({3}).rows[0] for _ in range(LEAST + 1)]
    assert chosen[: LEAST - 1] == [3] * (LEAST - 1)
    assert told.began == 1
    assert chosen[LEAST] != 3, "the second in a row, of a class with one holder"
    assert told.kept_out == 1
    (hot,) = told.hotspots.hot
    assert hot.endpoints == [PODS[3]]
    assert hot.share == 1.0


def test_it_is_no_longer_told_of_once_enough_endpoints_hold_it() -> None:
    told = Told()
    for _ in range(LEAST + 1):
        told.decide({3})
    told.decide(set(range(8)))
    assert told.hotspots.hot == []


def test_unguarded_rankings_stay_as_they_are() -> None:
    told = Told(guards=False)
    assert {told.decide({3}).rows[0] for _ in range(2 * LEAST)} == {3}
    assert told.kept_out == 0


def test_what_is_told_is_bounded() -> None:
    told = Told()
    for number in range(WINDOW):
        told.decide({3}, prefix=number % 60)
    for number in range(60):  # each asks for more than an eighth in its turn
        for _ in range(WINDOW // 2):
            told.decide({3}, prefix=number)
    assert told.began > SHOWN
    assert len(told.hotspots._told) <= SHOWN


def test_prompts_that_are_not_known_or_read_no_cache_are_not_counted() -> None:
    chains = Told().prompt()
    assert Known([chains]).alone is chains
    for prompt in (Blind(100, "too large"), Known([chains], reads_cache=False), Known([chains, chains])):
        assert prompt.alone is None
