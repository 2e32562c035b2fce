"""What a picker makes of requests: each gets an endpoint, and nothing that its body holds is an error of ours."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from multipick_epp.decision.picker import DecisionOptions, PoolPicker
from multipick_epp.decision.prompts import PromptReader
from multipick_epp.extproc.pick import Ended, Pick, PickRequest
from multipick_epp.pods.endpoints import PodEndpoint
from multipick_epp.pods.failures import Failures
from multipick_epp.pods.registry import Registry
from multipick_epp.policy.registry import policy
from multipick_epp.requests import parse
from multipick_epp.requests.prompt import Prompt
from multipick_epp.state.memory import MemoryState
from multipick_epp.telemetry.metrics import Metrics
from multipick_epp.tokens import Tokenizer
from multipick_epp.types import Endpoint, ReplicaId

from .bodies import Sent

DEADLINE_S = 0.1
_SCHEDSTAT = Path("/proc/thread-self/schedstat")  # of Linux: ns on the CPU, ns ready to run, times


@dataclass
class Outcome:
    """Of all requests."""

    read: Counter[str] = field(default_factory=Counter)  # "prompt", or why there is none
    blind: Counter[str] = field(default_factory=Counter)  # why a pick went by load alone
    raised: list[tuple[Sent, BaseException]] = field(default_factory=list)  # by a parser
    unpicked: list[Sent] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)  # of each pick, less those in which other programs had the CPU

    @property
    def wrong(self) -> int:
        """What must not be."""
        return len(self.raised) + len(self.unpicked) + self.blind["internal error"]


async def send(requests: Iterable[Sent], model: Path) -> Outcome:
    """One after the other, to a picker with this model's tokenizer."""
    outcome = Outcome()
    tokenizer = Tokenizer.load(model)
    metrics = Metrics()
    reader = PromptReader(tokenizer, ["m"], b"", lambda: [16], Metrics().stage_seconds, lambda: 32_768)
    picker = _picker(reader, metrics)
    for sent in requests:
        try:
            prompt = parse(sent.path, sent.headers, sent.body)
        except Exception as error:
            outcome.raised.append((sent, error))
            continue
        outcome.read["prompt" if isinstance(prompt, Prompt) else prompt.reason] += 1
        request = PickRequest("POST", sent.path, sent.headers, sent.body, len(sent.body))
        started = time.perf_counter() - _kept_waiting_s()
        pick = await picker.pick(request)
        outcome.seconds.append(time.perf_counter() - _kept_waiting_s() - started)
        if isinstance(pick, Pick) and pick.reservation is not None:
            picker.release(pick.reservation, Ended.WHOLE)
        else:
            outcome.unpicked.append(sent)
        await asyncio.sleep(0)
    for sample in (sample for each in metrics.fallbacks.collect() for sample in each.samples):
        if sample.name.endswith("_total"):
            outcome.blind[sample.labels["reason"]] += int(sample.value)
    picker.close()
    reader.close()
    tokenizer.close()
    return outcome


def _kept_waiting_s() -> float:
    """Since this thread began: ready to run, while the CPU was another's. 0 where the system doesn't tell."""
    try:
        return int(_SCHEDSTAT.read_text().split()[1]) / 1e9
    except OSError:
        return 0.0


def _picker(reader: PromptReader, metrics: Metrics) -> PoolPicker:
    state, registry = MemoryState(), Registry()
    endpoints = [Endpoint(f"10.0.0.{number}:8000") for number in (1, 2, 3)]
    registry.set([PodEndpoint(endpoint) for endpoint in endpoints])
    for endpoint in endpoints:
        registry.mark(endpoint, True)
    options = DecisionOptions("lmetric", policy("lmetric"), DEADLINE_S, models=["m"])
    failures = Failures(registry, state, lambda _: None, lambda: 0.0)
    return PoolPicker(options, ReplicaId("me"), state, registry, failures, reader, metrics, Random(3))
