import time

import pytest
from multipick_epp.decision.choice import Choice
from multipick_epp.decision.explained import KEPT, SHOWN, Decisions
from multipick_epp.extproc.pick import Ended, PickRequest
from multipick_epp.policy.hotspot import Hotspot
from multipick_epp.policy.snapshot import Ranking, Snapshot
from multipick_epp.state.protocol import Candidates, Reserved
from multipick_epp.types import Endpoint, Load, Mode, ReservationId

PODS = [Endpoint(f"10.0.0.{number}:8000") for number in range(20)]


def choice(pods: int = 20, kept_out: Hotspot | None = None) -> Choice:
    hits = [16 * number for number in range(pods)]
    snapshot = Snapshot(1000, PODS[:pods], hits, [7] * pods, [2] * pods)
    rows = list(range(pods))[::-1]
    candidates = Candidates([PODS[row] for row in rows], [snapshot.new_tokens(row) for row in rows])
    return Choice(snapshot, Ranking(rows, [1.0] * pods), rows, candidates, None, None, kept_out)


def request(name: str = "r1") -> PickRequest:
    return PickRequest("POST", "/v1/completions", {"x-request-id": name}, b"{}", 2)


def reserved(index: int = 0, of: Choice | None = None, fewer: int = 0) -> Reserved:
    return Reserved(index, (of or choice()).candidates.new_tokens[index] - fewer, Load(70, 3))


def why(made: Choice, outcome: Reserved, fallback: str | None = None) -> str:
    decisions = Decisions("lmetric")
    decisions.made(request(), ReservationId("me-1"), made, outcome, Mode.EXACT, fallback)
    found = decisions.find("r1")
    assert found is not None
    return found.why


def test_a_decision_is_found_by_the_requests_id_and_by_the_reservation() -> None:
    decisions = Decisions("lmetric")
    decisions.made(request(), ReservationId("me-1"), choice(), reserved(), Mode.EXACT, None)
    found = decisions.find("r1")
    assert found is not None
    assert found == decisions.find("me-1")
    assert (found.endpoint, found.policy, found.mode) == (PODS[19], "lmetric", Mode.EXACT)
    assert (found.charged_tokens, found.queued_before, found.in_flight_before) == (1000 - 16 * 19, 70, 3)
    best = found.considered[0]
    assert (best.hit_tokens, best.new_tokens, best.queued_tokens, best.in_flight, best.score) == (304, 696, 7, 2, 1.0)
    assert len(found.considered) == SHOWN
    assert found.endpoints == 20
    assert decisions.find("unheard-of") is None


def test_the_chosen_endpoint_is_shown_also_where_it_was_none_of_the_best() -> None:
    decisions = Decisions("lmetric")
    decisions.made(request(), ReservationId("me-1"), choice(), reserved(15), Mode.EXACT, None)
    found = decisions.find("r1")
    assert found is not None
    assert len(found.considered) == SHOWN + 1
    assert found.considered[-1].endpoint == found.endpoint == PODS[4]


def test_it_says_why() -> None:
    assert "the best of all" in why(choice(), reserved())
    assert "only endpoint" in why(choice(1), reserved(0, choice(1)))
    assert "loads at the moment" in why(choice(), reserved(3))
    assert "equal prompt" in why(choice(), reserved(3, fewer=100))
    hot = Hotspot(1, 288, 1.0, 2, choice().snapshot.hit_tokens, began=False, avoid=True)
    assert "the 2 holders of a hot prefix" in why(choice(kept_out=hot), reserved())
    assert "not known (deadline)" in why(choice(), reserved(), "deadline")


def test_what_became_of_it_is_told() -> None:
    decisions = Decisions("lmetric")
    made = decisions.made(request(), ReservationId("me-1"), choice(), reserved(), Mode.EXACT, None)
    found = decisions.find("r1")
    assert found is not None
    assert (found.first_byte_s, found.ended, found.ended_s) == (None, None, None)
    made.first_byte()
    made.end(Ended.WHOLE)
    found = decisions.find("r1")
    assert found is not None
    assert found.first_byte_s is not None
    assert found.ended == "whole"


def test_a_clock_that_is_set_back_makes_nothing_come_before_the_decision(monkeypatch: pytest.MonkeyPatch) -> None:
    decisions = Decisions("lmetric")
    decision = decisions.made(request(), ReservationId("me-1"), choice(), reserved(), Mode.EXACT, None)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    decision.first_byte()
    decision.end(Ended.WHOLE)
    found = decisions.find("r1")
    assert found is not None
    assert found.first_byte_s is not None
    assert found.ended_s is not None
    assert 0 <= found.first_byte_s <= found.ended_s


def test_the_last_of_two_equal_ids_is_found_and_old_ones_are_forgotten() -> None:
    decisions = Decisions("lmetric")
    for number in range(2):
        decisions.made(request(), ReservationId(f"me-{number}"), choice(), reserved(), Mode.EXACT, None)
    found = decisions.find("r1")
    assert found is not None
    assert found.reservation == "me-1"
    for number in range(KEPT):
        decisions.made(request("other"), ReservationId(f"later-{number}"), choice(), reserved(), Mode.EXACT, None)
    assert decisions.find("r1") is None


def test_an_id_without_end_is_not_kept() -> None:
    decisions = Decisions("lmetric")
    decisions.made(request("x" * 10_000), ReservationId("me-1"), choice(), reserved(), Mode.EXACT, None)
    found = decisions.find("me-1")
    assert found is not None
    assert found.request is None
