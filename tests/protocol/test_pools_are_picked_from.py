"""The real decision behind the real Envoy: the whole pool, subsets in each form, and the conformance suite's hooks."""

from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from multipick_epp.decision.picker import DecisionOptions, PoolPicker
from multipick_epp.decision.prompts import PromptReader
from multipick_epp.extproc.driver import StreamOptions
from multipick_epp.pods.endpoints import PodEndpoint
from multipick_epp.pods.failures import Failures
from multipick_epp.pods.registry import Registry
from multipick_epp.policy.registry import policy
from multipick_epp.state.memory import MemoryState
from multipick_epp.telemetry.metrics import Metrics
from multipick_epp.types import ReplicaId

if TYPE_CHECKING:
    from tests.protocol.conftest import Gateway, StartGateway

both_styles = pytest.mark.parametrize("style", ["standalone", "gateway"])
KEY = "x-gateway-destination-endpoint-subset"
SELECTION = "test-epp-endpoint-selection"
SERVED = "x-conformance-test-served-endpoint"


def decide_by_a_pool(gateway: "Gateway", destinations: int = 1) -> Registry:
    """Gives the gateway a real picker of its upstreams; the registry says who is ready."""
    registry, state = Registry(), MemoryState()
    registry.set([PodEndpoint(upstream.endpoint) for upstream in gateway.upstreams])
    for upstream in gateway.upstreams:
        registry.mark(upstream.endpoint, True)
    reader = PromptReader(None, [], b"", lambda: [16], Metrics().stage_seconds)
    failures = Failures(registry, state, lambda endpoint: None, lambda: 0.0)
    options = DecisionOptions("round-robin", policy("round-robin"), 1.0, destinations)
    real = PoolPicker(options, ReplicaId("me"), state, registry, failures, reader, Metrics(), Random(1))
    gateway.picker.decide = real.pick
    return registry


def hinting(value: object) -> Any:
    """Edits a bootstrap: the gateway sends this subset hint."""

    def set_hint(config: dict[str, Any]) -> None:
        chain = config["static_resources"]["listeners"][0]["filter_chains"][0]
        metadata = {"metadata_namespace": "envoy.lb.subset_hint", "value": {KEY: value}}
        typed = {"@type": "type.googleapis.com/envoy.extensions.filters.http.set_metadata.v3.Config"}
        filters = chain["filters"][0]["typed_config"]["http_filters"]
        filters.insert(0, {"name": "envoy.filters.http.set_metadata", "typed_config": typed | {"metadata": [metadata]}})

    return set_hint


async def ask(
    gateway: "Gateway", headers: dict[str, str] | None = None, times: int = 4
) -> list[tuple[int, str | None]]:
    answers = []
    for _ in range(times):
        async with gateway.http.post("/v1/completions", data=b'{"prompt":"hi"}', headers=headers) as response:
            await response.read()
            answers.append((response.status, response.headers.get(SERVED)))
    return answers


@both_styles
@pytest.mark.requirement("protocol: Without a subset hint all of the InferencePool is selected from.")
async def test_without_a_hint_all_of_the_pool_is_picked_from(style: Any, start_gateway: "StartGateway") -> None:
    gateway = await start_gateway(style)
    decide_by_a_pool(gateway)
    assert await ask(gateway) == [(200, None)] * 4
    assert [len(upstream.received) for upstream in gateway.upstreams] == [2, 2]


@both_styles
@pytest.mark.parametrize("form", ["list", "comma string", "list with strangers"])
@pytest.mark.requirement("protocol: With a subset hint only endpoints of the list are selected.")
@pytest.mark.requirement("gateways: A subset hint may be a list or a comma string, of ip:port or ip.")
async def test_a_hint_is_obeyed_in_each_form(
    style: Any, form: str, start_gateway: "StartGateway", monkeypatch: pytest.MonkeyPatch
) -> None:
    hint: dict[str, Any] = {}

    def change(config: dict[str, Any]) -> None:
        pool = config["static_resources"]["clusters"][0]["load_assignment"]["endpoints"][0]["lb_endpoints"]
        port = pool[0]["endpoint"]["address"]["socket_address"]["port_value"]
        only = f"127.0.0.1:{port}"
        forms = {"list": [only], "comma string": f" {only} , 10.9.9.9:1", "list with strangers": ["10.9.9.9", only]}
        hint["only"] = only
        hinting(forms[form])(config)

    gateway = await start_gateway(style, change=change)
    decide_by_a_pool(gateway)
    assert await ask(gateway) == [(200, None)] * 4
    assert gateway.upstreams[0].endpoint == hint["only"]
    assert [len(upstream.received) for upstream in gateway.upstreams] == [4, 0]


