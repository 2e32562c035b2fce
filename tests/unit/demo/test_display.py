"""What the demo shows: plain lines for a pipe, a bar and a table for a terminal."""

from io import StringIO

import pytest
from multipick_sim.demo.display import Lines, Pod, Screen, display
from multipick_sim.traffic.records import Record, Segment
from rich.console import Console

PODS = [
    Pod("10.0.0.1:8000", True, 3, 12_345, 1000, 250, "exact"),
    Pod("10.0.0.2:8000", False, 0, 0, 0, 0, "blind"),
]


def record(error: str | None = None) -> Record:
    return Record("r", (), Segment("r", 1), 0.0, 1.0, 2.0, 10, 2, 0, 10, 0, "a", "exact", 200, error)


def test_the_display_fits_the_console() -> None:
    assert isinstance(display(Console(file=StringIO())), Lines)
    assert isinstance(display(Console(file=StringIO(), force_terminal=True)), Screen)


@pytest.mark.parametrize("requests", [1, 7, 10, 400])
def test_lines_tell_of_the_progress_ten_times_at_most_and_of_the_end(requests: int) -> None:
    out = StringIO()
    with Lines(Console(file=out)) as shown:
        shown.begin("lmetric", requests)
        shown.pods(PODS)
        for number in range(requests):
            shown.ended(record("cut" if number == 0 else None))
    first, *others = out.getvalue().splitlines()
    assert first == f"lmetric: {requests} requests"
    assert 1 <= len(others) <= 10
    assert others[-1] == f"lmetric: {requests}/{requests} done, 1 failed, 3 in flight, 12,345 tokens queued"


def test_lines_have_no_control_codes_and_keep_brackets() -> None:
    out = StringIO()
    with Lines(Console(file=out, width=20)) as shown:
        shown.starting("lmetric", "[red] more than fits into the console")
    assert out.getvalue() == "lmetric: starting [red] more than fits into the console\n"


def test_a_terminal_shows_each_policy_and_each_pod() -> None:
    out = StringIO()
    with Screen(Console(file=out, force_terminal=True, width=100)) as shown:
        for policy in ("lmetric", "round-robin"):
            shown.starting(policy, "Valkey")
            shown.begin(policy, 2)
            shown.ended(record("cut"))
            shown.pods(PODS)
    text = out.getvalue()
    for part in (
        "lmetric: starting Valkey",
        "lmetric",
        "round-robin",
        "1/2",
        "1 failed",
        "10.0.0.1:8000",
        "12,345",
        "25.0%",
    ):
        assert part in text
    assert "not ready" in text
