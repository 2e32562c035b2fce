from collections.abc import Iterator
from math import isfinite
from pathlib import Path
from random import Random

import pytest
from multipick_epp.engines.metrics_page import Gauges, parse

FIXTURES = Path(__file__).parents[2] / "fixtures"

SGLANG = b"""# TYPE sglang:num_running_reqs gauge
sglang:num_running_reqs{model_name="m",tp_rank="0"} 7.0
sglang:num_queue_reqs{model_name="m",tp_rank="0"} 2.0
sglang:token_usage{model_name="m",tp_rank="0"} 0.25
sglang:cache_config_info{page_size="64",num_pages="1000"} 1.0
"""


def test_a_recorded_vllm_page_is_read() -> None:
    page = (FIXTURES / "A_sha256_bs32_31blocks" / "metrics_99_end.txt").read_bytes()
    gauges = parse(page)
    assert gauges.block_size == 32
    assert (gauges.waiting, gauges.running) == (0, 0)
    assert not gauges.asleep


def test_an_sglang_page_is_read() -> None:
    assert parse(SGLANG) == Gauges(waiting=2, running=7, kv_usage=0.25, block_size=64)


def test_engines_behind_one_port_are_summed() -> None:
    page = b'vllm:num_requests_running{engine="0"} 3.0\nvllm:num_requests_running{engine="1"} 4.0\n'
    assert parse(page).running == 7


def test_each_rank_behind_one_port_has_its_own_figures() -> None:
    page = b"""vllm:num_requests_running{engine="9",model_name="m"} 3.0
vllm:num_requests_running{model_name="m",engine="8"} 4.0
vllm:num_requests_waiting{engine="9",model_name="m"} 1.0
vllm:kv_cache_usage_perc{engine="8",model_name="m"} 0.5
vllm:cache_config_info{block_size="16",engine="8"} 1.0
"""
    found = parse(page)
    assert (found.waiting, found.running, found.kv_usage, found.block_size) == (1, 7, 0.5, 16)
    assert found.ranks == {8: Gauges(0, 4, 0.5, 16), 9: Gauges(1, 3, 0, 16)}


def test_a_label_that_only_looks_like_a_ranks_is_none() -> None:
    page = b'vllm:num_requests_running{engine_type="1",model_name="a,engine=\\"2\\"",xengine="3",engine="x"} 3.0\n'
    assert parse(page) == Gauges(running=3)


def test_many_ranks_cost_no_more_than_a_long_page() -> None:
    page = b"".join(b'vllm:num_requests_running{engine="%d"} 1\n' % rank for rank in range(50_000))
    assert len(parse(page).ranks) == 1024


def test_a_sleeping_engine_is_seen() -> None:
    page = b'vllm:engine_sleep_state{engine="0",sleep_state="awake"} 0.0\n'
    assert parse(page).asleep
    assert not parse(page.replace(b" 0.0", b" 1.0")).asleep


def test_nonsense_is_an_empty_reading() -> None:
    assert parse(b"\xff\x00vllm:num_requests_running nan-ish\n{{{{") == Gauges()
    assert parse(b"vllm:num_requests_running{} 1e\n") == Gauges(ignored=("vllm:num_requests_running is 1e",))


@pytest.mark.parametrize("value", ["1e999", "-3000", "nan", "inf", "-inf", "1e300", "", "x", "0x10", "1" * 5000])
def test_a_value_that_can_not_be_counts_as_not_said(value: str) -> None:
    found = parse(f"vllm:num_requests_waiting {value}\nvllm:num_requests_running 2.0\n".encode())
    assert (found.waiting, found.running) == (0, 2)
    assert bool(found.ignored) == bool(value)
    assert all(len(words) < 100 for words in found.ignored)


@pytest.mark.parametrize("size", ["9" * 5000, "99999999999999999999", "65537", "0", "-16", "1e3", "", "\u0663"])
def test_a_block_size_that_can_not_be_counts_as_not_said(size: str) -> None:
    found = parse(f'vllm:cache_config_info{{block_size="{size}",cache_dtype="auto"}} 1.0\n'.encode())
    assert found.block_size is None
    assert found.ignored


def test_a_cache_that_is_fuller_than_full_counts_as_not_said() -> None:
    assert parse(b"vllm:kv_cache_usage_perc 0.5\nsglang:token_usage 7\n").kv_usage == 0.5


def test_braces_and_spaces_in_a_label_are_no_end() -> None:
    page = b'vllm:num_requests_running{model_name="a} 9 {\\"b"} 3.0 1700000000\n'
    assert parse(page).running == 3


