"""What gateways speak to the pickers."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from multipick_epp import config
from multipick_operator.api.pool import Pool
from multipick_operator.children import Ref, catalogue, desired
from multipick_operator.children.configuration import configuration
from multipick_operator.children.context import Context

MakePool = Callable[..., Pool]


def said(pool: Pool, context: Context, folder: Path) -> tuple[object, str]:
    """The picker's own mode, and what its Service says of the port."""
    file = folder / "epp.yaml"
    file.write_text(yaml.safe_dump(configuration(pool, context)))
    services = {one["metadata"]["name"]: one for one in desired(pool, context) if one["kind"] == "Service"}
    return config.load(file).listen.tls.mode, services["p-epp"]["spec"]["ports"][0]["appProtocol"]


@pytest.mark.parametrize(
    ("classes", "chosen", "tls"),
    [
        ((), "Auto", False),
        (("istio",), "Auto", False),
        (("mine",), "Auto", False),
        (("envoy-ai-gateway",), "Auto", True),
        (("agentgateway",), "Auto", True),
        (("kgateway",), "Auto", True),
        (("nginx",), "Auto", True),
        (("gke-l7-regional-external-managed",), "Auto", True),
        (("istio", "nginx"), "Auto", True),
        (("nginx",), "Off", False),
        ((), "SelfSigned", True),
    ],
)
def test_pickers_speak_what_the_gateways_speak(
    classes: tuple[str, ...], chosen: str, tls: bool, make_pool: MakePool, context: Context, tmp_path: Path
) -> None:
    pool = make_pool(routing={"gateway": {"pickerTLS": chosen}})
    found = said(pool, replace(context, gateway_classes=classes), tmp_path)
    assert found == (("self-signed", "http2") if tls else ("off", "kubernetes.io/h2c"))


@pytest.mark.parametrize(("chosen", "mode"), [("Auto", "DISABLE"), ("SelfSigned", "SIMPLE")])
def test_istio_is_told_of_it_and_to_ask_no_dead_picker(
    chosen: str, mode: str, make_pool: MakePool, context: Context
) -> None:
    pool = make_pool(routing={"gateway": {"pickerTLS": chosen}})
    (rule,) = [
        one for one in desired(pool, replace(context, gateway_classes=("istio",))) if one["kind"] == "DestinationRule"
    ]
    policy: dict[str, Any] = rule["spec"]["trafficPolicy"]
    assert rule["spec"]["host"] == rule["metadata"]["name"] == "p-epp"
    assert policy["tls"]["mode"] == mode
    assert policy["connectionPool"] == {"tcp": {"connectTimeout": "1s"}}
    assert policy["outlierDetection"]["maxEjectionPercent"] == 100
    assert Ref("networking.istio.io/v1", "DestinationRule", "p-epp") in catalogue(pool)


def test_no_other_gateway_gets_one(make_pool: MakePool, context: Context) -> None:
    made = desired(make_pool(), replace(context, gateway_classes=("nginx",)))
    assert "DestinationRule" not in {one["kind"] for one in made}
