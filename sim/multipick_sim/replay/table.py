"""Rows -> a table for the terminal, one block a load."""

from collections.abc import Callable, Iterator, Sequence

from multipick_sim.replay.summary import Mean, Row

COLUMNS: Sequence[tuple[str, Callable[[Row], Mean | None], float, int]] = (
    ("TTFT mean ms", lambda row: row.ttft_mean, 1000, 0),
    ("p50", lambda row: row.ttft_p50, 1000, 0),
    ("p99", lambda row: row.ttft_p99, 1000, 0),
    ("TPOT mean ms", lambda row: row.tpot_mean, 1000, 1),
    ("E2E mean s", lambda row: row.e2e_mean, 1, 2),
    ("p99", lambda row: row.e2e_p99, 1, 1),
    ("hit %", lambda row: row.hit_rate, 100, 1),
    ("imbalance", lambda row: row.imbalance, 1, 2),
)


def table(rows: Sequence[Row], label: Callable[[float], str]) -> Iterator[str]:
    """Lines; `label` says what a load is called. Best mean TTFT first."""
    width = max((len(row.policy) for row in rows), default=6)
    for load in dict.fromkeys(row.load for row in rows):
        block = sorted((row for row in rows if row.load == load), key=lambda row: row.ttft_mean.value)
        cells = [[row.policy, *(cell(read(row), scale, digits) for _, read, scale, digits in COLUMNS)] for row in block]
        heads = ["policy", *(name for name, *_ in COLUMNS)]
        widths = [max(width, 6), *(max(len(line[i]) for line in [heads, *cells]) for i in range(1, len(heads)))]
        yield ""
        yield f"load {label(load)}"
        for line in [heads, *cells]:
            yield "  ".join([line[0].ljust(widths[0]), *(text.rjust(widths[i + 1]) for i, text in enumerate(line[1:]))])


def cell(mean: Mean | None, scale: float, digits: int) -> str:
    """A figure, and half of its interval where there are several seeds; a dash where there is none."""
    if mean is None:
        return "-"
    text = f"{mean.value * scale:.{digits}f}"
    return text if mean.half is None else f"{text}±{mean.half * scale:.{digits}f}"
