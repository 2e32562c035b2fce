import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from multipick_sim.workloads.formats import TraceError, read_workload
from multipick_sim.workloads.workload import NOBODY


def write(path: Path, lines: list[dict[str, Any]], *, zipped: bool = False) -> Path:
    data = "".join(json.dumps(line) + "\n" for line in lines).encode()
    path.write_bytes(gzip.compress(data) if zipped else data)
    return path


def mooncake(at_ms: float, tokens: int, ids: list[int], output: int = 10, **more: object) -> dict[str, Any]:
    return {"timestamp": at_ms, "input_length": tokens, "output_length": output, "hash_ids": ids, **more}


def bailian(chat: int, parent: int, at_s: float, tokens: int, ids: list[int], output: int = 10) -> dict[str, Any]:
    return {
        "chat_id": chat,
        "parent_chat_id": parent,
        "timestamp": at_s,
        "input_length": tokens,
        "output_length": output,
        "type": "text",
        "turn": 1,
        "hash_ids": ids,
    }


def test_mooncake_lines_are_milliseconds_and_blocks_of_512(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", [mooncake(5000, 1000, [0, 1]), mooncake(8500, 600, [0, 2], 0)])
    workload = read_workload(path)
    assert workload.block_tokens == 512
    assert [item.at_s for item in workload.items] == [0.0, 3.5]
    first, second = workload.items
    assert (first.prompt_tokens, first.output_tokens, first.known_tokens) == (1000, 10, 1000)
    assert second.output_tokens == 1  # an engine's answer has a token at least
    assert first.prefixes[0] == second.prefixes[0]
    assert first.prefixes[1] != second.prefixes[1]


def test_an_id_after_other_ids_is_another_prefix(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", [mooncake(0, 1024, [1, 9]), mooncake(0, 1024, [2, 9])])
    first, second = read_workload(path).items
    assert not set(first.prefixes) & set(second.prefixes)


def test_bailian_lines_are_seconds_and_blocks_of_16_and_name_their_parents(tmp_path: Path) -> None:
    lines = [
        bailian(7, -1, 100.0, 40, [1, 2, 3], output=30),
        bailian(8, -1, 100.5, 20, [5, 6]),
        bailian(9, 7, 109.0, 100, [1, 2, 30, 31, 32, 33, 34]),
    ]
    workload = read_workload(write(tmp_path / "t.jsonl", lines))
    assert workload.block_tokens == 16
    assert [item.at_s for item in workload.items] == [0.0, 0.5, 9.0]
    assert [item.after for item in workload.items] == [NOBODY, NOBODY, 0]


def test_an_answer_has_the_blocks_that_the_next_turn_tells(tmp_path: Path) -> None:
    lines = [bailian(7, -1, 0, 40, [1, 2, 3], output=30), bailian(9, 7, 9, 100, [1, 2, 30, 31, 32, 33, 34])]
    first, second = read_workload(write(tmp_path / "t.jsonl", lines)).items
    assert first.known_tokens == 70  # 40 of the prompt, 30 of the answer
    assert list(first.prefixes[:4]) == list(second.prefixes[:4])


def test_a_next_turn_that_begins_otherwise_tells_nothing_of_the_answer(tmp_path: Path) -> None:
    lines = [bailian(7, -1, 0, 40, [1, 2, 3], output=30), bailian(9, 7, 9, 100, [1, 99, 30, 31, 32, 33, 34])]
    assert read_workload(write(tmp_path / "t.jsonl", lines)).items[0].known_tokens == 40


def test_a_capture_says_its_block_size(tmp_path: Path) -> None:
    lines = [mooncake(0, 70, [1, 2, 3], block_size=32), mooncake(10, 100, [1, 2, 4, 5], block_size=32)]
    workload = read_workload(write(tmp_path / "t.jsonl", lines))
    assert workload.block_tokens == 32
    assert workload.items[1].after == 0  # its two full blocks begin the second prompt


def test_the_turn_before_is_guessed_by_the_longest_prompt_that_begins_this_one(tmp_path: Path) -> None:
    lines = [
        mooncake(0, 512 * 2, [0, 1]),
        mooncake(1, 512 * 3, [0, 1, 2]),
        mooncake(2, 512, [0]),
        mooncake(3, 512 * 4, [0, 1, 2, 3]),
        mooncake(4, 512 * 2, [0, 9]),  # one block in common is no turn before
    ]
    items = read_workload(write(tmp_path / "t.jsonl", lines)).items
    assert [item.after for item in items] == [NOBODY, 0, NOBODY, 1, NOBODY]


def test_a_folder_is_read_whole_by_time_gzipped_or_not(tmp_path: Path) -> None:
    write(tmp_path / "b.jsonl", [mooncake(0, 512, [1])])
    write(tmp_path / "a.jsonl.gz", [mooncake(2000, 512, [2]), mooncake(1000, 512, [3])], zipped=True)
    (tmp_path / "notes.txt").write_text("no trace")
    assert [item.at_s for item in read_workload(tmp_path).items] == [0.0, 1.0, 2.0]
    assert len(read_workload(tmp_path, requests=2).items) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no requests"),
        (b"\n \n", "no requests"),
        (b"{}\n", "line 1: .*timestamp"),
        (b"not json\n", "line 1"),
        (b'{"timestamp":-1,"input_length":5,"output_length":1,"hash_ids":[1]}\n', "line 1"),
        (b'{"timestamp":NaN,"input_length":5,"output_length":1,"hash_ids":[1]}\n', "line 1"),
        (b'{"timestamp":0,"input_length":99999999,"output_length":1,"hash_ids":[1]}\n', "line 1"),
        (b'{"timestamp":0,"input_length":600,"output_length":1,"hash_ids":[]}\n', "1 full blocks of 512"),
        (b'{"timestamp":0,"input_length":600,"output_length":1,"hash_ids":[1,2],"block_size":0}\n', "line 1"),
        (b'{"timestamp":0,"input_length":5,"output_length":1,"hash_ids":[[1]]}\n', "line 1"),
        (b"\xff\xfe\n", "line 1"),
    ],
)
def test_what_is_no_trace_is_refused_with_its_place(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(content)
    with pytest.raises(TraceError, match=message):
        read_workload(path)


def test_a_file_that_is_cut_off_or_no_gzip_is_refused(tmp_path: Path) -> None:
    whole = write(tmp_path / "t.jsonl.gz", [mooncake(0, 512, [1])] * 50, zipped=True)
    whole.write_bytes(whole.read_bytes()[:40])
    with pytest.raises(TraceError, match=r"t\.jsonl\.gz"):
        read_workload(whole)
    whole.write_bytes(b"plain text")
    with pytest.raises(TraceError, match="gzip"):
        read_workload(whole)
    with pytest.raises(TraceError, match="No such file"):
        read_workload(tmp_path / "none.jsonl")
    (tmp_path / "empty").mkdir()
    with pytest.raises(TraceError, match="no trace files"):
        read_workload(tmp_path / "empty")


def test_lines_of_two_formats_are_refused(tmp_path: Path) -> None:
    lines = [mooncake(0, 512, [1]), bailian(1, -1, 0, 20, [1, 2])]
    with pytest.raises(TraceError, match="same format"):
        read_workload(write(tmp_path / "t.jsonl", lines))


def test_a_line_without_end_is_not_read_into_memory(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(b"[" * (5 << 20))
    with pytest.raises(TraceError, match="longer than"):
        read_workload(path)


def test_a_captures_turn_before_has_an_answer_less_and_what_follows_its_prompt_was_its_answer(tmp_path: Path) -> None:
    lines = [
        mooncake(0, 40, [1, 2], 30, block_size=16, turn=0),
        mooncake(1, 50, [1, 2, 7], block_size=16, turn=0),  # the same beginning, and no answer in it: no turn after
        mooncake(2, 100, [1, 2, 3, 4, 5, 6], block_size=16, turn=1),
        mooncake(3, 120, [1, 2, 3, 4, 5, 6, 8], block_size=16, turn=1),
        mooncake(4, 120, [1, 2, 3, 4, 5, 6, 9], block_size=16),  # no chat: guessed by prompts of its kind
    ]
    items = read_workload(write(tmp_path / "t.jsonl", lines)).items
    assert [item.after for item in items] == [NOBODY, NOBODY, 0, 0, NOBODY]
    assert [item.known_tokens for item in items] == [70, 50, 100, 120, 120]


def test_a_prompt_that_nobody_read_is_equal_to_none_and_has_no_block_size_to_keep_to(tmp_path: Path) -> None:
    lines = [
        mooncake(0, 5000, [], block_size=16),
        mooncake(1, 64, [1, 2, 3, 4], block_size=32 // 2),
        mooncake(2, 5000, [], block_size=64),
    ]
    items = read_workload(write(tmp_path / "t.jsonl", lines)).items
    assert [(item.prompt_tokens, list(item.prefixes)) for item in items] == [(5000, []), (64, [0, 1, 2, 3]), (5000, [])]


def test_a_last_line_that_is_still_being_written_is_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", [mooncake(0, 512, [1]), mooncake(1, 512, [2])])
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:30])
    assert len(read_workload(path).items) == 2
    path.write_bytes(whole + whole[:30] + b"\n")
    with pytest.raises(TraceError, match="line 3"):
        read_workload(path)
