"""The production index predicts exactly what a real vLLM reported, for every request sent by itself."""

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from multipick_epp.recording.check import TokenIdsOnly, check, drops_cache, is_restart, usage_of
from multipick_epp.recording.cli import command
from multipick_epp.recording.folder import RecordedMessage, Recording, load
from multipick_epp.tokens import Tokenizer

NAMES = ["A_sha256_bs32_31blocks", "C_default_bs128_lora", "D_xxhash_bs32_seed42", "F_restart"]


@pytest.fixture(scope="module")
def tokenizer() -> Iterator[Tokenizer]:
    tokenizer = Tokenizer.load(Path(__file__).parents[2] / "fixtures/tiny-model")
    yield tokenizer
    tokenizer.close()


def replace_messages(recording: Recording, messages: list[RecordedMessage]) -> Recording:
    return dataclasses.replace(recording, messages=messages)


@pytest.mark.parametrize(("name", "equal", "exempt"), list(zip(NAMES, [34, 7, 8, 5], [11, 0, 0, 0], strict=True)))
async def test_predicted_equals_reported(
    fixtures: Path, tokenizer: Tokenizer, name: str, equal: int, exempt: int
) -> None:
    rows = await check(load(fixtures / name), tokenizer)
    assert Counter(row.verdict for row in rows) == Counter(equal=equal, exempt=exempt)


async def test_hits_of_all_kinds_are_among_them(fixtures: Path, tokenizer: Tokenizer) -> None:
    """A check of empty hits would be none."""
    rows = [row for name in NAMES for row in await check(load(fixtures / name), tokenizer)]
    hits = {row.step: row.predicted for row in rows if row.verdict == "equal" and row.predicted}
    assert hits["lora ad1 repeat"] == 256
    assert hits["7b salt A repeat"] == 96
    assert hits["12c probe 65"] == 64  # one of two copies was evicted before
    assert hits["10 report mode full"] == 96
    assert hits["3 extended chat (multi-turn)"] == 224
    assert len(hits) == 19


async def test_only_requests_that_ran_together_are_exempt(fixtures: Path, tokenizer: Tokenizer) -> None:
    rows = await check(load(fixtures / NAMES[0]), tokenizer)
    assert {row.step: row.exempt.partition(":")[0] for row in rows if row.exempt} == {
        "8 parallel identical x4 cold": "sent together with others",
        "8b parallel distinct x3": "sent together with others",
        "9 n=2": "n=2",
        "13 preemption 3x(250+150)": "sent together with others",
    }


async def test_prompts_of_token_ids_need_no_tokenizer(fixtures: Path) -> None:
    rows = await check(load(fixtures / NAMES[2]), TokenIdsOnly())
    assert {row.verdict for row in rows} == {"equal"}
    chats = [row for row in await check(load(fixtures / NAMES[0]), TokenIdsOnly()) if "chat" in row.step]
    assert {row.exempt for row in chats} == {"prompt not read: no tokenizer"}


async def test_a_recording_that_began_on_a_warm_cache_proves_nothing(fixtures: Path, tokenizer: Tokenizer) -> None:
    recording = load(fixtures / NAMES[2])
    late = [
        RecordedMessage(message.received_s, [b"", (message.seq + 7).to_bytes(8, "big"), message.frames[-1]])
        for message in recording.messages
    ]
    rows = await check(replace_messages(recording, late), tokenizer)
    assert {row.verdict for row in rows[:-1]} == {"exempt"}
    assert rows[-1].verdict == "equal"  # after the reset all is known


def test_the_command_prints_a_table_and_writes_json(
    fixtures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "rows.json"
    folders = [str(fixtures / name) for name in NAMES]
    assert command(["check", *folders, "--json", str(out), "--tokenizer", str(fixtures / "tiny-model")]) == 0
    printed = capsys.readouterr().out
    assert "34 equal, 0 different, 11 exempt" in printed
    assert "lora ad1 repeat" in printed
    written = json.loads(out.read_text())
    assert [(r["recording"], r["equal"], r["different"]) for r in written] == [
        (name, equal, 0) for name, equal in zip(NAMES, [34, 7, 8, 5], strict=True)
    ]


def test_a_difference_is_exit_status_1(fixtures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "changed"
    folder.mkdir()
    for file in (fixtures / NAMES[2]).iterdir():
        (folder / file.name).write_bytes(file.read_bytes().replace(b'"cached_tokens": 192', b'"cached_tokens": 160'))
    assert command(["check", str(folder)]) == 1
    assert "DIFFERENT" in capsys.readouterr().out


def test_a_wrong_model_name_is_an_adapters(fixtures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Blocks of the base model, requests for what must then be an adapter: nothing matches."""
    assert command(["check", str(fixtures / NAMES[2]), "--model", "another"]) == 1
    assert "DIFFERENT" in capsys.readouterr().out


def test_what_is_no_recording_is_exit_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["check", str(tmp_path)]) == 2
    assert "manifest.json" in capsys.readouterr().err


def test_calls_that_empty_the_cache() -> None:
    def call(path: str, status: int = 200, response: object = None) -> bool:
        return drops_cache({"path": path, "status": status, "response": response})

    assert call("/reset_prefix_cache", response={"success": True})
    assert call("/sleep?level=1")
    assert call("/sleep")
    assert call("/pause?mode=abort")
    assert not call("/reset_prefix_cache", response={"success": False})
    assert not call("/reset_prefix_cache", status=404)
    assert not call("/sleep?level=0")
    assert not call("/pause?mode=wait&clear_cache=false")
    assert not call("/v1/completions")


def test_a_restart_is_a_step_without_a_request() -> None:
    assert is_restart({"step": "SIGKILL, restart on same ports"})
    assert not is_restart({"step": "before restart 0", "method": "POST"})


def test_usage_is_found_in_streams_that_break_off() -> None:
    chunks = ['data: {"usage": null}\n', 'data: {"usage": {"prompt_tokens": 3}}\n', "data: [DONE]\n", 'data: {"us']
    assert usage_of({"sse": [[0.1, chunk] for chunk in chunks]}) == {"prompt_tokens": 3}
    assert usage_of({"response": {"__text__": "no"}}) is None
