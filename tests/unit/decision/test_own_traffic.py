import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from multipick_epp.blocks import Chains, block_keys, root_key
from multipick_epp.capture.answers import StepRates
from multipick_epp.capture.files import Folder
from multipick_epp.capture.lines import Lines
from multipick_epp.capture.writer import Capture
from multipick_epp.decision.own_traffic import OwnTraffic
from multipick_epp.decision.picker import DecisionOptions, PoolPicker
from multipick_epp.decision.prompts import Blind, Known, PromptReader
from multipick_epp.engines.metrics_page import Gauges
from multipick_epp.extproc.pick import Ended, Pick, PickRequest
from multipick_epp.extproc.usage import Usage
from multipick_epp.pods.endpoints import PodEndpoint
from multipick_epp.pods.failures import Failures
from multipick_epp.pods.registry import Registry
from multipick_epp.policy.registry import policy
from multipick_epp.state.memory import MemoryState
from multipick_epp.telemetry.metrics import Metrics
from multipick_epp.types import Endpoint, ReplicaId, ReservationId

POD = Endpoint("10.0.0.1:8000")
CHAT = Known([Chains(100, {16: block_keys(root_key(b"", "m"), range(100), 16)})], turn=2)


class Reader(PromptReader):
    def __init__(self) -> None:
        self.prompt: Known | Blind = CHAT

    async def read(self, request: PickRequest) -> Known | Blind:
        return self.prompt


class Bench:
    """A picker that captures."""

    def __init__(self, path: Path) -> None:
        self.path = path
        state, registry, self.reader, self.rates = MemoryState(), Registry(), Reader(), StepRates()
        registry.set([PodEndpoint(POD)])
        registry.mark(POD, True)
        folder = Folder(path, "me", 1 << 20, 4)
        self.capture = Capture(Lines(b"s", "p"), folder, lambda: None, lambda _: None)
        self.capture.start()
        failures = Failures(registry, state, lambda _: None, lambda: 0.0)
        settings = DecisionOptions("lmetric", policy("lmetric"), 5.0)
        traffic = OwnTraffic(self.capture, self.rates)
        self.picker = PoolPicker(
            settings, ReplicaId("me"), state, registry, failures, self.reader, Metrics(), Random(1), traffic
        )

    async def pick(self, body: bytes | None = b"{}") -> ReservationId:
        outcome = await self.picker.pick(PickRequest("POST", "/v1/completions", {}, body, len(body or b"")))
        assert isinstance(outcome, Pick)
        assert outcome.reservation
        return outcome.reservation

    def lines(self) -> list[dict[str, Any]]:
        self.picker.close()
        self.capture.close()
        return [json.loads(line) for file in sorted(self.path.glob("*")) for line in file.read_text().splitlines()]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path / "capture")
    yield made
    made.capture.close()


async def test_an_answer_has_the_length_that_its_engine_told(bench: Bench) -> None:
    reservation = await bench.pick()
    bench.picker.first_byte(reservation)
    bench.picker.counted(reservation, Usage(77, 100, 0))
    bench.picker.release(reservation, Ended.WHOLE)
    [line] = bench.lines()
    assert (line["input_length"], line["output_length"], line["output_from"], line["turn"]) == (100, 77, "usage", 2)
    assert len(line["hash_ids"]) == 6


async def test_else_by_the_steps_of_its_engine_from_the_end_of_its_prefill_and_else_none(bench: Bench) -> None:
    bench.picker.release(await bench.pick(), Ended.WHOLE)
    bench.rates.looked(POD, Gauges(running=1), 0.0)
    bench.rates.looked(POD, Gauges(running=1, generated=1.0), 1000.0)  # so slow that none can be counted twice
    bench.picker.release(await bench.pick(), Ended.CLOSED)
    assert [(line["output_length"], line["output_from"]) for line in bench.lines()] == [(0, "unknown"), (1, "steps")]


async def test_a_prompt_that_is_not_read_or_not_looked_up_has_no_ids(bench: Bench) -> None:
    bench.reader.prompt = Blind(900, "no tokenizer")
    bench.picker.release(await bench.pick(), Ended.WHOLE)
    bench.reader.prompt = Known(CHAT.chains, reads_cache=False)
    bench.picker.release(await bench.pick(), Ended.WHOLE)
    assert [(line["input_length"], line["hash_ids"]) for line in bench.lines()] == [(900, []), (100, [])]


async def test_what_an_endpoint_refused_and_what_has_no_body_is_no_traffic_and_what_was_cut_off_is(
    bench: Bench,
) -> None:
    bench.picker.release(await bench.pick(), Ended.FAILED)
    bench.picker.release(await bench.pick(None), Ended.WHOLE)
    bench.picker.release(await bench.pick(), Ended.ABORTED)
    await bench.pick()  # in flight when the picker ends
    assert len(bench.lines()) == 2