@both_styles
@pytest.mark.requirement("gateways: A subset hint may be a list or a comma string, of ip:port or ip.")
async def test_a_bare_address_stands_for_all_its_ports(style: Any, start_gateway: "StartGateway") -> None:
    gateway = await start_gateway(style, change=hinting(["127.0.0.1"]))
    decide_by_a_pool(gateway)
    assert await ask(gateway) == [(200, None)] * 4
    assert [len(upstream.received) for upstream in gateway.upstreams] == [2, 2]


@both_styles
@pytest.mark.parametrize("hint", [[], "", ["10.9.9.9:8000"], None, 7], ids=["empty", "blank", "strangers", "null", "7"])
@pytest.mark.requirement("protocol: Where none of the subset hint is eligible, or it is empty: ImmediateResponse 503.")
async def test_a_hint_without_an_eligible_endpoint_is_a_503(
    style: Any, hint: object, start_gateway: "StartGateway"
) -> None:
    gateway = await start_gateway(style, change=hinting(hint))
    decide_by_a_pool(gateway)
    assert await ask(gateway, times=1) == [(503, None)]
    assert not gateway.received


@both_styles
@pytest.mark.requirement("protocol: No ready endpoint is an ImmediateResponse 503.")
async def test_a_pool_of_which_nothing_is_ready_is_a_503(style: Any, start_gateway: "StartGateway") -> None:
    gateway = await start_gateway(style)
    registry = decide_by_a_pool(gateway)
    for upstream in gateway.upstreams:
        registry.mark(upstream.endpoint, False)
    async with gateway.http.get("/v1/models") as response:
        assert (response.status, response.headers["retry-after"]) == (503, "2")
    assert not gateway.received


@both_styles
@pytest.mark.requirement("suite: The header test-epp-endpoint-selection chooses among the picker's own endpoints.")
@pytest.mark.requirement("suite: The endpoint that served is told in x-conformance-test-served-endpoint.")
async def test_the_suites_hooks_choose_and_tell_who_served(style: Any, start_gateway: "StartGateway") -> None:
    gateway = await start_gateway(style, settings=StreamOptions(conformance=True))
    decide_by_a_pool(gateway)
    for upstream in gateway.upstreams:
        chosen = await ask(gateway, {SELECTION: f"{upstream.endpoint}, 10.9.9.9:3000"})
        assert chosen == [(200, upstream.endpoint)] * 4
    assert {served for _, served in await ask(gateway, {SELECTION: "127.0.0.1"})} == {
        upstream.endpoint for upstream in gateway.upstreams
    }
    assert (await ask(gateway, {SELECTION: "10.9.9.9"}, times=1))[0][0] == 503
    async with gateway.http.get(
        "/primary-gateway-test", headers={SELECTION: gateway.upstreams[0].endpoint}
    ) as response:
        assert response.headers[SERVED] == gateway.upstreams[0].endpoint


@both_styles
@pytest.mark.requirement("suite: Without --conformance no client chooses its endpoint.")
async def test_the_hooks_are_not_there_unless_asked_for(style: Any, start_gateway: "StartGateway") -> None:
    gateway = await start_gateway(style)
    decide_by_a_pool(gateway)
    assert await ask(gateway, {SELECTION: gateway.upstreams[0].endpoint}) == [(200, None)] * 4
    assert [len(upstream.received) for upstream in gateway.upstreams] == [2, 2]
