"""The tables of docs/evaluation.md, and its plots, from what bench/policies.py has written.

python bench/policies_tables.py [bench/results/policies.json] [--plots docs]
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from multipick_sim.replay.report.charts import Axis, Line, line_chart
from multipick_sim.replay.report.style import COLOURS

RESULTS = Path(__file__).parent / "results" / "policies.json"
PLOTTED = ("lmetric", "marginal", "dynamo", "llm-d", "linear", "vllm-v1", "least-request", "round-robin")
LEVELS = ("0.5", "0.8", "1")
LATE = ("0.05 s", "0.2 s", "1 s")
OWN_LOADS = "4 pickers, each by its own loads"


def tables(parts: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Markdown, one table a part; of the hot prefixes and of the knowledge one for all of their parts."""
    for kind in ("spread", "whole", "ticks", "made", "unequal"):
        for part in parts:
            if part["kind"] == kind:
                yield f"\n### {part['part']} ({part['requests']:,} requests, {part['seeds']} seeds)\n"
                yield from _by_load(part)
    for kind in ("hot", "knowledge"):
        chosen = [part for part in parts if part["kind"] == kind]
        if chosen:
            yield f"\n### {kind}\n"
            yield from _by_part(chosen)
    beside = [part for part in parts if part["kind"] == "marginal"]
    beside += [part for part in parts if part["kind"] == "hot" and part["setup"]["guard"]]
    if beside:
        yield "\n### marginal\n"
        yield from _by_lmetric(beside)


def _by_load(part: dict[str, Any]) -> Iterator[str]:
    loads = list(dict.fromkeys(row["load"] for row in part["rows"]))
    names = LEVELS if len(loads) == len(LEVELS) else [f"{load / (part['capacity'] or 1):.2g}" for load in loads]
    yield "| policy | " + " | ".join(f"load {name}" for name in names) + " |"
    yield "|---" * (len(loads) + 1) + "|"
    by = {(row["policy"], row["load"]): row for row in part["rows"]}
    policies = dict.fromkeys(row["policy"] for row in part["rows"])
    for policy in sorted(policies, key=lambda name: by[name, loads[-1]]["ttft_mean"]["value"]):
        yield f"| `{policy}` | " + " | ".join(_cell(by[policy, load]) for load in loads) + " |"


def _by_part(parts: Sequence[dict[str, Any]]) -> Iterator[str]:
    policies = list(dict.fromkeys(row["policy"] for part in parts for row in part["rows"]))
    yield "| | " + " | ".join(f"`{policy}`" for policy in policies) + " |"
    yield "|---" * (len(policies) + 1) + "|"
    for part in parts:
        rows = {row["policy"]: row for row in part["rows"]}
        yield f"| {part['part']} | " + " | ".join(_cell(rows[policy]) for policy in policies) + " |"


def _by_lmetric(parts: Sequence[dict[str, Any]]) -> Iterator[str]:
    """`marginal` against `lmetric` on the same requests, one row a part and load."""
    yield "| | load | seeds | TTFT % | TPOT % | E2E % |"
    yield "|---" * 6 + "|"
    for part in parts:
        seeds = {(row["policy"], row["load"]): row["seeds"] for row in part["rows"]}
        for row in part["by_lmetric"]:
            if row["policy"] == "marginal":
                load = f"{row['load'] / (part['capacity'] or 1):.2g}"
                changes = " | ".join(_change(row[each]) for each in ("ttft", "tpot", "e2e"))
                yield f"| {part['part']} | {load} | {seeds['marginal', row['load']]} | {changes} |"


def _change(ratio: dict[str, Any]) -> str:
    half = f" ± {100 * ratio['half']:.1f}" if ratio["half"] else ""
    return f"{100 * (ratio['value'] - 1):+.1f}{half}"


def _cell(row: dict[str, Any]) -> str:
    """TTFT ms / TPOT ms / E2E s, the means, with half of the interval of the first; requests kept out of holders."""
    ttft = row["ttft_mean"]
    half = f"±{ttft['half'] * 1000:.0f}" if ttft["half"] else ""
    avoided = f" ({row['avoided']['value']:.0f})" if row["avoided"]["value"] else ""
    tpot, e2e = row["tpot_mean"]["value"] * 1000, row["e2e_mean"]["value"]
    return f"{ttft['value'] * 1000:.0f}{half} / {tpot:.1f} / {e2e:.2f}{avoided}"


