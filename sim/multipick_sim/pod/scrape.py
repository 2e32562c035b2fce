"""`/metrics` with vLLM's names: what the ranks count and hold, put into families when scraped."""

import time
from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from multipick_sim.pod.adapters import Adapters
from multipick_sim.pod.metrics import COUNTERS
from multipick_sim.pod.rank import Rank

SLEEP_STATES = {0: "awake", 1: "weights_offloaded", 2: "discard_all"}  # by sleep level


class PodMetrics:
    """All ranks of a pod as a Prometheus collector, in a registry of its own."""

    def __init__(self, model: str, adapters: Adapters, ranks: Sequence[Rank]) -> None:
        self._model = model
        self._adapters = adapters
        self._ranks = ranks
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterable[Metric]:
        """Called by the registry."""
        yield from self._gauges()
        yield from self._counters()
        yield from self._histograms()
        yield self._cache_config()
        if self._adapters:
            yield self._lora_info()

    def _gauges(self) -> Iterable[Metric]:
        engines = [rank.engine for rank in self._ranks]
        plain: list[tuple[str, str, list[float]]] = [
            ("num_requests_running", "Requests in execution batches.", [engine.running for engine in engines]),
            ("num_requests_waiting", "Requests waiting to be processed.", [engine.waiting for engine in engines]),
            ("kv_cache_usage_perc", "KV-cache usage, 0 to 1.", [engine.kv_usage for engine in engines]),
        ]
        for name, text, values in plain:
            family = GaugeMetricFamily(f"vllm:{name}", text, labels=["engine", "model_name"])
            for rank, value in zip(self._ranks, values, strict=True):
                family.add_metric([str(rank.number), self._model], value)
            yield family
        reasons = GaugeMetricFamily(
            "vllm:num_requests_waiting_by_reason",
            "Waiting requests by reason.",
            labels=["engine", "model_name", "reason"],
        )
        sleep = GaugeMetricFamily(
            "vllm:engine_sleep_state", "Engine sleep state.", labels=["engine", "model_name", "sleep_state"]
        )
        for rank in self._ranks:
            reasons.add_metric([str(rank.number), self._model, "capacity"], rank.engine.waiting)
            reasons.add_metric([str(rank.number), self._model, "deferred"], 0)
            for level, state in SLEEP_STATES.items():
                now = rank.sleep_level is None if level == 0 else rank.sleep_level == level
                sleep.add_metric([str(rank.number), self._model, state], float(now))
        yield reasons
        yield sleep

    def _counters(self) -> Iterable[Metric]:
        for name, text in COUNTERS.items():
            family = CounterMetricFamily(f"vllm:{name}", text, labels=["engine", "model_name"])
            for rank in self._ranks:
                family.add_metric([str(rank.number), self._model], rank.metrics.counters[name])
            yield family
        source = CounterMetricFamily(
            "vllm:prompt_tokens_by_source", "Prompt tokens by source.", labels=["engine", "model_name", "source"]
        )
        success = CounterMetricFamily(
            "vllm:request_success",
            "Successfully processed requests.",
            labels=["engine", "finished_reason", "model_name"],
        )
        for rank in self._ranks:
            cached = rank.metrics.counters["prompt_tokens_cached"]
            source.add_metric(
                [str(rank.number), self._model, "local_compute"], rank.metrics.counters["prompt_tokens"] - cached
            )
            source.add_metric([str(rank.number), self._model, "local_cache_hit"], cached)
            source.add_metric([str(rank.number), self._model, "external_kv_transfer"], 0)
            for reason, count in rank.metrics.finished.items():
                success.add_metric([str(rank.number), reason, self._model], count)
        yield source
        yield success

    def _histograms(self) -> Iterable[Metric]:
        for name in self._ranks[0].metrics.histograms:
            family = HistogramMetricFamily(
                f"vllm:{name}", name.replace("_", " ").capitalize() + ".", labels=["engine", "model_name"]
            )
            for rank in self._ranks:
                tally = rank.metrics.histograms[name]
                family.add_metric([str(rank.number), self._model], tally.buckets(), tally.sum)
            yield family

    def _cache_config(self) -> Metric:
        names = ["block_size", "cache_dtype", "effective_attention_block_size", "enable_prefix_caching", "engine"]
        names += ["hash_block_size", "kv_cache_max_concurrency", "kv_cache_size_tokens", "num_gpu_blocks"]
        names += ["prefix_caching_hash_algo", "sliding_window"]
        family = GaugeMetricFamily("vllm:cache_config_info", "Information of the LLMEngine CacheConfig", labels=names)
        for rank in self._ranks:
            limits = rank.engine.limits
            size, tokens = str(limits.block_size), limits.num_gpu_blocks * limits.block_size
            values = [
                size,
                "auto",
                size,
                str(limits.enable_prefix_caching),
                str(rank.number),
                "None",
                str(tokens / limits.max_model_len),
                str(tokens),
            ]
            family.add_metric([*values, str(limits.num_gpu_blocks), "sha256", "None"], 1)
        return family

    def _lora_info(self) -> Metric:
        family = GaugeMetricFamily(
            "vllm:lora_requests_info",
            "Running stats on lora requests.",
            labels=["max_lora", "running_lora_adapters", "waiting_lora_adapters"],
        )
        running, waiting = set[str](), set[str]()
        for rank in self._ranks:
            for flow in rank.flows:
                if flow.content.lora:
                    (waiting if flow.admitted_s is None else running).add(flow.content.lora)
        family.add_metric([str(len(self._adapters)), ",".join(sorted(running)), ",".join(sorted(waiting))], time.time())
        return family
