"""Recordings on disk: read back as written, refused when broken."""

import json
from pathlib import Path

import pytest
from multipick_epp.recording.folder import BadRecording, RecordedMessage, Recording, load, pack, save, unpack

MESSAGES = [
    RecordedMessage(1.5, [b"topic", (0).to_bytes(8, "big"), b"payload"]),
    RecordedMessage(2.5, [(1).to_bytes(8, "big"), b""]),
]


def test_the_recorded_frames_survive_a_round_trip(fixtures: Path) -> None:
    packed = (fixtures / "A_sha256_bs32_31blocks/frames.bin").read_bytes()
    messages = unpack(packed)
    assert pack(messages) == packed
    assert [message.seq for message in messages] == list(range(61))


def test_a_folder_is_read_back_as_written(tmp_path: Path) -> None:
    recording = Recording("mine", {"models": ["m"]}, MESSAGES, [{"step": "a"}, {"step": "b"}])
    save(tmp_path / "mine", recording)
    assert load(tmp_path / "mine") == recording
    lines = (tmp_path / "mine/events.jsonl").read_text().splitlines()
    assert [json.loads(line)["seq"] for line in lines] == [0, 1]


@pytest.mark.parametrize(
    ("manifest", "models"),
    [
        ({"models": ["a", "b"]}, ["a", "b"]),
        ({"cmd": ["--model", "path", "--served-model-name", "a", "b", "--port", "1"]}, ["a", "b"]),
        ({"cmd": ["--port", "1", "--model", "path"]}, ["path"]),
        ({}, []),
    ],
)
def test_the_base_models_names_are_known(manifest: dict[str, object], models: list[str]) -> None:
    assert list(Recording("r", manifest, [], []).models) == models


@pytest.mark.parametrize("cut", [1, 8, 9, 12, 30, -1])
def test_cut_frames_are_refused(cut: int) -> None:
    with pytest.raises(ValueError, match="cut short"):
        unpack(pack(MESSAGES)[:cut])


def test_messages_without_a_number_are_refused() -> None:
    with pytest.raises(ValueError, match="number"):
        unpack(pack([RecordedMessage(1.0, [b"topic", b"short", b"x"])]))


@pytest.mark.parametrize(("file", "content"), [("manifest.json", "["), ("steps.jsonl", "{"), ("manifest.json", "[]")])
def test_a_broken_folder_is_refused(tmp_path: Path, file: str, content: str) -> None:
    save(tmp_path, Recording("r", {}, MESSAGES, []))
    (tmp_path / file).write_text(content)
    with pytest.raises(BadRecording):
        load(tmp_path)
