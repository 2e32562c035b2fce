"""Whose loss a lost request is."""

import pytest
from lab.blame import Ailing, blamed, drawn_share
from lab.traffic import Sent

POD, OTHER = "10.0.0.1:8000", "10.0.0.2:8000"
BROKEN_S, MENDED_S = 100.0, 110.0
DIED = Ailing(POD, from_s=BROKEN_S, until_s=MENDED_S)
REFUSES = Ailing(POD, answers=True, from_s=BROKEN_S, until_s=MENDED_S)
PICKER = Ailing(through_picker=True, from_s=BROKEN_S, until_s=MENDED_S)


def lost(sent_s: float, endpoint: str | None = None, status: int = 0) -> Sent:
    return Sent(False, sent_s, sent_s + 5, "lost", "why", status, endpoint)


@pytest.mark.parametrize(
    ("ailing", "request_", "whose"),
    [
        (Ailing(), lost(105, POD), "ours"),
        (DIED, lost(99, POD, 200), "pod"),  # at work on it when it died
        (DIED, lost(99), "pod"),  # so, too, but nobody can say where it was
        (DIED, lost(105, POD, 503), "ours"),  # it was gone already
        (DIED, lost(99, OTHER), "ours"),
        (DIED, lost(90, POD), "ours"),  # it ended before
        (REFUSES, lost(105, POD, 500), "pod"),
        (REFUSES, lost(105, OTHER, 500), "ours"),
        (REFUSES, lost(111, POD, 500), "ours"),  # it is well again
        (PICKER, lost(99, POD), "picker"),
        (PICKER, lost(105), "ours"),  # another one can be asked
    ],
)
def test_a_lost_request_is_ours_unless_its_own_pod_or_picker_failed_with_it(
    ailing: Ailing, request_: Sent, whose: str
) -> None:
    losses = blamed([request_], ailing, swallowed=0)
    assert {"ours": losses.ours, "pod": losses.pods, "picker": losses.pickers}[whose] == [request_]
    assert len(losses.ours) + len(losses.pods) + len(losses.pickers) == 1


def test_of_requests_without_a_word_only_those_are_a_pods_that_it_says_it_swallowed() -> None:
    losses = blamed([lost(105), lost(106), lost(107), lost(105, POD)], REFUSES, swallowed=3)
    assert (len(losses.ours), len(losses.pods)) == (1, 3)


def test_a_share_is_of_what_was_sent_while_the_pod_was_sick() -> None:
    sent = [lost(at_s, endpoint) for at_s, endpoint in ((99, POD), (101, POD), (102, OTHER), (103, None), (104, OTHER))]
    assert drawn_share(sent, REFUSES, swallowed=0) == 0.25
    assert drawn_share(sent, REFUSES, swallowed=2) == 0.5
