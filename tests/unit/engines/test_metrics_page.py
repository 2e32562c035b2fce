from pathlib import Path

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


def test_a_sleeping_engine_is_seen() -> None:
    page = b'vllm:engine_sleep_state{engine="0",sleep_state="awake"} 0.0\n'
    assert parse(page).asleep
    assert not parse(page.replace(b" 0.0", b" 1.0")).asleep


def test_nonsense_is_an_empty_reading() -> None:
    assert parse(b"\xff\x00vllm:num_requests_running nan-ish\n{{{{") == Gauges()
    assert parse(b"vllm:num_requests_running{} 1e\n") == Gauges()
