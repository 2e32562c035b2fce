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


def named(kind: str, name: str, pool: Pool, context: Context) -> Any:
    """One of the children."""
    (found,) = (one for one in desired(pool, context) if (one["kind"], one["metadata"]["name"]) == (kind, name))
    return found


def listens(pool: Pool, context: Context, folder: Path) -> config.ListenTls:
    """What the picker makes of its configuration."""
    file = folder / "epp.yaml"
    file.write_text(yaml.safe_dump(configuration(pool, context)))
    return config.load(file).listen.tls


@pytest.mark.parametrize(
    ("classes", "chosen", "tls"),
    [
        ((), "Auto", False),
        (("mine",), "Auto", False),
        (("envoy-ai-gateway",), "Auto", True),
        (("agentgateway",), "Auto", True),
        (("kgateway",), "Auto", True),
        (("nginx",), "Auto", True),
        (("gke-l7-regional-external-managed",), "Auto", True),
        (("nginx",), "Off", False),
        ((), "SelfSigned", True),
    ],
)
def test_pickers_speak_what_the_gateways_speak(
    classes: tuple[str, ...], chosen: str, tls: bool, make_pool: MakePool, context: Context, tmp_path: Path
) -> None:
    pool, seen = make_pool(routing={"gateway": {"pickerTLS": chosen}}), replace(context, gateway_classes=classes)
    assert listens(pool, seen, tmp_path) == config.ListenTls("self-signed" if tls else "off")
    ports = named("Service", "p-epp", pool, seen)["spec"]["ports"]
    assert [(one["port"], one["appProtocol"]) for one in ports if "ext-proc" in one["name"]] == [
        (9002, "http2" if tls else "kubernetes.io/h2c")
    ]


@pytest.mark.parametrize(
    ("classes", "chosen", "port"),
    [
        (("istio",), "Auto", 9002),
        (("istio",), "Off", 9002),
        (("istio",), "SelfSigned", 9443),
        (("istio", "nginx"), "Auto", 9443),
        (("nginx",), "Auto", 9002),
    ],
)
def test_istio_asks_another_port_for_tls(
    classes: tuple[str, ...], chosen: str, port: int, make_pool: MakePool, context: Context
) -> None:
    pool, seen = make_pool(routing={"gateway": {"pickerTLS": chosen}}), replace(context, gateway_classes=classes)
    made = named("InferencePool", "p", pool, seen)
    assert made["spec"]["endpointPickerRef"]["port"] == {"number": port}


def test_behind_istio_nothing_else_changes_with_what_is_spoken(make_pool: MakePool, context: Context) -> None:
    """Else the change would lose requests: those under way through a rule that changes, and through pickers that go."""
    seen = replace(context, gateway_classes=("istio",))
    before, after = (
        [
            one
            for one in desired(make_pool(routing={"gateway": {"pickerTLS": chosen}}), seen)
            if one["apiVersion"] != "inference.networking.k8s.io/v1"
        ]
        for chosen in ("Off", "SelfSigned")
    )
    assert before == after


def test_pickers_behind_istio_take_both_and_their_service_has_a_port_for_each(
    make_pool: MakePool, context: Context, tmp_path: Path
) -> None:
    pool, seen = make_pool(), replace(context, gateway_classes=("istio",))
    assert listens(pool, seen, tmp_path) == config.ListenTls("self-signed", plaintext=True)
    for service in ("p-epp", "p-epp-pods"):
        ports = named("Service", service, pool, seen)["spec"]["ports"]
        assert [(one["port"], one["targetPort"], one["appProtocol"]) for one in ports if "ext-proc" in one["name"]] == [
            (9002, "grpc-ext-proc", "kubernetes.io/h2c"),
            (9443, "grpc-ext-proc", "http2"),
        ]


def test_istio_is_told_of_both_and_to_ask_no_dead_picker(make_pool: MakePool, context: Context) -> None:
    pool = make_pool()
    rule = named("DestinationRule", "p-epp", pool, replace(context, gateway_classes=("istio",)))
    assert rule["spec"]["host"] == "p-epp"
    ports = rule["spec"]["trafficPolicy"]["portLevelSettings"]
    assert [(one["port"]["number"], one["tls"]["mode"]) for one in ports] == [(9002, "DISABLE"), (9443, "SIMPLE")]
    for one in ports:
        assert one["connectionPool"] == {"tcp": {"connectTimeout": "1s"}}
        assert one["outlierDetection"]["maxEjectionPercent"] == 100
    assert Ref("networking.istio.io/v1", "DestinationRule", "p-epp") in catalogue(pool)


def test_no_other_gateway_gets_one(make_pool: MakePool, context: Context) -> None:
    made = desired(make_pool(), replace(context, gateway_classes=("nginx",)))
    assert "DestinationRule" not in {one["kind"] for one in made}


def test_the_page_on_gateways_shows_the_destination_rule_as_it_is_made(make_pool: MakePool, context: Context) -> None:
    page = (Path(__file__).parents[3] / "docs/gateways.md").read_text()
    shown = yaml.safe_load(page.split("```yaml\n")[1].split("```")[0])
    made = named("DestinationRule", "p-epp", make_pool(), replace(context, gateway_classes=("istio",)))
    assert (shown["apiVersion"], shown["kind"]) == (made["apiVersion"], made["kind"])
    assert shown["spec"]["trafficPolicy"] == made["spec"]["trafficPolicy"]
    assert shown["spec"]["host"] == shown["metadata"]["name"]
