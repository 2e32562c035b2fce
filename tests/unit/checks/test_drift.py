"""Predicted hits against an engine's own counters, which hold everybody's requests."""

import pytest
from multipick_epp.checks.drift import MIN_PROMPT_TOKENS, WINDOW_S, WINDOWS, Counted, Drift, Window

MANY = 2 * MIN_PROMPT_TOKENS


def watched(queries: float, hits: float, prompts: int, predicted: int, windows: int = WINDOWS) -> Drift:
    """A drift that saw so many windows with these counts in each."""
    drift = Drift()
    for number in range(windows + 1):
        counts = (queries * number, hits * number, prompts * number, predicted * number)
        drift.look(number * WINDOW_S, Counted(*counts))
    return drift


@pytest.mark.parametrize(
    ("queries", "hits", "prompts", "predicted"),
    [
        (MANY, 0.8 * MANY, MANY, round(0.8 * MANY)),  # alone, and right
        (MANY, 0.8 * MANY, MANY, round(0.78 * MANY)),  # within what lies on the edges of a window
        (MANY, 0.0, MANY, 0),
        (2 * MANY, 0.9 * MANY, MANY, round(0.9 * MANY)),  # all hits may be ours
        (2 * MANY, 0.9 * MANY, MANY, 0),  # or all the others'
        (MANY / 2, 0.0, MANY, round(0.8 * MANY)),  # it did not look up all of ours
    ],
)
def test_a_prediction_that_can_be_true_is_not_held_against_an_engine(
    queries: float, hits: float, prompts: int, predicted: int
) -> None:
    assert watched(queries, hits, prompts, predicted, 5).words is None


@pytest.mark.parametrize(
    ("queries", "hits", "prompts", "predicted", "words"),
    [
        (MANY, 0.8 * MANY, MANY, 0, "at least 75000 were"),
        (MANY, 0.0, MANY, round(0.8 * MANY), "5000 at most were"),
        (2 * MANY, 1.8 * MANY, MANY, 0, "at least 70000 were"),  # not even if all others hit
        (2 * MANY, 0.2 * MANY, MANY, round(0.8 * MANY), "30000 at most were"),
    ],
)
def test_a_prediction_that_no_other_traffic_explains_is_wrong(
    queries: float, hits: float, prompts: int, predicted: int, words: str
) -> None:
    found = watched(queries, hits, prompts, predicted).words
    assert found is not None
    assert words in found
    assert f"{predicted} of {prompts} prompt tokens" in found


def test_one_window_is_no_proof_and_a_right_one_ends_it() -> None:
    assert watched(MANY, 0.8 * MANY, MANY, 0, WINDOWS - 1).words is None
    drift = watched(MANY, 0.8 * MANY, MANY, 0)
    assert drift.words is not None
    n = WINDOWS + 1
    drift.look(n * WINDOW_S, Counted(MANY * n, 0.8 * MANY * n, MANY * n, round(0.8 * MANY)))
    assert drift.words is None


def test_a_window_goes_on_until_enough_was_sent() -> None:
    drift = Drift()
    for number in range(4):
        drift.look(number * WINDOW_S, Counted(0.4 * MANY * number, 0.0, round(0.4 * MANY) * number, 0))
    assert drift.last == Window(0.8 * MANY, 0.0, round(0.8 * MANY), 0)


def test_an_engine_that_counts_anew_is_another_one() -> None:
    drift = watched(MANY, 0.8 * MANY, MANY, 0, WINDOWS - 1)
    drift.look(5 * WINDOW_S, Counted(10.0, 0.0, 5 * MANY, 0))
    drift.look(6 * WINDOW_S, Counted(10.0 + MANY, 0.0, 6 * MANY, 0))
    assert drift.words is None
    drift.forget()
    assert drift.last is None


def test_an_engine_without_counters_is_not_judged() -> None:
    drift = watched(MANY, 0.8 * MANY, MANY, 0, WINDOWS - 1)
    drift.look(5 * WINDOW_S, None)
    drift.look(6 * WINDOW_S, Counted(9 * MANY, 9 * MANY, 9 * MANY, 0))
    assert drift.words is None
