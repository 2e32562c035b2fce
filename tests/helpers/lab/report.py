"""What came of each fault: a row of a table, and of bench/results/faults.json."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from lab.blame import Losses
from lab.traffic import Sent


@dataclass(frozen=True, slots=True)
class Probes:
    """Sequential requests, by the mode of the decision; of `exact` ones, whether the predicted hit was the real one."""

    exact: int
    wrong: int  # exact, and another hit than predicted
    approx: int
    blind: int
    unpicked: int  # Envoy chose

    @classmethod
    def of(cls, sent: Sequence[Sent]) -> "Probes":
        whole = [each for each in sent if each.probe and each.outcome == "whole"]
        modes = Counter(each.mode for each in whole)
        wrong = [each for each in whole if each.mode == "exact" and each.predicted != each.cached]
        return cls(modes["exact"], len(wrong), modes["approx"], modes["blind"], modes[None])


@dataclass(frozen=True, slots=True)
class Row:
    """One fault behind one style of gateway."""

    fault: str
    style: str
    sent: int
    left: int
    lost: int  # by us
    lost_with_pod: int
    lost_with_picker: int
    probes: Probes
    drawn: float | None  # share of the requests that a sick pod drew
    recovered_s: float | None  # None: never
    wrong: Sequence[str] = field(default_factory=list)  # everything that does not hold, in words

    @property
    def good(self) -> bool:
        return not self.wrong


def reasons(losses: Losses) -> str:
    """Why requests were lost by us, most frequent first."""
    return "; ".join(f"{number} x {why[:160]}" for why, number in Counter(e.why for e in losses.ours).most_common(3))


def write(rows: Sequence[Row], file: Path) -> None:
    """Faults that were not tried this time keep the figures that they had."""
    new = {(row.fault, row.style): asdict(row) for row in rows}
    old = json.loads(file.read_text()) if file.exists() else []
    known = {(each["fault"], each["style"]): each for each in old}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(list((known | new).values()), indent=1) + "\n")


def table(rows: Sequence[Row]) -> list[str]:
    """The rows for people; what does not hold is below each."""
    heads = (
        "fault",
        "style",
        "sent",
        "lost",
        "+pod",
        "+picker",
        "exact",
        "wrong",
        "approx",
        "blind",
        "none",
        "drawn",
        "s",
    )
    lines = [heads, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    found = [text[0]]
    for row, line in zip(rows, text[1:], strict=True):
        found += [line, *(f"    ! {wrong}" for wrong in row.wrong)]
    return found


def _cells(row: Row) -> tuple[str, ...]:
    probes = row.probes
    numbers = (row.sent, row.lost, row.lost_with_pod, row.lost_with_picker)
    modes = (probes.exact, probes.wrong, probes.approx, probes.blind, probes.unpicked)
    drawn = "" if row.drawn is None else f"{row.drawn:.0%}"
    recovered = "never" if row.recovered_s is None else f"{row.recovered_s:.1f}"
    return (row.fault, row.style, *map(str, numbers), *map(str, modes), drawn, recovered)
