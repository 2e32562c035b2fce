import asyncio
from collections.abc import Callable
from random import Random

import pytest
from multipick_epp.decision.shadow import WAITING, Shadows
from multipick_epp.policy.registry import policy
from multipick_epp.policy.snapshot import Ranking, Snapshot
from multipick_epp.telemetry.metrics import Metrics
from multipick_epp.types import Endpoint

PODS = [Endpoint("10.0.0.1:8000"), Endpoint("10.0.0.2:8000")]
# the first holds the prompt and is busier: the product goes there, the smallest load elsewhere
SNAPSHOT = Snapshot(1000, PODS, [900, 0], [0, 0], [3, 1])
OWN = policy("lmetric")(SNAPSHOT, Random(1))


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(f"multipick_{name}_total", labels) or 0.0


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.001)


async def test_each_policy_tells_what_it_would_have_chosen() -> None:
    metrics = Metrics()
    shadows = Shadows({name: policy(name) for name in ("lmetric", "least-request")}, Random(1), metrics)
    assert OWN.rows[0] == 0
    shadows.look(SNAPSHOT, OWN, 0)
    await until(lambda: value(metrics, "shadow_decisions", policy="least-request", choice="other") == 1)
    assert value(metrics, "shadow_decisions", policy="lmetric", choice="same") == 1
    assert value(metrics, "shadow_hit_tokens", policy="lmetric") == 900
    assert value(metrics, "shadow_hit_tokens", policy="least-request") == 0
    assert value(metrics, "shadow_own_hit_tokens", policy="least-request") == 900
    assert value(metrics, "shadow_regret", policy="lmetric") == 0
    assert value(metrics, "shadow_regret", policy="least-request") == pytest.approx(1000 * 2 / (100 * 4) - 1)


async def test_more_decisions_than_can_be_looked_at_are_left_out_and_counted() -> None:
    metrics = Metrics()
    shadows = Shadows({"lmetric": policy("lmetric")}, Random(1), metrics)
    for _ in range(WAITING + 7):
        shadows.look(SNAPSHOT, OWN, 0)
    assert value(metrics, "shadow_skipped") == 7
    await until(lambda: value(metrics, "shadow_decisions", policy="lmetric", choice="same") == WAITING)


async def test_a_policy_that_fails_costs_no_other_and_no_later_decision_and_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    metrics = Metrics()
    fails = [True, True, False]

    def sick(snapshot: Snapshot, rng: Random) -> Ranking:
        if fails.pop(0):
            raise ValueError
        return OWN

    shadows = Shadows({"sick": sick, "lmetric": policy("lmetric")}, Random(1), metrics)
    for _ in range(3):
        shadows.look(SNAPSHOT, OWN, 0)
    await until(lambda: value(metrics, "shadow_decisions", policy="sick", choice="same") == 1)
    assert value(metrics, "shadow_decisions", policy="sick", choice="failed") == 2
    assert value(metrics, "shadow_decisions", policy="lmetric", choice="same") == 3
    assert len(caplog.records) == 1


async def test_closed_it_looks_at_no_more() -> None:
    metrics = Metrics()
    shadows = Shadows({"lmetric": policy("lmetric")}, Random(1), metrics)
    shadows.look(SNAPSHOT, OWN, 0)
    shadows.close()
    await asyncio.sleep(0.01)
    assert value(metrics, "shadow_decisions", policy="lmetric", choice="same") == 0
