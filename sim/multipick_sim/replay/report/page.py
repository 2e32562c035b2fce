"""The page: what was run, the figures, the charts, and who got what."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from importlib.metadata import PackageNotFoundError, version
from statistics import fmean

from multipick_sim.replay.outcome import CURVE_POINTS, Outcome
from multipick_sim.replay.report.charts import Axis, Line, line_chart
from multipick_sim.replay.report.style import COLOURS, SCRIPT, STYLE
from multipick_sim.replay.setup import Setup
from multipick_sim.replay.summary import Mean, Row, rows
from multipick_sim.replay.table import COLUMNS, cell

CDF_ENDS = 0.99  # the last percent would squeeze all others
OURS = ("lmetric", "marginal")  # come first, drawn bolder


@dataclass(frozen=True, slots=True)
class About:
    """What a report says of its study."""

    command: str
    workload: str
    requests: int
    left_out: int  # requests that the engines would refuse
    setup: Setup
    capacity: float | None  # the load that round-robin can carry, where it was looked for
    levels: Sequence[str]  # loads as they were asked for …
    loads: Sequence[float]  # … and as they were run
    seeds: int
    missing: int  # runs that were not done

    def label(self, load: float) -> str:
        """What a load is called."""
        if load not in self.loads:
            return f"{load:g}"
        level = self.levels[self.loads.index(load)]
        return f"{level.removesuffix('c')} of round-robin's capacity" if level.endswith("c") else f"{level} x the trace"

    def short(self, load: float) -> str:
        """The same in a chart."""
        return self.levels[self.loads.index(load)].removesuffix("c") if load in self.loads else f"{load:g}"


def page(about: About, outcomes: Sequence[Outcome]) -> str:
    """The whole page as text."""
    policies = sorted(dict.fromkeys(each.arm.policy for each in outcomes), key=lambda name: name not in OURS)
    loads = [load for load in about.loads if any(each.arm.load == load for each in outcomes)]
    kinds = {policy: f"p{number}" for number, policy in enumerate(policies)}
    summary = rows(outcomes)
    sections = [_over_load(about, summary, policies, loads, kinds)] if len(loads) > 1 else []
    for load in loads:
        here = [each for each in outcomes if each.arm.load == load]
        sections.append(_at_load(about, load, here, [row for row in summary if row.load == load], policies, kinds))
    colours = "".join(
        f".{kind}{{--c:{COLOURS[number % len(COLOURS)]};--d:{_dash(number)}}}"
        for number, kind in enumerate(kinds.values())
    )
    best = "".join(f".line.{kinds[each]}{{stroke-width:2.6}}" for each in OURS if each in kinds)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>multipick: {escape(about.workload)}</title><style>{STYLE}{colours}{best}</style></head><body>"
        f"<header><h1>{escape(about.workload)}</h1>{_about(about)}</header>"
        f'<nav aria-label="policies">{_legend(policies, kinds)}</nav><main>{"".join(sections)}</main>'
        f"<footer>{_footer(about)}</footer><script>{SCRIPT}</script></body></html>\n"
    )


def _about(about: About) -> str:
    setup = about.setup
    facts = [
        f"{about.requests:,} requests"
        + (f" ({about.left_out:,} too long for the pods left out)" if about.left_out else ""),
        f"{setup.pods} pods {setup.preset}, blocks of {setup.block_size} tokens",
        f"{about.seeds} seed{'s' if about.seeds > 1 else ''}",
        "closed loop" if setup.closed_loop else "open loop",
        _knowledge(setup),
        f"hotspot guard {'on' if setup.guard else 'off'}",
    ]
    if about.capacity:
        facts.append(f"round-robin carries {about.capacity:.2f} times the workload's own rate")
    if about.missing:
        facts.append(f"<strong>interrupted: {about.missing} runs are missing</strong>")
    return f"<p>{' · '.join(facts)}</p><pre>{escape(about.command)}</pre>"


def _knowledge(setup: Setup) -> str:
    parts = []
    if setup.pickers > 1:
        parts.append(f"{setup.pickers} pickers, " + ("each by its own loads" if setup.own_view else "loads shared"))
    if setup.hits_late_s:
        parts.append(f"events {setup.hits_late_s:g} s late")
    if setup.loads_late_s:
        parts.append(f"no reservations, loads {setup.loads_late_s:g} s late")
    return ", ".join(parts) or "exact knowledge"


def _legend(policies: Sequence[str], kinds: dict[str, str]) -> str:
    return "".join(
        f'<button class="{kinds[each]}" data-kind="{kinds[each]}" aria-pressed="true"><i></i>{escape(each)}</button>'
        for each in policies
    )


def _over_load(
    about: About, summary: Sequence[Row], policies: Sequence[str], loads: Sequence[float], kinds: dict[str, str]
) -> str:
    x = Axis(
        "load" + (", of round-robin's capacity" if about.levels[0].endswith("c") else ""), about.short, ticks=loads
    )

    def chart(title: str, read: Callable[[Row], Mean | None], y: Axis) -> str:
        lines = []
        for policy in policies:
            means = [(row.load, read(row)) for row in summary if row.policy == policy]
            lines.append(Line(policy, kinds[policy], [(load, mean.value) for load, mean in means if mean is not None]))
        return line_chart(title, lines, x, y, dots=True)

    charts = [
        chart("TTFT, mean", lambda row: row.ttft_mean, Axis("", _seconds, log=True)),
        chart("TPOT, mean", lambda row: row.tpot_mean, Axis("", _seconds, log=True)),
        chart("E2E, mean", lambda row: row.e2e_mean, Axis("", _seconds, log=True)),
        chart("TTFT, 99th percentile", lambda row: row.ttft_p99, Axis("", _seconds, log=True)),
        chart("Hit rate", lambda row: row.hit_rate, Axis("", _percent, low=0)),
        chart("Imbalance of prefilled tokens", lambda row: row.imbalance, Axis("", _number, low=1)),
    ]
    return f'<section><h2>Over load</h2><div class="charts">{"".join(charts)}</div></section>'


def _at_load(
    about: About,
    load: float,
    outcomes: Sequence[Outcome],
    summary: Sequence[Row],
    policies: Sequence[str],
    kinds: dict[str, str],
) -> str:
    first = {policy: next((each for each in outcomes if each.arm.policy == policy), None) for policy in policies}
    shown = {policy: outcome for policy, outcome in first.items() if outcome}

    def cdf(title: str, read: Callable[[Outcome], Sequence[float]]) -> str:
        steps = [step / (CURVE_POINTS - 1) for step in range(CURVE_POINTS)]
        lines = []
        for policy in shown:
            curves = [read(each) for each in outcomes if each.arm.policy == policy and read(each)]
            if not curves:
                continue
            means = [fmean(values) for values in zip(*curves, strict=True)]
            points = [(value, step) for value, step in zip(means, steps, strict=True) if step <= CDF_ENDS]
            lines.append(Line(policy, kinds[policy], [(max(value, 1e-4), step) for value, step in points]))
        return line_chart(title, lines, Axis("", _seconds, log=True), Axis("", _percent, low=0, high=1))

    def over_time(title: str, read: Callable[[Outcome], Sequence[float]], y: Axis) -> str:
        lines = []
        for policy, outcome in shown.items():
            values = read(outcome)
            width = outcome.duration_s / len(values)
            lines.append(Line(policy, kinds[policy], [((i + 0.5) * width, value) for i, value in enumerate(values)]))
        return line_chart(title, lines, Axis("time", _seconds, low=0), y)

    charts = [
        cdf("TTFT: share of requests within", lambda each: each.ttft_curve),
        cdf("TPOT: share of requests within", lambda each: each.tpot_curve),
        cdf("E2E: share of requests within", lambda each: each.e2e_curve),
        over_time("Requests without a first token", lambda each: each.waiting, Axis("", _number, low=0)),
        over_time(
            "Imbalance: busiest pod over the mean",
            lambda each: each.imbalance_over_time,
            Axis("", _number, low=1),
        ),
    ]
    return (
        f"<section><h2>At {escape(about.label(load))}</h2>{_figures(summary, kinds)}"
        f'<div class="charts">{"".join(charts)}{_shares(shown, kinds)}</div></section>'
    )


def _figures(summary: Sequence[Row], kinds: dict[str, str]) -> str:
    heads = "".join(f"<th>{escape(name)}</th>" for name, *_ in COLUMNS)
    lines = []
    for row in sorted(summary, key=lambda row: row.ttft_mean.value):
        cells = "".join(f"<td>{cell(read(row), scale, digits)}</td>" for _, read, scale, digits in COLUMNS)
        kind = kinds[row.policy]
        lines.append(f'<tr class="{kind}"><th><i></i>{escape(row.policy)}</th>{cells}</tr>')
    head = f"<thead><tr><th>policy</th>{heads}</tr></thead>"
    return f'<div class="wide"><table>{head}<tbody>{"".join(lines)}</tbody></table></div>'


def _shares(shown: dict[str, Outcome], kinds: dict[str, str]) -> str:
    """Who got what: a row a policy, a cell a pod, darker with more prefilled tokens."""
    lines = []
    for policy, outcome in shown.items():
        mean = fmean(outcome.pod_tokens) or 1.0
        cells = "".join(
            f'<i style="opacity:{min(1.0, 0.12 + 0.44 * tokens / mean):.2f}" title="pod {pod}: {requests:,} requests, '
            f'{tokens:,} prefilled tokens"></i>'
            for pod, (requests, tokens) in enumerate(zip(outcome.pod_requests, outcome.pod_tokens, strict=True))
        )
        kind = kinds[policy]
        lines.append(f'<div class="share {kind}"><span>{escape(policy)}</span><b>{cells}</b></div>')
    title = "Who got what: prefilled tokens, a cell a pod"
    return f"<figure><figcaption>{title}</figcaption>{''.join(lines)}</figure>"


def _footer(about: About) -> str:
    try:
        made_by = f"multipick {version('multipick')}"
    except PackageNotFoundError:
        made_by = "multipick"
    settings = json.dumps({name: getattr(about.setup, name) for name in about.setup.__slots__})
    notes = (
        "Engines are modelled (docs/simulator.md): trust the order of policies on one preset, not the milliseconds. "
        "Lines over time and pods are of the first seed. CDFs end at 99 %."
    )
    return f"{escape(made_by)}. {notes}<br><code>{escape(settings)}</code>"


def _dash(number: int) -> str:
    return ("none", "5 3", "2 2")[number // len(COLOURS) % 3]


def _seconds(value: float) -> str:
    if not value:
        return "0"
    if value < 0.001:
        return f"{value * 1e6:g} µs"
    return f"{value * 1000:.3g} ms" if value < 1 else f"{value:,.4g} s"


def _percent(value: float) -> str:
    return f"{value * 100:.3g} %"


def _number(value: float) -> str:
    return f"{value:,.4g}"
