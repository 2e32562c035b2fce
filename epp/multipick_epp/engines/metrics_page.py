"""An engine's Prometheus page -> the few gauges that routing needs; vLLM since 0.8 and SGLang.

256 engines are looked at twice a second, and of their pages of 40 to 300 KB some ten lines are of use: one regular
expression finds these in one scan of the page, whatever else stands in it.
"""

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
_NAMES = (*_WAITING, *_RUNNING, *_USAGE, *_CACHE_CONFIG, *_QUERIES, *_HITS, *_GENERATED, _SLEEP_STATE)


def _lines_of(names: Sequence[bytes]) -> re.Pattern[bytes]:
    """Of the lines with these names, the name and what follows it. By engine, so most lines fail after a few bytes."""
    engines: dict[bytes, list[bytes]] = {}
    for name in names:
        engine, _, rest = name.partition(b":")
        engines.setdefault(engine, []).append(re.escape(rest))
    groups = (engine + b":(?:" + b"|".join(rests) + b")" for engine, rests in engines.items())
    return re.compile(b"\\n(" + b"|".join(groups) + b")([{ \\t][^\\n]*)")


_LINES = _lines_of(_NAMES)
_RANK = re.compile(rb'(?:^|,)(?:engine|dp_rank)="([0-9]{1,9})"')
"""vLLM's label, and SGLang's. A value can't look like it: its quotes are escaped."""
_SIZE = re.compile(rb'_size="([^"]*)"')
_OF_BLOCK = re.compile(rb"\b(?:block|page)\Z")
"""What is before it: vLLM has `block_size`, and other labels that end so (`mamba_block_size`); SGLang has `page_size`.
Two expressions, since one whose beginning is no fixed text takes 20 times as long.
"""
_MANY_DIGITS = 10
_MANY_IGNORED = 8


_Values = Sequence[tuple[int | None, float]]
_Samples = Mapping[bytes, Sequence[tuple[bytes, bytes]]]
"""Labels (without braces) and value of each sample, by its name."""


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


async def read(page: bytes) -> Gauges:
    """`parse`, for a long page in a thread."""
    return parse(page) if len(page) <= bounds.INLINE_BYTES else await asyncio.to_thread(parse, page)


def parse(page: bytes) -> Gauges:
    """Read one page. Of several engine processes behind one port the requests are summed, the usage is the highest;
    `ranks` has each by itself.

    A value that is no number, or that can't be, counts as not said.
    """
    ignored: dict[str, None] = {}
    samples = _samples(page)
    waiting = _values(samples, _WAITING, bounds.REQUESTS, ignored)
    running = _values(samples, _RUNNING, bounds.REQUESTS, ignored)
    usage = _values(samples, _USAGE, 1.0, ignored)
    asleep = any(_AWAKE in labels and value in (b"0", b"0.0") for labels, value in samples[_SLEEP_STATE])
    size = _block_size(samples, ignored)
    queries = _sum(_values(samples, _QUERIES, bounds.COUNTED_TOKENS, ignored))
    hits = _sum(_values(samples, _HITS, bounds.COUNTED_TOKENS, ignored))
    generated = _sum(_values(samples, _GENERATED, bounds.COUNTED_TOKENS, ignored))
    common = (size, asleep, queries, hits, generated, tuple(ignored)[:_MANY_IGNORED])
    by_rank = _by_rank(waiting, running, usage)
    ranks = {rank: Gauges(waits, runs, used, *common) for rank, (waits, runs, used) in by_rank.items()}
    return Gauges(_sum(waiting), _sum(running), max((value for _, value in usage), default=0.0), *common, ranks)


def _sum(values: _Values) -> float:
    return sum([value for _, value in values], 0.0)


def _by_rank(waiting: _Values, running: _Values, usage: _Values) -> Mapping[int, tuple[float, float, float]]:
    ranks = sorted({rank for rank, _ in (*waiting, *running, *usage) if rank is not None})
    found = {rank: [0.0, 0.0, 0.0] for rank in ranks}
    for place, values in enumerate((waiting, running, usage)):
        for rank, value in values:
            if rank is not None:
                figures = found[rank]
                figures[place] = max(figures[place], value) if values is usage else figures[place] + value
    return {rank: (waits, runs, used) for rank, (waits, runs, used) in found.items()}


def _values(samples: _Samples, names: tuple[bytes, ...], most: float, ignored: dict[str, None]) -> _Values:
    """Of each rank (None: of none in particular)."""
    found: list[tuple[int | None, float]] = []
    for name in names:
        for labels, text in samples[name]:
            try:
                value = float(text)
            except ValueError:
                value = -1.0
            if isfinite(value) and 0 <= value <= most:
                rank = _RANK.search(labels)
                found.append((int(rank[1]) if rank else None, value))
            else:
                ignored[f"{name.decode()} is {text[:20].decode('latin-1')}"] = None
    return found


def _block_size(samples: _Samples, ignored: dict[str, None]) -> int | None:
    for name in _CACHE_CONFIG:
        for labels, _ in samples[name]:
            for found in _SIZE.finditer(labels):
                kind = _OF_BLOCK.search(labels, max(0, found.start() - len(b"block")), found.start())
                if kind is None:
                    continue
                text = found[1]
                size = int(text) if text.isdigit() and len(text) < _MANY_DIGITS else 0
                if 0 < size <= bounds.BLOCK_TOKENS:
                    return size
                ignored[f"{kind[0].decode()}_size is {text[:_MANY_DIGITS].decode('latin-1')}"] = None
    return None


def _samples(page: bytes) -> _Samples:
    """Of each name of `_NAMES`; a few of the first, if there are many.

    Lines are `name{label="value",...} value [time]`; a label's value may hold anything but a line break.
    """
    found: dict[bytes, list[tuple[bytes, bytes]]] = {name: [] for name in _NAMES}
    for line in _LINES.finditer(b"\n" + page):
        name, rest = line.groups()
        samples = found[name]
        if len(samples) == bounds.METRICS_SAMPLES or len(rest) > bounds.METRICS_LINE_BYTES:
            continue  # more, or longer, than any engine writes
        labels = b""
        if rest.startswith(b"{"):
            labels, _, rest = rest[1:].rpartition(b"}")
        value = rest.split(None, 1)[:1]
        if value:
            samples.append((labels, value[0]))
    return found
