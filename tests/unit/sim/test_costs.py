"""The cost model's promises, and presets that stay near what such pods are known to do."""

import pytest
from multipick_sim.engine.costs import Costs
from multipick_sim.engine.presets import PRESETS

COSTS = Costs(fixed_s=1.0, weights_s=2.0, token_s=0.5, exchange_s=0.25, pair_s=0.125, context_s=0.0625)


def test_a_small_step_waits_for_the_weights_and_a_large_one_for_the_products() -> None:
    assert COSTS.step_s(0, 0, decodes=2, context=16) == 1.0 + 2.0 + 0.25 * 2 + 0.0625 * 16
    assert COSTS.step_s(10, 55, decodes=2, context=0) == 1.0 + 0.5 * 12 + 0.25 * 12 + 0.125 * 55


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_a_stretch_of_decoding_costs_what_its_steps_cost(steps: int) -> None:
    each = [COSTS.step_s(0, 0, 3, 100 + 3 * number) for number in range(steps)]
    assert COSTS.decoding_s(3, 100)(steps) == pytest.approx(sum(each))


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_room_for_a_request_and_sensible_speed(name: str) -> None:
    costs, limits = PRESETS[name].costs(), PRESETS[name].limits()
    assert limits.usable_blocks * limits.block_size >= limits.max_model_len
    assert 0.004 < costs.step_s(0, 0, decodes=1, context=1000) < 0.05
    tokens_a_second = 2048 / costs.step_s(2048, 2048 * 2049 // 2, 0, 0)
    assert 2_000 < tokens_a_second < 50_000


def test_blocks_of_a_well_known_pod_are_near_what_vllm_logs_for_it() -> None:
    assert PRESETS["h100-llama-3.1-8b"].limits(16).num_gpu_blocks == pytest.approx(27_500, rel=0.05)
