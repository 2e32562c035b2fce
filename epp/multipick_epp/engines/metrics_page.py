"""An engine's Prometheus page -> the few gauges that routing needs; vLLM since 0.8 and SGLang."""

import re
from dataclasses import dataclass

MAX_PAGE_BYTES = 4 << 20

_GAUGES = {
    "vllm:num_requests_waiting": "waiting",
    "sglang:num_queue_reqs": "waiting",
    "vllm:num_requests_running": "running",
    "sglang:num_running_reqs": "running",
    "vllm:kv_cache_usage_perc": "kv_usage",
    "vllm:gpu_cache_usage_perc": "kv_usage",  # until vLLM 0.11
    "sglang:token_usage": "kv_usage",
}
_SAMPLE = re.compile(
    rb"^(" + b"|".join(re.escape(name.encode()) for name in _GAUGES) + rb")(?:\{[^\n]*\})? ([0-9.eE+-]+)", re.MULTILINE
)
_CACHE_CONFIG = re.compile(rb"^(?:vllm|sglang):cache_config_info\{([^\n]*)\}", re.MULTILINE)
_BLOCK_SIZE = re.compile(rb'\b(?:block_size|page_size)="(\d+)"')
_ASLEEP = re.compile(rb'^vllm:engine_sleep_state\{[^\n]*sleep_state="awake"[^\n]*\} 0(?:\.0)?$', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Gauges:
    """What an engine said of itself at one scrape."""

    waiting: float = 0.0  # requests
    running: float = 0.0  # requests
    kv_usage: float = 0.0  # 0..1, blocks in use by requests
    block_size: int | None = None  # tokens
    asleep: bool = False


def parse(page: bytes) -> Gauges:
    """Read one page. Of several engine processes behind one port the requests are summed, the usage is the highest."""
    sums = {"waiting": 0.0, "running": 0.0}
    usage = 0.0
    for name, text in _SAMPLE.findall(page):
        try:
            value = float(text)
        except ValueError:
            continue
        gauge = _GAUGES[name.decode()]
        if gauge == "kv_usage":
            usage = max(usage, value)
        else:
            sums[gauge] += value
    block_size = None
    if (config := _CACHE_CONFIG.search(page)) and (size := _BLOCK_SIZE.search(config[1])):
        block_size = int(size[1]) or None
    return Gauges(sums["waiting"], sums["running"], usage, block_size, bool(_ASLEEP.search(page)))
