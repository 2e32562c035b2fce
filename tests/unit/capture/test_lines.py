import json
from pathlib import Path
from typing import Any

from multipick_epp.blocks import block_keys, root_key
from multipick_epp.capture.lines import Captured, Lines, Part, Told, part
from multipick_sim.workloads.formats import read_workload

KEYS = block_keys(root_key(b"", "m"), range(1000), 16)


def lines(request: Captured, secret: bytes = b"s", pool: str = "p") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Lines(secret, pool).of(request).splitlines()]


def request(*parts: Part, output: int = 10, turn: int | None = None) -> Captured:
    return Captured(1_700_000_000.0625, parts, turn, output, Told.USAGE)


def test_a_line_has_times_lengths_and_an_id_a_block_and_no_key() -> None:
    [line] = lines(request(part(1000, 16, KEYS), turn=3))
    ids = line.pop("hash_ids")
    assert line == {
        "timestamp": 1_700_000_000_062,
        "input_length": 1000,
        "output_length": 10,
        "block_size": 16,
        "output_from": "usage",
        "turn": 3,
    }
    assert len(set(ids)) == len(ids) == 62
    assert all(0 <= each < 1 << 53 for each in ids)
    assert not set(ids) & {key >> shift for key in KEYS for shift in range(12)}


def test_equal_prefixes_have_equal_ids_and_others_do_not() -> None:
    other = block_keys(root_key(b"", "m"), [*range(160), *range(2000)], 16)
    one, two = (lines(request(part(1000, 16, keys)))[0]["hash_ids"] for keys in (KEYS, other))
    assert one[:10] == two[:10]
    assert not set(one[10:]) & set(two[10:])


def test_pickers_of_one_pool_make_the_same_ids_and_those_of_another_do_not() -> None:
    made = request(part(1000, 16, KEYS))
    assert lines(made) == lines(made)
    ids = set(lines(made)[0]["hash_ids"])
    assert not ids & set(lines(made, secret=b"other")[0]["hash_ids"])
    assert not ids & set(lines(made, pool="other")[0]["hash_ids"])


def test_a_request_of_several_prompts_has_a_line_each_and_its_answers_between_them() -> None:
    found = lines(request(part(1000, 16, KEYS), part(32, 16, KEYS[:2]), part(0), output=11))
    assert [line["input_length"] for line in found] == [1000, 32, 1]
    assert [line["output_length"] for line in found] == [3, 4, 4]
    assert found[2]["hash_ids"] == []


def test_what_is_written_is_what_replay_reads(tmp_path: Path) -> None:
    made = Lines(b"s", "p")
    turns = [
        Captured(100.0, [part(40, 16, KEYS[:2])], 0, 30, Told.STEPS),
        Captured(101.0, [part(500)], None, 5, Told.NOBODY),  # not read: equal to none
        Captured(109.5, [part(100, 16, KEYS[:6])], 1, 8, Told.USAGE),
    ]
    (tmp_path / "capture-1.jsonl").write_bytes(b"".join(map(made.of, turns)))
    workload = read_workload(tmp_path)
    first, unread, second = workload.items
    assert workload.block_tokens == 16
    assert (first.at_s, unread.at_s, second.at_s) == (0.0, 1.0, 9.5)
    assert second.after == 0
    assert first.known_tokens == 70  # the second turn's prompt tells what the answer was
    assert list(first.prefixes) == list(second.prefixes[: len(first.prefixes)])
    assert (unread.prompt_tokens, list(unread.prefixes)) == (500, [])
