"""Seeded sequences of frames, right, wrong and half right, cut anywhere: no exception leaves, nothing is kept.

MULTIPICK_FUZZ sets how many sequences are played.
"""

import gc
import logging
import os
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from random import Random
from struct import pack

import pytest
from multipick_epp.extproc.http2.bounds import Bounds
from multipick_epp.extproc.http2.grpc import CallError, Status

from tests.unit.http2.peer import CALL_HEADERS, PREFACE, Peer, Remembered, block, frame, message, settings

SEQUENCES = int(os.environ.get("MULTIPICK_FUZZ", "5000"))
PARTS = 8
BLOCKS = [
    block(),
    b"\x20" + block(),
    block(("x-trace", "1")),
    block(("content-length", "12"), ("x-trace", "2")),
    block(("grpc-timeout", "1S")),
    block(headers=[]),
    block(headers=CALL_HEADERS[:2]),
    block(headers=[(":method", "GET"), (":scheme", "http"), (":path", "/")]),
    block(("x", "y" * 3000)),
    block(("grpc-encoding", "gzip")),
    block(("UPPER", "case")),
]
WIDE = Bounds(
    message=5_000,
    streams=8,
    header_list=2_000,
    stream_window=70_000,
    connection_window=100_000,
    outbox=2_000,
    held=15_000,
    turn_frames=7,
    idle_work=300,
)
NARROW = replace(WIDE, idle_work=30, stream_window=9_000, connection_window=70_000, outbox=500, streams=2)


def react(rng: Random) -> Callable[[Remembered, bytes], None]:
    def answer(call: Remembered, data: bytes) -> None:
        match rng.randrange(20):
            case 0:
                call.stream.send(data * 20)
                call.stream.send(data)
            case 3:
                call.stream.pause()
            case 4:
                call.stream.resume()
            case 5:
                call.stream.end()
            case 6:
                call.stream.fail(CallError(Status.INTERNAL, "so it is"))
            case 7:
                raise RuntimeError("a defect")
            case _:
                call.stream.send(data)

    return answer


