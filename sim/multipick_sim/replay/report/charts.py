"""Charts as SVG text, made for a phone's width; the browser scales them up.

A line has its policy as a class, so that the page's legend can hide it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 380, 250
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 12, 38
TICKS = 5
HALF_LETTER = 3.3  # of a label's width


@dataclass(frozen=True, slots=True)
class Line:
    """One policy's points, left to right."""

    name: str
    kind: str  # class of the policy
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Axis:
    """What is drawn along one side."""

    title: str
    unit: Callable[[float], str]
    log: bool = False
    low: float | None = None  # where the axis begins; by the data for None
    high: float | None = None
    ticks: Sequence[float] | None = None


class _Scale:
    """Values -> places between `begin` and `end` of the drawing."""

    def __init__(self, axis: Axis, values: Sequence[float], begin: float, end: float) -> None:
        self._log = axis.log
        low = axis.low if axis.low is not None else min(values)
        high = axis.high if axis.high is not None else max(values)
        if axis.log:
            low, high = max(low, 1e-9), max(high, 2e-9)
        if high <= low:
            low, high = (low / 1.5, high * 1.5) if axis.log else (low - 0.5, high + 0.5)
        self.low, self.high = low, high
        self._begin, self._end = begin, end
        self.ticks = axis.ticks if axis.ticks is not None else _ticks(low, high, axis.log)

    def __call__(self, value: float) -> float:
        low, high, value = self.low, self.high, min(max(value, self.low), self.high)
        if self._log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return self._begin + (value - low) / (high - low) * (self._end - self._begin)


def line_chart(title: str, lines: Sequence[Line], x: Axis, y: Axis, dots: bool = False) -> str:
    """A chart of lines; `dots` marks the points, for few of them."""
    values = [point for line in lines for point in line.points]
    if not values:
        return ""
    across = _Scale(x, [value for value, _ in values], LEFT, WIDTH - RIGHT)
    up = _Scale(y, [value for _, value in values], HEIGHT - BOTTOM, TOP)
    parts = [_frame(x, y, across, up)]
    for line in reversed(lines):  # the first is drawn on top
        path = " ".join(f"{across(a):.1f},{up(b):.1f}" for a, b in line.points)
        shapes = f'<polyline points="{path}"/>' if len(line.points) > 1 else ""
        if dots or len(line.points) == 1:
            shapes += "".join(f'<circle cx="{across(a):.1f}" cy="{up(b):.1f}" r="2.6"/>' for a, b in line.points)
        parts.append(f'<g class="line {line.kind}"><title>{escape(line.name)}</title>{shapes}</g>')
    return _figure(title, parts)


def _frame(x: Axis, y: Axis, across: _Scale, up: _Scale) -> str:
    parts = []
    for tick in across.ticks:
        place, label = across(tick), x.unit(tick)
        parts.append(f'<line x1="{place:.1f}" y1="{TOP}" x2="{place:.1f}" y2="{HEIGHT - BOTTOM}"/>')
        centre = min(place, WIDTH - len(label) * HALF_LETTER)  # the last one would be cut off
        parts.append(f'<text x="{centre:.1f}" y="{HEIGHT - BOTTOM + 14}" text-anchor="middle">{escape(label)}</text>')
    for tick in up.ticks:
        place = up(tick)
        parts.append(f'<line x1="{LEFT}" y1="{place:.1f}" x2="{WIDTH - RIGHT}" y2="{place:.1f}"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{place + 3.5:.1f}" text-anchor="end">{escape(y.unit(tick))}</text>')
    middle, base = (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6
    parts.append(f'<text class="axis" x="{middle}" y="{base}" text-anchor="middle">{escape(x.title)}</text>')
    return f'<g class="frame">{"".join(parts)}</g>'


def _figure(title: str, parts: Sequence[str]) -> str:
    body = "".join(parts)
    return (
        f'<figure><figcaption>{escape(title)}</figcaption><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(title)}">{body}</svg></figure>'
    )


def _ticks(low: float, high: float, log: bool) -> Sequence[float]:
    if log:
        return _log_ticks(low, high)
    step = 10 ** math.floor(math.log10((high - low) / TICKS))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= TICKS)
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float) -> Sequence[float]:
    """1, 2 and 5 of each decade, or the decades alone where those are many; even steps within less than a decade."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        ticks = [factor * 10.0**decade for decade in decades for factor in factors]
        ticks = [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]
        if len(ticks) <= TICKS:
            break
    return ticks if len(ticks) > 2 else _ticks(low, high, False)
