import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from multipick_epp.blocks import Chains, block_keys, root_key
from multipick_epp.capture import writer
from multipick_epp.capture.files import Folder
from multipick_epp.capture.lines import Captured, Lines, Told
from multipick_epp.capture.writer import Capture, Taken

PROMPT = [Chains(1000, {16: block_keys(root_key(b"", "m"), range(1000), 16)})]


class Bench:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.count: Counter[str] = Counter()
        self.lines = Lines(b"s", "p")
        folder = Folder(path, "me", 1 << 20, 4)
        self.capture = Capture(self.lines, folder, lambda: self.tell("written"), self.tell)

    def tell(self, what: str, number: int = 1) -> None:
        self.count[what] += number

    def take(self) -> Taken:
        taken = self.capture.take(PROMPT, 0)
        assert taken is not None
        return taken

    def outage(self) -> str | None:
        return self.capture.outage

    def until(self, what: str, number: int) -> None:
        end = time.monotonic() + 60
        while self.count[what] < number:
            assert time.monotonic() < end, self.count
            time.sleep(0.001)

    def written(self) -> list[dict[str, object]]:
        return [json.loads(line) for file in sorted(self.path.iterdir()) for line in file.read_text().splitlines()]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path / "capture")
    yield made
    made.capture.close()


def test_a_request_that_is_more_than_a_file_may_have_is_lost_alone(bench: Bench) -> None:
    bench.capture = Capture(bench.lines, Folder(bench.path, "me", 1 << 9, 4), lambda: bench.tell("written"), bench.tell)
    bench.capture.start()
    bench.capture.over(bench.take(), 1, Told.USAGE)
    bench.until("length", 1)
    short = bench.capture.take([Chains(7, {})], 0)
    assert short is not None
    bench.capture.over(short, 2, Told.USAGE)
    bench.until("written", 1)
    assert ([line["input_length"] for line in bench.written()], bench.outage()) == ([7], None)


def test_requests_are_written_when_they_are_over_and_the_last_ones_at_the_end(bench: Bench) -> None:
    bench.capture.start()
    for tokens in range(200):
        bench.capture.over(bench.take(), tokens, Told.USAGE)
    bench.capture.close()
    assert [line["output_length"] for line in bench.written()] == [*range(200)]
    assert bench.count == {"written": 200}


def test_no_more_is_held_than_may_be_and_what_was_written_or_given_up_is_free_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "HELD_BYTES", 3000)  # three of 1,008
    monkeypatch.setattr(writer, "REQUEST_BYTES", 256)
    first, second = bench.take(), bench.take()
    third = bench.capture.take(PROMPT, 0)
    assert third is None
    assert bench.count == {"memory": 1}
    assert bench.outage() == "more waits to be written than may"
    bench.capture.give_up(first)
    first = bench.take()
    assert bench.outage() is None
    bench.capture.start()
    bench.capture.over(first, 1, Told.STEPS)
    bench.capture.over(second, 1, Told.STEPS)
    bench.until("written", 2)
    end = time.monotonic() + 60
    while bench.capture.take(PROMPT, 0) is None:  # the thread tells a moment later
        assert time.monotonic() < end
    bench.take()


def test_a_disk_that_fails_costs_what_it_could_not_take_and_is_told_until_it_is_well(tmp_path: Path) -> None:
    blocker = tmp_path / "capture"
    blocker.write_text("a file where the folder should be")
    bench = Bench(blocker)
    bench.capture.start()
    for _ in range(3):
        bench.capture.over(bench.take(), 1, Told.USAGE)
    bench.until("disk", 3)
    assert bench.outage() == "File exists"
    blocker.unlink()
    bench.capture.over(bench.take(), 1, Told.USAGE)
    bench.until("written", 1)
    assert bench.outage() is None
    bench.capture.close()


def test_a_request_that_cannot_be_made_a_line_costs_no_later_one(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    real = bench.lines.of

    def sick(request: Captured) -> bytes:
        if request.output_tokens == 13:
            raise ValueError("sick")
        return real(request)

    monkeypatch.setattr(bench.lines, "of", sick)
    bench.capture.start()
    bench.capture.over(bench.take(), 13, Told.USAGE)
    bench.until("internal", 1)
    bench.capture.over(bench.take(), 14, Told.USAGE)
    bench.until("written", 1)


def test_an_outage_that_comes_and_goes_fills_no_log(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = bench.lines.of

    def sick(request: Captured) -> bytes:
        if request.output_tokens % 2:
            raise OSError(28, "No space left on device")
        return real(request)

    monkeypatch.setattr(bench.lines, "of", sick)
    bench.capture.start()
    for tokens in range(100):
        bench.capture.over(bench.take(), tokens, Told.USAGE)
    bench.until("disk", 50)
    assert len([each for each in caplog.records if each.name == writer.__name__]) == 1


def test_a_disk_that_hangs_holds_nobody_up(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    goes_on = threading.Event()
    real = bench.lines.of

    def slow(request: Captured) -> bytes:
        goes_on.wait(60)
        return real(request)

    monkeypatch.setattr(bench.lines, "of", slow)
    monkeypatch.setattr(writer, "HELD_BYTES", 100_000)
    bench.capture.start()
    while (taken := bench.capture.take(PROMPT, 0)) is not None:
        bench.capture.over(taken, 1, Told.USAGE)
    assert bench.count["memory"] == 1
    goes_on.set()
