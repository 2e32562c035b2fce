"""What the workers say of themselves, made one picker's answer: the worst of each, and of what each did the sum."""

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Final

from msgspec.structs import replace

from multipick_epp.admin.server import EndpointRow
from multipick_epp.admin.status import EndpointCounts, PickerStatus, TaskFailure, WorkerCounts
from multipick_epp.types import Endpoint, Mode, ReplicaId

_WORST_FIRST: Final = (Mode.BLIND, Mode.APPROX, Mode.EXACT)


def one_status(told: Sequence[PickerStatus], workers: WorkerCounts, failing: Sequence[TaskFailure]) -> PickerStatus:
    """Of at least one worker that tells; `failing`: what the front saw fail."""
    left_out = sorted(chain.from_iterable(each.left_out.items() for each in told), key=lambda each: each[1])
    hot = {prefix.prefix: prefix for each in told for prefix in each.hotspots}
    return PickerStatus(
        replica=ReplicaId(",".join(each.replica for each in told)),
        state=_first(each.state for each in told),
        ingest=_first(each.ingest for each in told),
        tokens="local" if all(each.tokens == "local" for each in told) else "engine",
        endpoints=min((each.endpoints for each in told), key=_known),
        mismatches=[*{(one.kind, one.endpoint): one for each in told for one in each.mismatches}.values()],
        failing=[*failing, *chain.from_iterable(each.failing for each in told)],
        pods=_first(each.pods for each in told),
        left_out=dict(left_out),
        prompts=_asked_of_engines(told),
        hotspots=[*hot.values()],
        capture=_first(each.capture for each in told),
        refused={why: peer for each in told for why, peer in each.refused.items()},
        workers=workers,
    )


def one_table(tables: Iterable[Sequence[EndpointRow]]) -> list[EndpointRow]:
    """One row an endpoint."""
    rows: dict[Endpoint, EndpointRow] = {}
    for row in chain.from_iterable(tables):
        other = rows.get(row.endpoint)
        rows[row.endpoint] = row if other is None else _one_row(row, other)
    return list(rows.values())


def _one_row(row: EndpointRow, other: EndpointRow) -> EndpointRow:
    return replace(
        row,
        ready=row.ready and other.ready,
        in_flight=max(row.in_flight, other.in_flight),
        queued_tokens=max(row.queued_tokens, other.queued_tokens),
        unexplained_in_flight=max(row.unexplained_in_flight, other.unexplained_in_flight),
        requests_total=row.requests_total + other.requests_total,
        prompt_tokens_total=row.prompt_tokens_total + other.prompt_tokens_total,
        hit_tokens_total=row.hit_tokens_total + other.hit_tokens_total,
        mode=min(row.mode, other.mode, key=lambda mode: _WORST_FIRST.index(Mode(mode))),
    )


def _first(said: Iterable[str | None]) -> str | None:
    return next((each for each in said if each is not None), None)


def _asked_of_engines(told: Sequence[PickerStatus]) -> dict[str, str]:
    """What makes the ids of each kind of prompt: an engine, where any worker asks one."""
    ways = {kind: how for each in told for kind, how in each.prompts.items()}
    return {kind: "engine" if any(each.prompts.get(kind) == "engine" for each in told) else ways[kind] for kind in ways}


def _known(counts: EndpointCounts) -> tuple[int, int, int]:
    return counts.ready, counts.checked, counts.modes.get(Mode.EXACT, 0)
