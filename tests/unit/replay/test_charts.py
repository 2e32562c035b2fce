import re

import pytest
from multipick_sim.replay.report.charts import HEIGHT, WIDTH, Axis, Line, line_chart
from multipick_sim.replay.summary import Mean


def ticks(svg: str) -> list[str]:
    return re.findall(r'text-anchor="end">([^<]*)<', svg)


def chart(values: list[float], *, log: bool = False) -> str:
    line = Line("a <b>", "p0", list(enumerate(values)))
    return line_chart("T & t", [line], Axis("x", str), Axis("", lambda value: f"{value:g}", log=log))


@pytest.mark.parametrize(
    ("values", "log", "expected"),
    [
        ([0, 10], False, ["0", "2", "4", "6", "8", "10"]),
        ([0.21, 0.29], False, ["0.22", "0.24", "0.26", "0.28"]),
        ([0.01, 30], True, ["0.01", "0.1", "1", "10"]),
        ([1, 50], True, ["1", "3", "10", "30"]),
        ([7, 12], True, ["7", "8", "9", "10", "11", "12"]),
        ([5, 5], False, ["4.6", "4.8", "5", "5.2", "5.4"]),
        ([0, 0], True, ["1e-09"]),
    ],
)
def test_ticks_are_round_and_few(values: list[float], log: bool, expected: list[str]) -> None:
    assert ticks(chart(values, log=log))[: len(expected)] == expected


def test_the_last_label_is_not_cut_off_at_the_edge() -> None:
    line = Line("a", "p0", [(0, 0), (40, 1)])
    svg = line_chart("", [line], Axis("", lambda value: f"{value:g} ms"), Axis("", str))
    places = {label: float(x) for x, label in re.findall(r'<text x="([\d.]+)"[^>]*middle">([^<]+)<', svg)}
    assert places["40 ms"] + 3 * len("40 ms") <= WIDTH
    assert places["20 ms"] == (places["0 ms"] + WIDTH - 10) / 2


def test_points_stay_inside_and_names_are_escaped() -> None:
    svg = chart([1, 5, 1e9, 0.1], log=True)
    assert "a &lt;b&gt;" in svg
    assert "T &amp; t" in svg
    for x, y in re.findall(r"([\d.]+),([\d.]+)", svg):
        assert 0 <= float(x) <= WIDTH
        assert 0 <= float(y) <= HEIGHT


def test_a_chart_of_nothing_is_nothing() -> None:
    assert line_chart("t", [Line("a", "p0", [])], Axis("x", str), Axis("", str)) == ""


def test_an_interval_is_students() -> None:
    found = Mean.of([1.0, 2.0, 3.0])
    assert found.value == 2.0
    assert found.half == pytest.approx(4.303 / 3**0.5)
    assert Mean.of([4.0]) == Mean(4.0, None)
