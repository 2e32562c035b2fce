"""What the pickers say of themselves and of the engines, and what follows from it for the pool's conditions. No I/O."""

from collections.abc import Sequence

import msgspec

from multipick_operator.status.verdict import Verdict

MAX_ANSWER_BYTES = 4 << 20
_TOLD = 3  # mismatches that a message names
_WORDS = 250  # characters of each
_PEER = 80  # characters of an address
_REASONS = {  # worst first
    "model": "ModelMismatch",
    "tokenizer": "TokenizerMismatch",
    "block-size": "BlockSizeMismatch",
    "prediction": "PredictionDrift",
}
_REFUSED = {  # why connections are cut: what is wrong, and what helps; in this order
    "tls_on_plaintext": (
        "TLSMismatch",
        "speaks TLS, and the pickers don't: set routing.gateway.pickerTLS to SelfSigned, or have it speak plaintext",
    ),
    "plaintext_on_tls": (
        "TLSMismatch",
        "speaks plaintext, and the pickers want TLS: set routing.gateway.pickerTLS to Off, or have it speak TLS",
    ),
    "tls_failed": (
        "TLSFailed",
        "and the pickers come to no TLS handshake: it has to speak TLS 1.2 or 1.3, and take a self-signed certificate",
    ),
}
_EVENTS = "events"
_RANKS = "ranks"
_NOT_YET = Verdict("Unknown", "NotReported", "no picker has told of a ready endpoint yet")


class Endpoints(msgspec.Struct, frozen=True):
    """How many endpoints of the pool."""

    ready: int = 0
    checked: int = 0  # ready, and their engines have answered all that a picker asks
    modes: dict[str, int] = {}  # ready, by how well their caches are known: exact, approx, blind


class Mismatch(msgspec.Struct, frozen=True):
    """What is wrong with one engine."""

    kind: str
    endpoint: str
    words: str


class HotPrefix(msgspec.Struct, frozen=True):
    """A prefix of which more is asked than its holders' part of the pool."""

    prefix: str  # hash
    tokens: int
    share: float  # of the last requests
    endpoints: list[str]  # that hold it


class PickerReport(msgspec.Struct, frozen=True):
    """A picker's `GET /status`; fields of later versions are passed over."""

    state: str | None = None  # why it goes by its own view; None: the shared state answers
    ingest: str | None = None  # why KV events don't reach the shared state
    endpoints: Endpoints = Endpoints()
    mismatches: list[Mismatch] = []
    hotspots: list[HotPrefix] = []
    refused: dict[str, str] = {}  # why connections were cut of late -> address of the last peer


def read(body: bytes) -> PickerReport | None:
    """One picker's answer; None for what is none."""
    try:
        return msgspec.json.decode(body, type=PickerReport)
    except (msgspec.DecodeError, RecursionError):
        return None


def all_is_well(reports: Sequence[PickerReport]) -> bool:
    """Nothing is to be looked at again soon."""
    verdicts = (index_ready(reports), engines_match(reports), prefixes_spread(reports), gateways_match(reports))
    return bool(reports) and all(verdict.status == "True" for verdict in verdicts)


def index_ready(reports: Sequence[PickerReport], store: str = "") -> Verdict:
    """Whether the pickers know what the engines cache, and share what they know; `store`: where."""
    for reason, outages in (
        ("RedisUnreachable", [report.state for report in reports if report.state]),
        ("IngestDegraded", [report.ingest for report in reports if report.ingest]),
    ):
        if outages:
            words = f"{len(outages)} of {len(reports)} pickers: {outages[0][:_WORDS]}"
            where = f" at {store}" if store and reason == "RedisUnreachable" else ""
            return Verdict("False", reason, f"{words}{where}; requests go on, by what each picker knows itself")
    least = _least(reports)
    if least is None:
        return _NOT_YET
    exact = least.modes.get("exact", 0)
    message = f"{exact} of {least.ready} endpoints known exactly"
    if silent := _found(reports, (_EVENTS,)):
        return Verdict("False", "NoEvents", f"{message}; {_listed(silent)}")
    if exact == least.ready:
        return Verdict("True", "EventsArriving", message)
    if unknown := _found(reports, (_RANKS,)):
        return Verdict("False", "RanksUnknown", f"{message}; {_listed(unknown)}")
    if blind := least.modes.get("blind", 0):
        return Verdict("False", "NoEvents", f"{message}; {blind} send no KV events that can be used")
    return Verdict("False", "EventsIncomplete", f"{message}; events of the others were lost, and will be again whole")


