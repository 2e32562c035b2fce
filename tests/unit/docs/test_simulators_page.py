"""docs/simulator.md has a row for every preset, with what its cost model says."""

import re
from pathlib import Path

from multipick_sim.engine.presets import PRESETS

PAGE = (Path(__file__).parents[3] / "docs" / "simulator.md").read_text()


def test_every_preset_has_a_row_with_its_figures() -> None:
    rows: dict[str, str] = dict(re.findall(r"^\| `([\w.-]+)`[^|]*\| (.*) \|$", PAGE, re.MULTILINE))
    for name, preset in PRESETS.items():
        costs, limits = preset.costs(), preset.limits()
        one, many = costs.step_s(0, 0, 1, 0), costs.step_s(0, 0, 64, 64 * 2_000)
        prompt, budget = 8_192, limits.max_num_batched_tokens
        chunks = [(start, min(budget, prompt - start)) for start in range(0, prompt, budget)]
        prefill = sum(costs.step_s(size, size * start + size * (size + 1) // 2, 0, 0) for start, size in chunks)
        figures = f"{limits.num_gpu_blocks:,} | {one * 1e3:.0f} ms | {many * 1e3:.0f} ms | "
        assert rows[name].startswith(figures), name
        assert abs(float(rows[name].removeprefix(figures).removesuffix(" s")) / prefill - 1) < 0.02, name
