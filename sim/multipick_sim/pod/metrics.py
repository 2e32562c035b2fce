"""What one rank counts, step by step and request by request, for `/metrics`.

Times are what a client sees, in wall seconds. The bounds of histograms are vLLM's.
"""

from collections.abc import Iterable

from multipick_sim.engine.values import Limits, Step
from multipick_sim.pod.clock import Clock
from multipick_sim.pod.flow import Flow
from multipick_sim.pod.tally import Tally

TTFT_S = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
TOKEN_S = (*(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75), *(1.0, 2.5, 5.0, 7.5, 10, 20, 40, 80))
REQUEST_S = (*(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5, 10, 15, 20, 30, 40, 50, 60), *(120, 240, 480, 960, 1920, 7680))
STEP_TOKENS = (1, *(2**power for power in range(3, 15)))

COUNTERS = {
    "prefix_cache_queries": "Prefix cache queries, in terms of number of queried tokens.",
    "prefix_cache_hits": "Prefix cache hits, in terms of number of cached tokens.",
    "num_preemptions": "Cumulative number of preemption from the engine.",
    "prompt_tokens": "Number of prefill tokens processed.",
    "prompt_tokens_cached": "Number of cached prompt tokens (local + external).",
    "generation_tokens": "Number of generation tokens processed.",
}


class RankMetrics:
    """What one rank counts."""

    def __init__(self, limits: Limits, clock: Clock) -> None:
        self._clock = clock
        tokens = _one_two_five(limits.max_model_len)
        self.counters: dict[str, int] = dict.fromkeys(COUNTERS, 0)
        self.finished = dict.fromkeys(("stop", "length", "abort", "error"), 0)
        self.histograms = {
            "time_to_first_token_seconds": Tally(TTFT_S),
            "inter_token_latency_seconds": Tally(TOKEN_S),
            "request_time_per_output_token_seconds": Tally(TOKEN_S),
            "e2e_request_latency_seconds": Tally(REQUEST_S),
            "request_queue_time_seconds": Tally(REQUEST_S),
            "request_inference_time_seconds": Tally(REQUEST_S),
            "request_prefill_time_seconds": Tally(REQUEST_S),
            "request_decode_time_seconds": Tally(REQUEST_S),
            "request_prompt_tokens": Tally(tokens),
            "request_generation_tokens": Tally(tokens),
            "request_prefill_kv_computed_tokens": Tally(tokens),
            "iteration_tokens_total": Tally(STEP_TOKENS),
        }

    def step_done(self, step: Step, first: Iterable[Flow], admitted: Iterable[Flow]) -> None:
        """Count one step; `first` got their first token in it, `admitted` their blocks."""
        counters = self.counters
        counters["generation_tokens"] += step.sampled_tokens
        counters["num_preemptions"] += len(step.preempted)
        self.histograms["iteration_tokens_total"].observe(step.computed_tokens + step.sampled_tokens)
        if further := step.sampled_tokens - len(step.first_tokens):
            self.histograms["inter_token_latency_seconds"].observe(
                self._clock.wall_s(step.end_s - step.start_s), further
            )
        for flow in admitted:
            counters["prefix_cache_queries"] += flow.request.prompt_tokens
            counters["prefix_cache_hits"] += flow.hit_tokens
        for flow in first:
            counters["prompt_tokens"] += flow.request.prompt_tokens
            counters["prompt_tokens_cached"] += flow.hit_tokens
            self.histograms["time_to_first_token_seconds"].observe(self._clock.wall_s(step.end_s - flow.arrived_s))

    def request_done(self, flow: Flow, reason: str) -> None:
        """Count a request that has got its last token."""
        assert flow.admitted_s is not None
        assert flow.first_token_s is not None
        assert flow.finished_s is not None
        self.finished[reason] += 1
        request, wall_s, histograms = flow.request, self._clock.wall_s, self.histograms
        decode_s = wall_s(flow.finished_s - flow.first_token_s)
        histograms["e2e_request_latency_seconds"].observe(wall_s(flow.finished_s - flow.arrived_s))
        histograms["request_queue_time_seconds"].observe(wall_s(flow.admitted_s - flow.arrived_s))
        histograms["request_inference_time_seconds"].observe(wall_s(flow.finished_s - flow.admitted_s))
        histograms["request_prefill_time_seconds"].observe(wall_s(flow.first_token_s - flow.admitted_s))
        histograms["request_decode_time_seconds"].observe(decode_s)
        if request.output_tokens > 1:
            histograms["request_time_per_output_token_seconds"].observe(decode_s / (request.output_tokens - 1))
        histograms["request_prompt_tokens"].observe(request.prompt_tokens)
        histograms["request_generation_tokens"].observe(request.output_tokens)
        histograms["request_prefill_kv_computed_tokens"].observe(request.prompt_tokens - flow.hit_tokens)


def _one_two_five(most: int) -> list[float]:
    return [
        float(digit * 10**power) for power in range(len(str(most))) for digit in (1, 2, 5) if digit * 10**power <= most
    ]