def load_plot(parts: Sequence[dict[str, Any]]) -> str:
    """Mean TTFT of the rules over load, by the whole trace."""
    part = next(part for part in parts if part["kind"] == "whole")
    lines = []
    for number, policy in enumerate(PLOTTED):
        points = [
            (row["load"] / part["capacity"], row["ttft_mean"]["value"])
            for row in part["rows"]
            if row["policy"] == policy
        ]
        lines.append(Line(policy, f"p{number}", points))
    ticks = sorted({x for x, _ in lines[0].points})
    return _svg("Mean TTFT", lines, Axis("load, of round-robin's capacity", lambda value: f"{value:.2g}", ticks=ticks))


def knowledge_plot(parts: Sequence[dict[str, Any]]) -> str:
    """Mean TTFT by what the pickers know: how late without reservations, and each by its own loads."""
    ttft = {
        (part["part"], row["policy"]): row["ttft_mean"]["value"]
        for part in parts
        if part["kind"] == "knowledge"
        for row in part["rows"]
    }

    def line(name: str, number: int, policy: str, late: str) -> Line:
        knowledge = ("exact", *(late.format(seconds) for seconds in LATE))
        return Line(name, f"p{number}", [(float(place), ttft[each, policy]) for place, each in enumerate(knowledge)])

    lines = [line("lmetric, picks shared at once", 0, "lmetric", "events {} late")]
    for number, policy in enumerate(("lmetric", "lmetric-no-queue", "least-request"), start=1):
        lines.append(line(f"{policy}, no reservation", number, policy, "all {} late, no reservation"))
        lines.append(Line(policy, f"p{number}", [(len(LATE) + 1.0, ttft[OWN_LOADS, policy])]))
    labels = ("exact", *(f"{seconds} late" for seconds in LATE), "own loads")
    places = [float(place) for place in range(len(labels))]
    return _svg("Mean TTFT", lines, Axis("", lambda place: labels[round(place)], ticks=places, high=places[-1] + 0.3))


def _svg(title: str, lines: Sequence[Line], x: Axis) -> str:
    """A chart of seconds as one SVG file by itself. The first line of each colour is named."""
    figure = line_chart(title, lines, x, Axis("", lambda value: f"{value:.3g} s", log=True), dots=True)
    svg = figure[figure.index("<svg") : figure.index("</figure>")]
    names: dict[str, str] = {}
    for line in lines:
        names.setdefault(line.kind, line.name)
    width, height = 399 + 7 * max(map(len, names.values())), 250
    svg = svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    svg = svg.replace('viewBox="0 0 380 250"', f'viewBox="0 0 {width} {height}"', 1)
    style = (
        "text{font:11px system-ui,sans-serif;fill:#57606a}.frame line{stroke:#d8dee4}"
        ".line{fill:none;stroke:var(--c);stroke-width:1.4}.line circle{fill:var(--c);stroke:none}"
        ".line.p0,.line.p1{stroke-width:2.6}"
    ) + "".join(f".{kind}{{--c:{COLOURS[number]}}}" for number, kind in enumerate(names))
    legend = "".join(
        f'<rect x="388" y="{18 + 18 * n}" width="10" height="10" rx="2" fill="{COLOURS[n]}"/>'
        f'<text x="403" y="{27 + 18 * n}">{name}</text>'
        for n, name in enumerate(names.values())
    )
    opened = svg.index(">") + 1
    paper = f'<rect width="{width}" height="{height}" fill="#fff"/>'
    return f"{svg[:opened]}<style>{style}</style>{paper}{legend}{svg[opened:]}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="?", default=RESULTS)
    parser.add_argument("--plots", type=Path, metavar="FOLDER")
    options = parser.parse_args()
    parts = json.loads(options.results.read_text())["parts"]
    for line in tables(parts):
        print(line)
    if options.plots:
        (options.plots / "evaluation.svg").write_text(load_plot(parts))
        (options.plots / "evaluation-knowledge.svg").write_text(knowledge_plot(parts))


if __name__ == "__main__":
    main()