def test_a_name_that_only_begins_so_is_another() -> None:
    page = b'vllm:num_requests_waiting_by_reason{reason="capacity"} 5.0\nvllm:num_requests_waiting{} 1.0\n'
    assert parse(page).waiting == 1


@pytest.mark.parametrize(
    "line",
    [
        b'vllm:num_requests_running{a="' + b"{" * 300_000,
        b"vllm:num_requests_running{" * 12_000,
        b'vllm:cache_config_info{x="' + b"block_size=" * 30_000,
        b"vllm:num_requests_running" + b"0" * 300_000,
        b"vllm:num_requests_running 1\n" * 150_000,
    ],
)
def test_what_is_long_is_passed_over(line: bytes) -> None:
    """Whatever the page holds, it is scanned a few times; this test would take minutes otherwise."""
    found = parse(b"vllm:num_requests_waiting 4.0\n" + line + b"\nvllm:kv_cache_usage_perc 0.25\n")
    assert (found.waiting, found.kv_usage) == (4, 0.25)
    assert found.running <= 1024


def test_an_engines_own_count_of_hits_is_read() -> None:
    vllm = (
        b'vllm:prefix_cache_queries_total{engine="0"} 1000.0\nvllm:prefix_cache_queries_total{engine="1"} 2e3\n'
        b'vllm:prefix_cache_hits_total{engine="0"} 600.0\nvllm:external_prefix_cache_hits_total{engine="0"} 50.0\n'
    )
    assert (parse(vllm).cache_queries, parse(vllm).cache_hits) == (3000.0, 650.0)
    sglang = b'sglang:prompt_tokens_total{model_name="m"} 1000\nsglang:cached_tokens_total{model_name="m"} 400\n'
    assert (parse(sglang).cache_queries, parse(sglang).cache_hits) == (1000.0, 400.0)
    assert (parse(b"").cache_queries, parse(b"").cache_hits) == (0.0, 0.0)
    assert parse(b"vllm:prefix_cache_hits_total -5\n").cache_hits == 0.0


PAGES = [SGLANG, *(path.read_bytes() for path in sorted(FIXTURES.glob("*/metrics_*.txt")))]
ODD = [b"\n", b"{", b"}", b" ", b"\t", b"\r", b'"', b"\x00", b"\xff", b"-1", b"1e999", b"nan", b"vllm:", b'engine="1",']


def values(page: bytes, *names: bytes) -> Iterator[float]:
    """Line by line, as the format says it: no scan, no regular expression."""
    for line in page.split(b"\n"):
        for name in names:
            rest = line[len(name) :]
            if line.startswith(name) and rest[:1] in (b"{", b" ", b"\t"):
                words = (rest[1:].rpartition(b"}")[2] if rest[:1] == b"{" else rest).split()
                try:
                    value = float(words[0])
                except (ValueError, IndexError):
                    continue
                if isfinite(value) and value >= 0:
                    yield value


def compare(page: bytes) -> None:
    found = parse(page)
    requests = (value for value in values(page, b"vllm:num_requests_waiting", b"sglang:num_queue_reqs") if value <= 1e6)
    assert found.waiting == sum(requests)
    requests = (
        value for value in values(page, b"vllm:num_requests_running", b"sglang:num_running_reqs") if value <= 1e6
    )
    assert found.running == sum(requests)
    used = values(page, b"vllm:kv_cache_usage_perc", b"vllm:gpu_cache_usage_perc", b"sglang:token_usage")
    assert found.kv_usage == max((value for value in used if value <= 1), default=0.0)
    queries = values(page, b"vllm:prefix_cache_queries_total", b"sglang:prompt_tokens_total")
    assert found.cache_queries == sum(value for value in queries if value <= 1e18)
    generated = values(page, b"vllm:generation_tokens_total", b"sglang:generation_tokens_total")
    assert found.generated == sum(value for value in generated if value <= 1e18)


@pytest.mark.parametrize("page", PAGES)
def test_every_recorded_page_says_the_same_line_by_line(page: bytes) -> None:
    compare(page)
    compare(page + SGLANG)


def test_a_page_that_is_damaged_says_the_same_line_by_line() -> None:
    random = Random(1)
    for _ in range(400):
        lines = [
            line for line in random.choice(PAGES).split(b"\n") if not line.startswith(b"#") and b"_bucket" not in line
        ]
        random.shuffle(lines)
        page = bytearray(b"\n".join(lines))
        for _ in range(random.randrange(60)):
            at = random.randrange(len(page))
            page[at : at + random.randrange(4)] = random.choice(ODD)
        compare(bytes(page))