class Script:
    """Writes frames as a client would, with mistakes at a rate of its own."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.wrong = rng.choice((0.0, 0.01, 0.05, 0.5))
        self.next = 1
        self.open: list[int] = []

    def frame(self) -> bytes:
        rng = self.rng
        if rng.random() < self.wrong:
            return self.mistake()
        if not self.open or rng.random() < 0.2:
            return self.begin()
        stream = rng.choice(self.open)
        match rng.randrange(16):
            case 0:
                self.open.remove(stream)
                return frame(3, 0, stream, pack(">L", 8))
            case 1:
                self.open.remove(stream)
                return rng.choice((frame(0, 1, stream), frame(1, 5, stream, BLOCKS[5])))
            case 2:
                return frame(8, 0, rng.choice((0, stream)), pack(">L", rng.choice((1, 100, 50_000))))
            case 3:
                return settings(window=rng.choice((0, 10, 70_000)), table=rng.choice((0, 4096)))
            case 4:
                return frame(6, 0, 0, b"12345678") + frame(6, 1, 0, rng.choice((b"drained?", b"alive?  ")))
            case 5:
                return frame(4, 1) + frame(2, 0, stream, b"\0\0\0\0\1")
            case 6:
                return frame(0, 8, stream, b"\x03" + message(b"padded") + b"\0\0\0")
            case 7:
                return frame(0, 0, stream, message(rng.randbytes(rng.choice((3_000, 4_990, 6_000)))))
            case 8:
                self.open.remove(stream)
                return frame(0, 1, stream, message(b"last")) + frame(8, 0, stream, pack(">L", 5))
        whole = b"".join(message(rng.randbytes(rng.randrange(300))) for _ in range(rng.randrange(1, 6)))
        cuts = sorted(rng.randrange(len(whole)) for _ in range(rng.randrange(3)))
        return b"".join(
            frame(0, 0, stream, whole[start:end]) for start, end in zip((0, *cuts), (*cuts, len(whole)), strict=True)
        )

    def begin(self) -> bytes:
        stream, self.next = self.next, self.next + 2
        self.open.append(stream)
        known = self.rng.choice(BLOCKS[:5]) if self.rng.random() < 0.9 else self.rng.choice(BLOCKS)
        match self.rng.randrange(6):
            case 0:
                pieces = known[:9], known[9:11], known[11:]
                kinds = (1, 0), (9, 0), (9, 4)
                return b"".join(frame(*kind, stream, piece) for kind, piece in zip(kinds, pieces, strict=True))
            case 1:
                return frame(1, 44, stream, b"\x02\0\0\0\0\5" + known + b"\0\0")
            case 2:
                self.open.remove(stream)
                return frame(1, 5, stream, known)
        return frame(1, 4, stream, known)

    def mistake(self) -> bytes:
        rng = self.rng
        stream = rng.choice((0, 1, 3, 5, max(1, self.next - 2), self.next, 2, rng.randrange(1 << 32)))
        kind = rng.choice((*range(10), rng.randrange(256)))
        payload = rng.choice((b"", b"\0" * 4, rng.randbytes(5), rng.randbytes(8), rng.choice(BLOCKS), b"\x3f" * 40))
        if kind == 4 and rng.random() < 0.7:
            window = rng.choice((1 << 31, 5, (1 << 31) - 1))
            payload = settings(window=window, frame=rng.choice((1, 16_384)), push=rng.randrange(3))[9:]
        whole = frame(kind, rng.randrange(256), stream, payload)
        if rng.random() < 0.2:  # a bit that fell over
            whole = self.begin()
            at = rng.randrange(len(whole))
            whole = whole[:at] + bytes((whole[at] ^ 1 << rng.randrange(8),)) + whole[at + 1 :]
        return whole[: rng.randrange(len(whole))] if rng.random() < 0.05 else whole


def play(seed: int) -> Peer:
    rng = Random(seed)
    peer = Peer(rng.choice((WIDE, NARROW)), react=react(rng))
    said = PREFACE + settings() if rng.random() < 0.98 else rng.randbytes(30)
    script = Script(rng)
    if rng.random() < 0.6:  # its table is off
        said += frame(4, 1) + frame(1, 5, 1, BLOCKS[1])
        script.next = 3
    said += b"".join(script.frame() for _ in range(rng.randrange(1, 50)))
    while said:
        cut = rng.choice((1, 9, 50, 1000, 100_000))
        piece, said = said[:cut], said[cut:]
        peer.connection.receive(piece)
        peer.connection.take()
        happen(rng, peer)
    assert peer.shared.held <= peer.bounds.held
    assert peer.connection.streams.held == sum(stream.held for stream in peer.connection.streams.open.values())
    peer.connection.lost()
    return peer


def happen(rng: Random, peer: Peer) -> None:
    """What comes from elsewhere."""
    match rng.randrange(40):
        case 0:
            peer.now += rng.choice((1, 40, 1000))
            peer.connection.tick()
        case 1:
            peer.connection.writable(rng.random() < 0.5)
        case 2:
            peer.connection.drain()
        case 3:
            peer.connection.finish()
        case 4 | 5 | 6 | 7 | 8 if peer.calls:
            call = rng.choice(peer.calls)
            rng.choice((call.stream.resume, call.stream.resume, call.stream.end, call.stream.pause))()


@pytest.mark.parametrize("part", range(PARTS))
def test_no_sequence_of_frames_raises_or_leaves_anything_behind(part: int, caplog: pytest.LogCaptureFixture) -> None:
    for seed in range(part, SEQUENCES, PARTS):
        peer = play(seed)
        assert all(call.over == 1 for call in peer.calls), seed
        assert (peer.shared.held, peer.shared.streams, len(peer.connection.streams.open)) == (0, 0, 0), seed
        defects = [record for record in caplog.records if "a defect" not in str(record.exc_info)]
        assert not defects, (seed, defects)
        caplog.clear()


def test_sequences_leave_no_memory_behind(caplog: pytest.LogCaptureFixture) -> None:
    def grown_by(seeds: range) -> int:
        before = tracemalloc.get_traced_memory()[0]
        for seed in seeds:
            play(seed)
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - before

    caplog.set_level(logging.CRITICAL + 1, "multipick_epp")  # pytest keeps what is logged
    tracemalloc.start()
    try:
        grown_by(range(200))  # caches fill
        assert grown_by(range(200)) < 20_000
    finally:
        tracemalloc.stop()


def test_garbage_of_any_length_ends_the_connection_and_nothing_else() -> None:
    rng = Random(7)
    for _ in range(300):
        peer = Peer(WIDE)
        peer.connection.receive(PREFACE + settings())
        for _ in range(20):
            peer.connection.receive(rng.randbytes(rng.randrange(2_000)))
            peer.connection.take()
        peer.connection.lost()
        assert peer.shared.streams == 0
