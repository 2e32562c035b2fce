"""Outcomes of several policies on the same requests -> a table, a verdict, JSON. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from multipick_sim.demo.told import Told
from multipick_sim.traffic.causes import Agreement
from multipick_sim.traffic.measures import Figures, Spread
from multipick_sim.traffic.records import Record

EVEN = 0.03  # a smaller relative difference says nothing in one run on one machine
BUSY = 0.15  # of the mean TTFT; where decisions take more, this machine is measured rather than the policy
STATISTICS = ("mean", "p50", "p95", "p99")
RULE, BASELINE = "lmetric", "round-robin"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One policy's run."""

    policy: str
    figures: Figures
    agreement: Agreement
    told: Told  # by the picker
    speed: float  # engine seconds a second
    endpoints: Sequence[str] = ()  # of the pods
    records: Sequence[Record] = ()


def as_json(setup: dict[str, Any], outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """All figures: `setup` as it is, a row a policy, the verdict. Times are engine seconds."""
    rows = []
    for outcome in outcomes:
        agreement = asdict(outcome.agreement) | {"share": outcome.agreement.share}
        rows.append(
            {
                "policy": outcome.policy,
                **asdict(outcome.figures),
                "decision_wall_s": outcome.told.decision_s,
                "kept_out": outcome.told.kept_out,
                "shadows": [asdict(shadow) for shadow in outcome.told.shadows],
                "agreement": agreement,
            }
        )
    return {"setup": setup, "policies": rows, "verdict": verdict(outcomes)}


def table(outcomes: Sequence[Outcome]) -> Table:
    """One column a policy. Times are engine time."""
    shown = Table("")
    for outcome in outcomes:
        shown.add_column(outcome.policy, justify="right")
    columns = [_column(outcome) for outcome in outcomes]
    for label in columns[0] if columns else ():
        shown.add_row(label, *(column[label] for column in columns), end_section=label.endswith("p99"))
    return shown


def remarks(outcome: Outcome) -> Iterator[str]:
    """How well hits were foreseen under this policy, the causes of the differences, and whether the machine kept up."""
    found = outcome.agreement
    yield (
        f"{outcome.policy}: predicted and reported hit are equal for {found.equal} of {found.compared} requests"
        f" ({found.share:.1%})"
    )
    for cause, count in found.causes.items():
        yield f"  {count} x {cause}"
    if found.unpredicted:
        yield f"  {found.unpredicted} without a prediction (not routed by the picker)"
    if outcome.told.kept_out:
        yield f"  the hotspot guard kept {outcome.told.kept_out} requests out of the holders of a hot prefix"
    for shadow in outcome.told.shadows:
        yield (
            f"  {shadow.policy} would have chosen the same for {shadow.same} of {shadow.looked} requests that it was"
            f" asked about, and hit {shadow.hit_tokens:,} tokens where {shadow.own_hit_tokens:,} were"
        )
    if (share := _decision_share(outcome)) > BUSY:
        yield f"  this machine is too busy: decisions are {share:.0%} of the mean TTFT; try a lower --speed"


def verdict(outcomes: Sequence[Outcome]) -> str:
    """One line: whether LMETRIC was better than round-robin (or else the first other policy), and by how much."""
    rule = next((outcome for outcome in outcomes if outcome.policy == RULE), None)
    others = sorted((o for o in outcomes if o is not rule), key=lambda outcome: outcome.policy != BASELINE)
    if rule is None or not others:
        return "nothing to compare: the verdict needs lmetric and another policy"
    other = others[0]
    pairs = [
        ("mean TTFT", _mean(rule.figures.ttft_s), _mean(other.figures.ttft_s), _seconds),
        ("mean TPOT", _mean(rule.figures.tpot_s), _mean(other.figures.tpot_s), _milliseconds),
    ]
    signs = [_sign(mine, theirs) for _, mine, theirs, _ in pairs]
    signs.append(_sign(other.figures.hit_rate, rule.figures.hit_rate))
    said = [f"{name} {form(mine)} against {form(theirs)}{_change(mine, theirs)}" for name, mine, theirs, form in pairs]
    said.append(f"hit rate {rule.figures.hit_rate:.1%} against {other.figures.hit_rate:.1%}")
    failed = rule.figures.failed + other.figures.failed
    doubts = [f"failed requests: {failed}"] if failed else []
    if max(_decision_share(rule), _decision_share(other)) > BUSY:
        doubts.append("this machine was too busy to tell for sure")
    return "; ".join([f"{RULE} {_judge(signs)} {other.policy}: {', '.join(said)}", *doubts])


def _column(outcome: Outcome) -> dict[str, str]:
    """A policy's cells by their row's label, the same labels for every policy."""
    figures, cells = outcome.figures, dict[str, str]()
    for name, spread, form in (
        ("TTFT", figures.ttft_s, _seconds),
        ("TPOT", figures.tpot_s, _milliseconds),
        ("E2E", figures.e2e_s, _seconds),
    ):
        for statistic in STATISTICS:
            cells[f"{name} {statistic}"] = form(None if spread is None else getattr(spread, statistic))
    cells["hit rate"] = f"{figures.hit_rate:.1%}"
    cells["imbalance"] = f"{figures.imbalance:.2f}"
    cells["predicted = reported"] = f"{outcome.agreement.share:.1%}"
    cells["decision, wall"] = _milliseconds(outcome.told.decision_s)
    cells["requests"] = str(figures.requests)
    cells["failed"] = str(figures.failed)
    return cells


def _decision_share(outcome: Outcome) -> float:
    """The picker's mean decision as a share of the mean TTFT."""
    ttft_s = _mean(outcome.figures.ttft_s)
    return outcome.told.decision_s * outcome.speed / ttft_s if ttft_s else 0.0


def _mean(spread: Spread | None) -> float | None:
    return None if spread is None else spread.mean


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f} s"


def _milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{value * 1000:.1f} ms"


def _change(mine: float | None, theirs: float | None) -> str:
    return f" ({mine / theirs - 1:+.0%})" if mine and theirs else ""


def _sign(mine: float | None, theirs: float | None) -> int:
    """Of two figures of which the smaller is better: 1 = mine is better, -1 = worse, 0 = even or unknown."""
    if mine is None or theirs is None or abs(mine - theirs) <= EVEN * max(mine, theirs):
        return 0
    return 1 if mine < theirs else -1


def _judge(signs: Sequence[int]) -> str:
    if min(signs) < 0 < max(signs):
        return "is partly better, partly worse than"
    if not any(signs):
        return "is even with"
    return "beats" if max(signs) > 0 else "loses to"
