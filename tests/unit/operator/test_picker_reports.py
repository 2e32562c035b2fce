"""What pickers say of themselves and of the engines, as verdicts."""

from typing import Any

import msgspec
import pytest
from multipick_operator.status.pickers import (
    Endpoints,
    HotPrefix,
    Mismatch,
    PickerReport,
    all_is_well,
    engines_match,
    gateways_match,
    index_ready,
    prefixes_spread,
    read,
)

WELL = PickerReport(endpoints=Endpoints(ready=2, checked=2, modes={"exact": 2}))


def report(*mismatches: tuple[str, str, str], modes: dict[str, int] | None = None, **fields: Any) -> PickerReport:
    endpoints = Endpoints(2, 2, {"exact": 2} if modes is None else modes)
    return PickerReport(endpoints=endpoints, mismatches=[Mismatch(*one) for one in mismatches], **fields)


A, B = "10.0.0.1:8000", "10.0.0.2:8000"


@pytest.mark.parametrize(
    ("reports", "expected"),
    [
        ([], ("Unknown", "NotReported")),
        ([PickerReport()], ("Unknown", "NotReported")),
        ([WELL, WELL], ("True", "EventsArriving")),
        ([WELL, PickerReport()], ("True", "EventsArriving")),
        ([WELL, report(state="loads: away")], ("False", "RedisUnreachable")),
        ([report(ingest="ingest process is down"), report(state="loads: away")], ("False", "RedisUnreachable")),
        ([PickerReport(state="tail: denied")], ("False", "RedisUnreachable")),
        ([WELL, report(ingest="ingest process is down")], ("False", "IngestDegraded")),
        ([report(modes={"exact": 1, "approx": 1})], ("False", "EventsIncomplete")),
        ([WELL, report(modes={"exact": 1, "approx": 1})], ("False", "EventsIncomplete")),
        ([report(modes={"exact": 1, "blind": 1})], ("False", "NoEvents")),
        ([report(("ranks", A, "not said"), modes={"exact": 1, "approx": 1})], ("False", "RanksUnknown")),
        ([report(("ranks", A, "not said"), ("events", B, "none"), modes={"approx": 2})], ("False", "NoEvents")),
        ([WELL, report(("events", A, "no KV events came"))], ("False", "NoEvents")),
    ],
)
def test_the_index_is_ready_where_every_picker_knows_and_shares_it(
    reports: list[PickerReport], expected: tuple[str, str]
) -> None:
    assert index_ready(reports)[:2] == expected


@pytest.mark.parametrize(
    ("reports", "expected"),
    [
        ([], ("Unknown", "NotReported")),
        ([WELL], ("True", "EnginesMatch")),
        ([report(("events", A, ""))], ("True", "EnginesMatch")),
        ([report(("later-kind", A, ""))], ("True", "EnginesMatch")),
        ([WELL, report(("block-size", A, ""))], ("False", "BlockSizeMismatch")),
        ([WELL, report(("prediction", A, ""))], ("False", "PredictionDrift")),
        ([report(("prediction", A, ""), ("block-size", B, ""))], ("False", "BlockSizeMismatch")),
        ([report(("block-size", A, ""), ("tokenizer", B, ""))], ("False", "TokenizerMismatch")),
        ([report(("tokenizer", A, "")), report(("model", B, ""))], ("False", "ModelMismatch")),
    ],
)
def test_the_worst_that_any_picker_found_is_the_reason(reports: list[PickerReport], expected: tuple[str, str]) -> None:
    assert engines_match(reports)[:2] == expected


def test_what_two_pickers_found_is_told_once_worst_first_and_in_the_pickers_words() -> None:
    one = report(("tokenizer", B, "a chat differs"), ("model", A, "it serves x"))
    other = report(("model", A, "it serves x"), ("block-size", A, "64, not 16"), ("tokenizer", A, "a text differs"))
    assert engines_match([one, other]).message == (
        f"{A}: it serves x; {B}: a chat differs; {A}: a text differs; and 1 more"
    )


def test_words_of_any_length_leave_room_for_others() -> None:
    found = engines_match([report(*(("model", f"{number}" * 500, "x" * 5000) for number in range(200)))])
    assert len(found.message) < 1024
    assert found.message.endswith("and 197 more")


