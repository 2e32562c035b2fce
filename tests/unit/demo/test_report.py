"""The end of a demo: table, verdict and JSON say what was measured, whoever won."""

import json
from dataclasses import replace
from io import StringIO

import pytest
from multipick_sim.demo.report import Outcome, as_json, remarks, table, verdict
from multipick_sim.demo.told import Shadow, Told, told
from multipick_sim.traffic.causes import Agreement, Cause
from multipick_sim.traffic.measures import Figures, Spread
from rich.console import Console


def outcome(
    policy: str,
    ttft_s: float = 1.0,
    tpot_s: float = 0.05,
    hit_rate: float = 0.5,
    failed: int = 0,
    decision_s: float = 0.01,
) -> Outcome:
    figures = Figures(
        requests=100,
        failed=failed,
        duration_s=60.0,
        prompt_tokens=100_000,
        cached_tokens=round(100_000 * hit_rate),
        output_tokens=9000,
        ttft_s=Spread(ttft_s, ttft_s, 2 * ttft_s, 3 * ttft_s),
        tpot_s=Spread(tpot_s, tpot_s, tpot_s, tpot_s),
        e2e_s=Spread(9.0, 8.0, 20.0, 30.0),
        hit_rate=hit_rate,
        imbalance=1.25,
    )
    return Outcome(
        policy, figures, Agreement(100, 97, 1, {Cause.EVICTED: 2, Cause.IN_PREFILL: 1}), Told(decision_s), 2.0
    )


OTHER = outcome("round-robin")


@pytest.mark.parametrize(
    ("rule", "judgement"),
    [
        (outcome("lmetric", ttft_s=0.5, tpot_s=0.04, hit_rate=0.7), "lmetric beats round-robin"),
        (outcome("lmetric", ttft_s=0.5), "lmetric beats round-robin"),
        (outcome("lmetric", ttft_s=1.5, tpot_s=0.06, hit_rate=0.4), "lmetric loses to round-robin"),
        (outcome("lmetric", hit_rate=0.4), "lmetric loses to round-robin"),
        (outcome("lmetric", ttft_s=0.5, tpot_s=0.06), "lmetric is partly better, partly worse than round-robin"),
        (outcome("lmetric", ttft_s=0.98, tpot_s=0.051), "lmetric is even with round-robin"),
    ],
)
def test_the_verdict_follows_the_figures(rule: Outcome, judgement: str) -> None:
    assert verdict([rule, OTHER]).startswith(judgement + ": ")
    assert verdict([OTHER, rule]) == verdict([rule, OTHER])


def test_the_verdict_says_by_how_much() -> None:
    assert verdict([outcome("lmetric", 0.5, 0.04, 0.7), OTHER]) == (
        "lmetric beats round-robin: mean TTFT 0.500 s against 1.000 s (-50%), "
        "mean TPOT 40.0 ms against 50.0 ms (-20%), hit rate 70.0% against 50.0%"
    )


def test_the_verdict_tells_of_failed_requests() -> None:
    assert verdict([outcome("lmetric", failed=2), outcome("round-robin", failed=1)]).endswith("; failed requests: 3")


def test_round_robin_is_the_baseline_and_without_it_the_first_other_policy() -> None:
    rule, first = outcome("lmetric"), outcome("vllm-v1")
    assert "with round-robin" in verdict([rule, first, OTHER])
    assert "with vllm-v1" in verdict([first, rule])


@pytest.mark.parametrize("outcomes", [[], [OTHER], [outcome("lmetric")]])
def test_there_is_no_verdict_on_one_policy(outcomes: list[Outcome]) -> None:
    assert "nothing to compare" in verdict(outcomes)


def test_figures_that_were_never_measured_are_no_victory() -> None:
    empty = replace(OTHER, figures=replace(OTHER.figures, ttft_s=None, tpot_s=None, e2e_s=None))
    assert verdict([outcome("lmetric"), empty]).startswith(
        "lmetric is even with round-robin: mean TTFT 1.000 s against -"
    )