def engines_match(reports: Sequence[PickerReport]) -> Verdict:
    """Whether the engines are what the pool's requests, its tokenizer and its spec take them for."""
    found = _found(reports, tuple(_REASONS))
    if found:
        worst = next(reason for kind, reason in _REASONS.items() if any(one.kind == kind for one in found))
        return Verdict("False", worst, _listed(found))
    least = _least(reports)
    if least is None:
        return _NOT_YET
    checked = min(report.endpoints.checked for report in reports)
    if not checked:
        return Verdict("Unknown", "NotChecked", f"none of {least.ready} endpoints has answered all checks yet")
    return Verdict("True", "EnginesMatch", f"{checked} of {least.ready} endpoints have answered all checks")


def prefixes_spread(reports: Sequence[PickerReport]) -> Verdict:
    """Whether no prefix is asked for more than its holders' part of the pool; who holds it would be crowded."""
    if not reports:
        return Verdict("Unknown", "NotReported", "no picker has told yet")
    hot = {one.prefix: one for report in reports for one in report.hotspots}
    if not hot:
        return Verdict("True", "PrefixesSpread", "")
    most = sorted(hot.values(), key=lambda one: -one.share)
    told = "; ".join(
        f"prefix {one.prefix[:32]} of {one.tokens} tokens is in {one.share:.0%} of the requests and held by "
        f"{', '.join(each[:80] for each in one.endpoints[:_TOLD])}"
        + (f" and {len(one.endpoints) - _TOLD} more" if len(one.endpoints) > _TOLD else "")
        for one in most[:_TOLD]
    )
    more = f"; and {len(most) - _TOLD} more" if len(most) > _TOLD else ""
    return Verdict("False", "HotPrefix", f"{told}{more}; pickers let one endpoint more come to hold it")


def gateways_match(reports: Sequence[PickerReport]) -> Verdict:
    """Whether who connects speaks what the pickers speak; each of a gateway's requests is a 500 where it doesn't."""
    if not reports:
        return Verdict("Unknown", "NotReported", "no picker has told yet")
    for why, (reason, words) in _REFUSED.items():
        if peers := [report.refused[why] for report in reports if why in report.refused]:
            where = f"{len(peers)} of {len(reports)} pickers cut connections in the last minutes"
            return Verdict("False", reason, f"{where}: {peers[0][:_PEER]} {words}")
    return Verdict("True", "GatewaysMatch", "")


def _least(reports: Sequence[PickerReport]) -> Endpoints | None:
    """As the picker sees them that knows fewest exactly; None where none knows a ready one."""
    seen = [report.endpoints for report in reports if report.endpoints.ready]
    return min(seen, key=lambda one: one.modes.get("exact", 0) - one.ready, default=None)


def _found(reports: Sequence[PickerReport], kinds: Sequence[str]) -> list[Mismatch]:
    """What any picker found of these kinds, once an endpoint, in the order of `kinds` and of the pickers."""
    first: dict[tuple[str, str], Mismatch] = {}
    for report in reports:
        for one in report.mismatches:
            first.setdefault((one.kind, one.endpoint), one)
    return sorted((one for one in first.values() if one.kind in kinds), key=lambda one: kinds.index(one.kind))


def _listed(found: Sequence[Mismatch]) -> str:
    told = "; ".join(f"{one.endpoint[:80]}: {one.words[:_WORDS]}" for one in found[:_TOLD])
    return f"{told}; and {len(found) - _TOLD} more" if len(found) > _TOLD else told