def test_engines_that_did_not_answer_are_counted() -> None:
    found = engines_match([WELL, PickerReport(endpoints=Endpoints(2, 1, {"exact": 2}))])
    assert found.message == "1 of 2 endpoints have answered all checks"


@pytest.mark.parametrize(
    ("reports", "well"),
    [
        ([], False),
        ([WELL], True),
        ([report(state="x: away")], False),
        ([report(("model", A, ""))], False),
        ([msgspec.structs.replace(WELL, hotspots=[HotPrefix("0a", 16, 0.5, [A])])], False),
        ([WELL, report(refused={"tls_on_plaintext": "10.0.0.9"})], False),
        ([report(refused={"flood": "10.0.0.9"})], True),
    ],
)
def test_a_pool_with_troubles_is_looked_at_again_soon(reports: list[PickerReport], well: bool) -> None:
    assert all_is_well(reports) == well


@pytest.mark.parametrize("body", [b"", b"404: Not Found", b"[]", b'{"mismatches": [1]}', b"[" * 100_000])
def test_what_is_no_report_is_none(body: bytes) -> None:
    assert read(body) is None


def test_fields_of_a_later_picker_are_passed_over() -> None:
    later = msgspec.to_builtins(WELL) | {"replica": "r", "tokens": "local", "new": {"a": 1}}
    assert read(msgspec.json.encode(later)) == WELL


def test_hot_prefixes_of_all_pickers_are_named_once_by_hash_and_endpoints_the_most_asked_for_first() -> None:
    one = msgspec.structs.replace(WELL, hotspots=[HotPrefix("0a", 1024, 0.71, [A]), HotPrefix("0b", 16, 0.9, [A, B])])
    other = msgspec.structs.replace(WELL, hotspots=[HotPrefix("0a", 1024, 0.70, [A])])
    assert prefixes_spread([]).status == "Unknown"
    assert prefixes_spread([WELL]) == ("True", "PrefixesSpread", "")
    assert prefixes_spread([one, WELL, other]) == (
        "False",
        "HotPrefix",
        f"prefix 0b of 16 tokens is in 90% of the requests and held by {A}, {B}; "
        f"prefix 0a of 1024 tokens is in 70% of the requests and held by {A}; "
        "pickers let one endpoint more come to hold it",
    )


def test_many_hot_prefixes_on_many_endpoints_leave_room_for_others() -> None:
    many = [HotPrefix(f"{number:0100}", 16, 0.5, ["x" * 500] * 300) for number in range(32)]
    found = prefixes_spread([msgspec.structs.replace(WELL, hotspots=many)])
    assert len(found.message) < 1400
    assert "and 297 more" in found.message
    assert "; and 29 more; " in found.message


@pytest.mark.parametrize(
    ("refused", "expected", "words"),
    [
        ({}, ("True", "GatewaysMatch"), ""),
        ({"tls_on_plaintext": "10.0.0.9"}, ("False", "TLSMismatch"), "10.0.0.9 speaks TLS"),
        ({"tls_on_plaintext": "10.0.0.9"}, ("False", "TLSMismatch"), "routing.gateway.pickerTLS to SelfSigned"),
        ({"plaintext_on_tls": "fd00::9"}, ("False", "TLSMismatch"), "fd00::9 speaks plaintext"),
        ({"plaintext_on_tls": "fd00::9"}, ("False", "TLSMismatch"), "routing.gateway.pickerTLS to Off"),
        ({"tls_failed": "10.0.0.9"}, ("False", "TLSFailed"), "TLS 1.2 or 1.3"),
        ({"tls_failed": "a", "plaintext_on_tls": "b"}, ("False", "TLSMismatch"), "b speaks plaintext"),
        ({"not_http2": "10.0.0.9", "silent": "10.0.0.9", "of a later picker": ""}, ("True", "GatewaysMatch"), ""),
    ],
)
def test_a_gateway_that_speaks_otherwise_is_told_with_what_helps(
    refused: dict[str, str], expected: tuple[str, str], words: str
) -> None:
    found = gateways_match([WELL, report(refused=refused)])
    assert found[:2] == expected
    assert words in found.message


def test_gateways_are_not_known_before_a_picker_tells_and_any_words_of_it_leave_room_for_others() -> None:
    assert gateways_match([]).status == "Unknown"
    found = gateways_match([report(refused={"tls_failed": "x" * 5000})] * 3)
    assert found.message.startswith("3 of 3 pickers")
    assert len(found.message) < 400
