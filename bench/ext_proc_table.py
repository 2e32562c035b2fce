"""What `ext_proc.py` has measured, as a table, and against its bars."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

from ext_proc_load import EVENTS

TRANSPORTS = ("h2", "grpc")
BARS = {1024: 3.5, 8192: 4.0, 65536: 8.0}  # picker CPU by that of Envoy alone, full duplex, by bytes of the chat
EVENT_BARS = {"full duplex": 1.0, "buffered": 0.35}
ADDED_BAR, RATE_BAR = 0.5, 4.0  # against grpc.aio


@dataclass(frozen=True)
class Row:
    transport: str
    body: str
    chat_bytes: int
    answer: str
    requests_per_s: float  # as fast as it goes
    picker_cpu_us: float  # a request, then
    envoy_cpu_us: float
    envoy_alone_cpu_us: float
    steady_per_s: float  # requests/s, then
    picker_rest_us: float  # of its CPU a request, what it does at rest as well
    p50_ms: float
    p99_ms: float
    alone_p50_ms: float
    alone_p99_ms: float
    busiest: float  # of all its workers' CPU, as fast as it goes, the part of the busiest; 1 where there is one
    stages_us: dict[str, float]  # mean wall time of a decision's stages, as fast as it goes

    @property
    def ratio(self) -> float:
        """The picker's CPU by that of an Envoy without ext_proc."""
        return self.picker_cpu_us / self.envoy_alone_cpu_us


@dataclass(frozen=True)
class Idle:
    """A picker at rest."""

    transport: str
    cpu_us_per_s: float
    memory_mb: float  # of its process and its children, with their part of what they share


def least_disturbed(rows: Sequence[Row]) -> Row:
    """Of rounds of the same, the best of each figure: what it is when nothing else wants the processor."""
    columns = {each.name: [getattr(row, each.name) for row in rows] for each in fields(Row)}
    most = {"requests_per_s", "steady_per_s"}
    figures = {name: max(seen) if name in most else min(seen) for name, seen in columns.items() if name != "stages_us"}
    stages = {stage: min(row.stages_us[stage] for row in rows) for stage in rows[0].stages_us}
    return Row(**figures, stages_us=stages)


HEAD = (
    f"{'':>44} | {'CPU us a request':^47} | {'first byte ms at a steady rate':^41}\n"
    f"{'':<6} {'body':<11} {'chat':>6} {'answer':>11} {'req/s':>6} | "
    f"{'picker':>7} {'rest':>6} {'Envoy':>6} {'alone':>6} {'ratio':>6} {'busiest':>7} | "
    f"{'rate':>6} {'p50':>6} {'alone':>6} {'p99':>6} {'alone':>6}  added"
)


def print_row(row: Row) -> None:
    print(
        f"{row.transport:<6} {row.body:<11} {row.chat_bytes:>6} {row.answer:>11} {row.requests_per_s:>6.0f} | "
        f"{row.picker_cpu_us:>7.0f} {row.picker_rest_us:>6.0f} {row.envoy_cpu_us:>6.0f} {row.envoy_alone_cpu_us:>6.0f} "
        f"{row.ratio:>6.2f} {row.busiest:>7.2f} | {row.steady_per_s:>6.0f} {row.p50_ms:>6.2f} {row.alone_p50_ms:>6.2f} "
        f"{row.p99_ms:>6.2f} {row.alone_p99_ms:>6.2f}  {row.p50_ms - row.alone_p50_ms:.2f} / "
        f"{row.p99_ms - row.alone_p99_ms:.2f}",
        flush=True,
    )


def print_stages(rows: Sequence[Row]) -> None:
    names = list(dict.fromkeys(stage for row in rows for stage in row.stages_us))
    print("\nmean wall time of a decision's stages, us\n" + " " * 37 + "".join(f"{name:>9}" for name in names))
    for row in rows:
        figures = "".join(f"{row.stages_us.get(name, 0):>9.0f}" for name in names)
        print(f"{row.transport:<6} {row.body:<11} {row.chat_bytes:>6} {row.answer:>11}{figures}")


def bars(rows: Sequence[Row]) -> dict[str, tuple[float, float, bool]]:
    """What was measured, its bar, and whether that is met."""
    found = {(row.transport, row.body, row.chat_bytes, row.answer): row for row in rows}
    seen: dict[str, tuple[float, float, bool]] = {}
    for size, bar in BARS.items():
        if own := found.get(("h2", "full duplex", size, "json")):
            seen[f"CPU by Envoy's alone, {size:,} B, full duplex"] = (own.ratio, bar, own.ratio <= bar)
    for body, bar in EVENT_BARS.items():
        if own := found.get(("h2", body, 8192, f"{EVENTS} events")):
            seen[f"the same, 8,192 B and {EVENTS} events, {body}"] = (own.ratio, bar, own.ratio <= bar)
    pair = [found.get((transport, "full duplex", 8192, "json")) for transport in TRANSPORTS]
    if (own := pair[0]) and (other := pair[1]):
        for name in ("p50", "p99"):
            added = [getattr(row, f"{name}_ms") - getattr(row, f"alone_{name}_ms") for row in (own, other)]
            by = added[0] / added[1]
            seen[f"{name} added at {own.steady_per_s:.0f}/s, by grpc.aio's at {other.steady_per_s:.0f}/s"] = (
                by,
                ADDED_BAR,
                by <= ADDED_BAR,
            )
        times = other.picker_cpu_us / own.picker_cpu_us
        seen["requests/s of a picker core, by grpc.aio's"] = (times, RATE_BAR, times >= RATE_BAR)
    return seen


def print_bars(seen: dict[str, tuple[float, float, bool]]) -> None:
    print(f"\n{'':<58}{'seen':>7}{'bar':>7}")
    for what, (value, bar, met) in seen.items():
        print(f"{what:<58}{value:>7.2f}{bar:>7.2f}  {'met' if met else 'MISSED'}")
