"""Autoscalers, as the pool asks for them."""

from collections.abc import Callable
from typing import Any

import pytest
from multipick_operator.api.pool import Pool
from multipick_operator.children import desired
from multipick_operator.children.context import Context

MakePool = Callable[..., Pool]


def child(pool: Pool, context: Context, kind: str, name: str) -> dict[str, Any]:
    return next(c for c in desired(pool, context) if (c["kind"], c["metadata"]["name"]) == (kind, name))


def test_the_autoscaler_moves_the_pool_itself(make_pool: MakePool, context: Context) -> None:
    scaler = child(make_pool(autoscaling={"maxReplicas": 4}), context, "HorizontalPodAutoscaler", "p-engine")
    assert scaler["spec"]["scaleTargetRef"]["kind"] == "InferencePool"
    assert scaler["spec"]["behavior"]["scaleDown"]["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": 60}]


CRON = {"type": "cron", "metadata": {"timezone": "UTC", "start": "0 8 * * *", "end": "0 18 * * *"}}
CPU = {"type": "cpu", "metricType": "Utilization", "metadata": {"value": "60"}}
VALUE = {"type": "prometheus", "metricType": "Value", "metadata": {"query": "up", "threshold": "1"}}


@pytest.mark.parametrize(
    ("triggers", "falls_back"), [([], True), ([CRON], True), ([CPU], False), ([CPU, CRON], True), ([VALUE], False)]
)
def test_keda_keeps_the_fleet_without_metrics_wherever_it_takes_that(
    make_pool: MakePool, context: Context, triggers: list[Any], falls_back: bool
) -> None:
    asked = {"minReplicas": 2, "maxReplicas": 4, "backend": "KEDA", "prometheusUrl": "http://p", "triggers": triggers}
    spec = child(make_pool(autoscaling=asked), context, "ScaledObject", "p-engine")["spec"]
    kept = {"failureThreshold": 3, "replicas": 2, "behavior": "currentReplicasIfHigher"}
    assert spec.get("fallback") == (kept if falls_back else None)
    assert not triggers or spec["triggers"] == triggers
