"""A recording on disk. The form is that of tests/fixtures/README.md.

`manifest.json`: what was recorded. `frames.bin`: the raw ZMQ messages. `steps.jsonl`: one HTTP step a line; `msg_range`
`[a, b)` says which messages came during the step. `events.jsonl` repeats the messages for human eyes only.
"""

import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from multipick_epp.events.decode import UndecodableBatch, decode

_HEAD = struct.Struct(">dB")  # time of receipt (Unix), number of frames
_LENGTH = struct.Struct(">I")


class BadRecording(Exception):  # noqa: N818 (named for what it is)
    """The folder holds no recording that can be read; the message says why."""


@dataclass(frozen=True, slots=True)
class RecordedMessage:
    """One ZMQ message as received."""

    received_s: float  # Unix time
    frames: Sequence[bytes]  # topic, number (8 bytes, big-endian), payload

    @property
    def seq(self) -> int:
        """The batch's number."""
        return int.from_bytes(self.frames[-2], "big")

    @property
    def rank(self) -> int | None:
        """The data-parallel rank that published it, by its payload; None for one that can't be read."""
        try:
            return decode(self.frames[-1]).rank
        except UndecodableBatch:
            return None


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording in memory."""

    name: str
    manifest: Mapping[str, Any]
    messages: Sequence[RecordedMessage]
    steps: Sequence[Mapping[str, Any]]

    @property
    def ranks(self) -> Sequence[int]:
        """The data-parallel ranks behind the engine's port, ascending: those that anything in the recording names."""
        named = self.manifest.get("ranks")
        ranks = {rank for rank in named if isinstance(rank, int)} if isinstance(named, list) else set()
        ranks.update(rank for message in self.messages if (rank := message.rank) is not None)
        for step in self.steps:
            answer = step.get("response")
            if step.get("path") == "/kv_event_sources" and isinstance(answer, dict):
                ranks.update(int(rank) for rank in answer if rank.isascii() and rank.isdigit() and len(rank) < 10)
        return sorted(ranks) or [0]

    @property
    def models(self) -> Sequence[str]:
        """The names under which the engine serves its base model."""
        if named := self.manifest.get("models"):
            return [str(name) for name in named]
        command = [str(word) for word in self.manifest.get("cmd", ())]
        for option in ("--served-model-name", "--model"):
            if option in command:
                names = command[command.index(option) + 1 :]
                end = next((place for place, word in enumerate(names) if word.startswith("--")), len(names))
                return names[:end]
        return []


def load(folder: Path) -> Recording:
    """Read a recording. Raises BadRecording."""
    try:
        manifest = json.loads((folder / "manifest.json").read_bytes())
        steps = [json.loads(line) for line in (folder / "steps.jsonl").read_bytes().splitlines() if line.strip()]
        messages = unpack((folder / "frames.bin").read_bytes())
    except OSError as error:
        raise BadRecording(f"{error.filename}: {error.strerror}") from error
    except ValueError as error:
        raise BadRecording(f"{folder}: {error}") from error
    if not isinstance(manifest, dict) or not all(isinstance(step, dict) for step in steps):
        raise BadRecording(f"{folder}: manifest and steps have to be JSON objects")
    return Recording(folder.name, manifest, messages, steps)


def save(folder: Path, recording: Recording) -> None:
    """Write a recording into a folder, which is made if there is none. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_text(json.dumps(recording.manifest, indent=1) + "\n")
    (folder / "steps.jsonl").write_text("".join(json.dumps(step) + "\n" for step in recording.steps))
    (folder / "frames.bin").write_bytes(pack(recording.messages))
    (folder / "events.jsonl").write_text("".join(_readable(message) + "\n" for message in recording.messages))


def pack(messages: Iterable[RecordedMessage]) -> bytes:
    """`frames.bin`: repeated [f64 time][u8 frames]{[u32 length][bytes]}, big-endian."""
    packed = bytearray()
    for message in messages:
        packed += _HEAD.pack(message.received_s, len(message.frames))
        for frame in message.frames:
            packed += _LENGTH.pack(len(frame)) + frame
    return bytes(packed)


def unpack(packed: bytes) -> list[RecordedMessage]:
    """The reverse of `pack`. Raises ValueError for what is cut short, or holds no numbered messages."""
    messages: list[RecordedMessage] = []
    place = 0
    try:
        while place < len(packed):
            received_s, count = _HEAD.unpack_from(packed, place)
            place += _HEAD.size
            frames = []
            for _ in range(count):
                (length,) = _LENGTH.unpack_from(packed, place)
                place += _LENGTH.size + length
                if place > len(packed):
                    raise ValueError("frames.bin is cut short")
                frames.append(packed[place - length : place])
            if count < 2 or len(frames[-2]) != 8:
                raise ValueError(f"message {len(messages)} has no number and payload")
            messages.append(RecordedMessage(received_s, frames))
    except struct.error as error:
        raise ValueError("frames.bin is cut short") from error
    return messages


def _readable(message: RecordedMessage) -> str:
    try:
        batch = msgspec.msgpack.decode(message.frames[-1])
    except (msgspec.DecodeError, RecursionError):
        batch = message.frames[-1]
    topic = message.frames[0].decode(errors="replace") if len(message.frames) > 2 else ""
    line = {"t": message.received_s, "topic": topic, "seq": message.seq, "batch": batch}
    return json.dumps(line, default=lambda value: {"__bytes__": bytes(value).hex()})
