"""What the project that made the protocol asks of gateways and pickers, asked of Istio with our picker."""

import asyncio
from pathlib import Path

import pytest
from cluster.apiserver import ApiServer
from cluster.build import UnavailableError
from cluster.conformance import run
from cluster.homes import TAG, Home
from cluster.images import conformance

# Istio keeps one picker a route rule: requests by weight go to two pools, and all are asked of the last one's picker
FAILS_BY_ISTIO = {"GatewayWeightedAcrossTwoInferencePools"}


async def test_the_suite_passes_but_for_what_istio_fails(cluster: Home, istio: ApiServer, tmp_path: Path) -> None:
    assert cluster.load is not None
    try:
        for image in conformance(TAG):
            cluster.load(image)
    except UnavailableError as error:
        pytest.skip(str(error))
    found = await asyncio.to_thread(run, istio, tmp_path)
    log = (tmp_path / "conformance.log").read_text()
    assert {name for name, result in found.items() if result != "PASS"} <= FAILS_BY_ISTIO, (found, log[-3000:])
    assert len(found) == 14, (found, log[-3000:])
