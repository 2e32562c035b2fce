"""What several workers say of themselves, as one picker's answer."""

from typing import Any

import msgspec
from msgspec.structs import replace
from multipick_epp.admin.server import EndpointRow
from multipick_epp.admin.status import EndpointCounts, PickerStatus, TaskFailure, WorkerCounts
from multipick_epp.checks.mismatch import Kind, Mismatch
from multipick_epp.decision.hotspots import HotPrefix
from multipick_epp.types import Endpoint, Mode, ReplicaId
from multipick_epp.workers.answers import one_status, one_table

COUNTS = WorkerCounts(2, 2, 0)
WELL = EndpointCounts(2, 2, {Mode.EXACT: 2})
A, B = Endpoint("10.0.0.1:8000"), Endpoint("10.0.0.2:8000")


def status(replica: str = "r", counts: EndpointCounts = WELL, **fields: Any) -> PickerStatus:
    told = PickerStatus(ReplicaId(replica), None, None, "local", counts, [], prompts={"chats": "template"})
    return replace(told, **fields)


def test_where_all_is_well_with_each_all_is_well() -> None:
    found = one_status([status("one"), status("two")], COUNTS, [])
    assert msgspec.json.encode(found) == msgspec.json.encode(replace(status("one,two"), workers=COUNTS))


UNWELL: dict[str, Any] = {
    "state": "loads: away",
    "ingest": "writer: away",
    "tokens": "engine",
    "endpoints": EndpointCounts(2, 1, {Mode.EXACT: 1, Mode.APPROX: 1}),
    "mismatches": [Mismatch(Kind.MODEL, A, "it serves other")],
    "failing": [TaskFailure("pod watch", "", "it broke")],
    "pods": "the API server does not answer",
    "left_out": {A: 3},
    "prompts": {"chats": "engine"},
    "hotspots": [HotPrefix("0a41", 1024, 0.7, [A])],
    "capture": "the disk is full",
    "refused": {"tls_on_plaintext": "10.0.0.9"},
}


def test_the_worst_of_each_is_told_whichever_worker_says_it() -> None:
    assert {*UNWELL, "replica", "workers"} == {*PickerStatus.__struct_fields__}, "no field is left out"
    for told in ([status(), status(**UNWELL)], [status(**UNWELL), status()]):
        found = one_status(told, COUNTS, [])
        assert {name: getattr(found, name) for name in UNWELL} == UNWELL


def test_what_both_say_is_told_once_and_of_each_endpoint_the_most() -> None:
    both = {"mismatches": UNWELL["mismatches"], "hotspots": UNWELL["hotspots"]}
    found = one_status([status(**both, left_out={A: 1, B: 1}), status(**both, left_out={A: 3})], COUNTS, [])
    assert (found.mismatches, found.hotspots) == (both["mismatches"], both["hotspots"])
    assert found.left_out == {A: 3, B: 1}


def test_a_worker_that_ended_is_told_as_work_that_failed() -> None:
    dead = TaskFailure("worker", "1", "it ended, exit status -9")
    assert one_status([status()], COUNTS, [dead]).failing == [dead]


def test_a_table_has_an_endpoint_once_with_what_all_sent_there() -> None:
    one = EndpointRow(A, True, 3, 100, 0, 5, 500, 50, Mode.EXACT)
    other = EndpointRow(A, False, 4, 90, 1, 7, 700, 70, Mode.APPROX)
    alone = EndpointRow(B, True, 0, 0, 0, 1, 10, 0, Mode.EXACT)
    assert one_table([[one], [other, alone]]) == [EndpointRow(A, False, 4, 100, 1, 12, 1200, 120, Mode.APPROX), alone]