def test_the_table_has_a_column_a_policy_and_a_row_a_figure() -> None:
    out = StringIO()
    Console(file=out, width=100).print(table([outcome("lmetric", ttft_s=0.25), OTHER]))
    lines = [line.split("│") for line in out.getvalue().splitlines() if "│" in line]
    cells = {line[1].strip(): [cell.strip() for cell in line[2:-1]] for line in lines}
    assert cells["TTFT mean"] == ["0.250 s", "1.000 s"]
    assert cells["TTFT p99"] == ["0.750 s", "3.000 s"]
    assert cells["TPOT p50"] == ["50.0 ms", "50.0 ms"]
    assert cells["E2E p95"] == ["20.000 s", "20.000 s"]
    assert cells["hit rate"] == ["50.0%", "50.0%"]
    assert cells["failed"] == ["0", "0"]


def test_disagreements_are_listed_by_cause() -> None:
    assert list(remarks(outcome("lmetric"))) == [
        "lmetric: predicted and reported hit are equal for 97 of 100 requests (97.0%)",
        f"  2 x {Cause.EVICTED}",
        f"  1 x {Cause.IN_PREFILL}",
        "  1 without a prediction (not routed by the picker)",
    ]


def test_a_machine_that_cannot_keep_up_is_told_of() -> None:
    *_, last = remarks(outcome("lmetric", ttft_s=1.0, decision_s=0.2))
    assert "decisions are 40% of the mean TTFT" in last
    assert not any("too busy" in line for line in remarks(outcome("lmetric", ttft_s=1.0, decision_s=0.05)))


def test_a_verdict_from_a_machine_that_was_too_busy_in_either_run_says_so() -> None:
    doubt = "; this machine was too busy to tell for sure"
    busy = outcome("round-robin", decision_s=0.2)
    assert verdict([outcome("lmetric", ttft_s=0.5), busy]).endswith(doubt)
    assert verdict([outcome("lmetric", ttft_s=0.5, failed=1), busy]).endswith("; failed requests: 1" + doubt)
    assert doubt not in verdict([outcome("lmetric", ttft_s=0.5), OTHER])


def test_json_has_a_row_a_policy_with_all_figures() -> None:
    written = json.loads(json.dumps(as_json({"seed": 7}, [outcome("lmetric"), OTHER])))
    assert written["setup"] == {"seed": 7}
    assert [row["policy"] for row in written["policies"]] == ["lmetric", "round-robin"]
    assert written["policies"][0]["ttft_s"] == {"mean": 1.0, "p50": 1.0, "p95": 2.0, "p99": 3.0}
    assert written["policies"][0]["agreement"]["share"] == 0.97
    assert written["policies"][0]["agreement"]["causes"] == {Cause.EVICTED: 2, Cause.IN_PREFILL: 1}
    assert written["verdict"] == verdict([outcome("lmetric"), OTHER])


def test_what_the_guard_did_and_what_shadows_would_have_done_is_told_where_there_is_any() -> None:
    page = """# HELP multipick_decision_seconds From a whole request to its endpoint.
multipick_decision_seconds_count 4.0
multipick_decision_seconds_sum 0.02
multipick_hotspot_kept_out_total 3.0
multipick_shadow_decisions_total{choice="same",policy="llm-d"} 2.0
multipick_shadow_decisions_total{choice="other",policy="llm-d"} 1.0
multipick_shadow_hit_tokens_total{policy="llm-d"} 1000.0
multipick_shadow_own_hit_tokens_total{policy="llm-d"} 1200.0
"""
    found = told(page, ["llm-d", "random"])
    assert found == Told(0.005, 3, [Shadow("llm-d", 3, 2, 1000, 1200), Shadow("random", 0, 0, 0, 0)])
    lines = list(remarks(replace(OTHER, told=found)))
    assert "  the hotspot guard kept 3 requests out of the holders of a hot prefix" in lines
    assert (
        "  llm-d would have chosen the same for 2 of 3 requests that it was asked about, and hit 1,000 tokens where "
        "1,200 were"
    ) in lines
    assert not [line for line in remarks(OTHER) if "guard" in line or "asked about" in line]
