"""An engine's Prometheus page -> the few gauges that routing needs; vLLM since 0.8 and SGLang.

A page is searched for the names that matter, line by line where they stand: 256 engines are looked at twice a second,
and of their pages of 40 to 300 KB some ten lines are of use. Costs a few scans of the page, whatever stands in it.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite

from multipick_epp.engines import bounds

_WAITING = (b"vllm:num_requests_waiting", b"sglang:num_queue_reqs")
_RUNNING = (b"vllm:num_requests_running", b"sglang:num_running_reqs")
_USAGE = (b"vllm:kv_cache_usage_perc", b"vllm:gpu_cache_usage_perc", b"sglang:token_usage")  # the second until 0.11
_CACHE_CONFIG = (b"vllm:cache_config_info", b"sglang:cache_config_info")
_QUERIES = (b"vllm:prefix_cache_queries_total", b"sglang:prompt_tokens_total")
_HITS = (b"vllm:prefix_cache_hits_total", b"vllm:external_prefix_cache_hits_total", b"sglang:cached_tokens_total")
_GENERATED = (b"vllm:generation_tokens_total", b"sglang:generation_tokens_total")
_SLEEP_STATE = b"vllm:engine_sleep_state"
_AWAKE = b'sleep_state="awake"'
_RANK = re.compile(rb'(?:^|,)(?:engine|dp_rank)="([0-9]{1,9})"')
"""vLLM's label, and SGLang's. A value can't look like it: its quotes are escaped."""
_BLOCK_SIZE = re.compile(rb'\b(block_size|page_size)="([^"]*)"')
_MANY_DIGITS = 10
_MANY_IGNORED = 8


_Values = Sequence[tuple[int | None, float]]


@dataclass(frozen=True, slots=True)
class Gauges:
    """What a server said of its engines at one scrape, or of one of them."""

    waiting: float = 0.0  # requests
    running: float = 0.0  # requests
    kv_usage: float = 0.0  # 0..1, blocks in use by requests
    block_size: int | None = None  # tokens
    asleep: bool = False
    cache_queries: float = 0.0  # prompt tokens that it looked up in its prefix cache, ever; 0 where it doesn't say
    cache_hits: float = 0.0  # of these, found there
    generated: float = 0.0  # tokens of answers, ever; 0 where it doesn't say
    ignored: tuple[str, ...] = ()  # what had a value that can't be, in words, for people
    ranks: Mapping[int, "Gauges"] = field(default_factory=dict)  # of each data-parallel rank that the page names


def parse(page: bytes) -> Gauges:
    """Read one page. Of several engine processes behind one port the requests are summed, the usage is the highest;
    `ranks` has each by itself.

    A value that is no number, or that can't be, counts as not said.
    """
    ignored: dict[str, None] = {}
    page = b"\n" + page
    waiting = [*_values(page, _WAITING, bounds.REQUESTS, ignored)]
    running = [*_values(page, _RUNNING, bounds.REQUESTS, ignored)]
    usage = [*_values(page, _USAGE, 1.0, ignored)]
    asleep = any(_AWAKE in labels and value in (b"0", b"0.0") for labels, value in _samples(page, _SLEEP_STATE))
    size = _block_size(page, ignored)
    queries = sum((value for _, value in _values(page, _QUERIES, bounds.COUNTED_TOKENS, ignored)), 0.0)
    hits = sum((value for _, value in _values(page, _HITS, bounds.COUNTED_TOKENS, ignored)), 0.0)
    generated = sum((value for _, value in _values(page, _GENERATED, bounds.COUNTED_TOKENS, ignored)), 0.0)
    every = Gauges(
        sum(value for _, value in waiting),
        sum(value for _, value in running),
        max((value for _, value in usage), default=0.0),
        size,
        asleep,
        queries,
        hits,
        generated,
        tuple(ignored)[:_MANY_IGNORED],
    )
    by_rank = _by_rank(waiting, running, usage)
    ranks = {
        rank: replace(every, waiting=waits, running=runs, kv_usage=used)
        for rank, (waits, runs, used) in by_rank.items()
    }
    return replace(every, ranks=ranks)


def _by_rank(waiting: _Values, running: _Values, usage: _Values) -> Mapping[int, tuple[float, float, float]]:
    ranks = sorted({rank for rank, _ in (*waiting, *running, *usage) if rank is not None})
    found = {rank: [0.0, 0.0, 0.0] for rank in ranks}
    for place, values in enumerate((waiting, running, usage)):
        for rank, value in values:
            if rank is not None:
                figures = found[rank]
                figures[place] = max(figures[place], value) if values is usage else figures[place] + value
    return {rank: (waits, runs, used) for rank, (waits, runs, used) in found.items()}


def _values(
    page: bytes, names: tuple[bytes, ...], most: float, ignored: dict[str, None]
) -> Iterator[tuple[int | None, float]]:
    """Of each rank (None: of none in particular)."""
    for name in names:
        for labels, text in _samples(page, name):
            try:
                value = float(text)
            except ValueError:
                value = -1.0
            if isfinite(value) and 0 <= value <= most:
                rank = _RANK.search(labels)
                yield int(rank[1]) if rank else None, value
            else:
                ignored[f"{name.decode()} is {text[:20].decode('latin-1')}"] = None


def _block_size(page: bytes, ignored: dict[str, None]) -> int | None:
    for name in _CACHE_CONFIG:
        for labels, _ in _samples(page, name):
            for label, text in _BLOCK_SIZE.findall(labels):
                size = int(text) if text.isdigit() and len(text) < _MANY_DIGITS else 0
                if 0 < size <= bounds.BLOCK_TOKENS:
                    return size
                ignored[f"{label.decode()} is {text[:_MANY_DIGITS].decode('latin-1')}"] = None
    return None


def _samples(page: bytes, name: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Labels (without braces) and value of each sample of exactly this name; a few of the first, if there are many.

    Lines are `name{label="value",...} value [time]`; a label's value may hold anything but a line break.
    """
    start, found = 0, 0
    line = b"\n" + name
    while found < bounds.METRICS_SAMPLES and (at := page.find(line, start)) >= 0:
        start = at + len(line)
        end = page.find(b"\n", start, start + bounds.METRICS_LINE_BYTES)
        if end < 0:
            if len(page) - start > bounds.METRICS_LINE_BYTES:
                continue  # a line that no engine writes
            end = len(page)
        rest = page[start:end]
        if rest.startswith(b"{"):
            labels, _, rest = rest[1:].rpartition(b"}")
        elif rest[:1] in b" \t":
            labels = b""
        else:
            continue  # a longer name
        value = rest.split(None, 1)[:1]
        if value:
            found += 1
            yield labels, value[0]
