"""What the Gateway API Inference Extension asks of gateways and their pickers, asked of Istio with ours.

Its own suite, unmodified and whole, with our picker in the place of the reference one, by that one's flags. Each of its
tests is one here, by its name.
"""

import re
from collections.abc import Mapping

import pytest
from cluster.apiserver import ApiServer
from cluster.build import UnavailableError
from cluster.conformance import Outcome, images, run
from cluster.homes import Home

PASSING = (
    "EppUnAvailableFailOpen",
    "GatewayDestinationEndpointServed",
    "GatewayFollowingEPPRouting",
    "GatewayFollowingEPPRoutingWithDataParallelism",
    "HTTPRouteInvalidInferencePoolRef",
    "HTTPRouteMultipleGatewaysDifferentPools",
    "HTTPRouteMultipleRulesDifferentPools",
    "InferencePoolAccepted",
    "InferencePoolAppProtocol",
    "InferencePoolHTTPRoutePortValidation",
    "InferencePoolInvalidEPPService",
    "InferencePoolMissingEPPRef",
    "InferencePoolResolvedRefsCondition",
)
WEIGHTED = "GatewayWeightedAcrossTwoInferencePools"


@pytest.fixture(scope="module")
def outcomes(cluster: Home, istio: ApiServer) -> Mapping[str, Outcome]:
    assert cluster.load is not None
    try:
        for image in images():
            cluster.load(image)
    except UnavailableError as error:
        pytest.skip(str(error))
    return run(istio)


@pytest.mark.parametrize("name", PASSING)
def test_of_the_suite_passes(name: str, outcomes: Mapping[str, Outcome]) -> None:
    assert outcomes[name].result == "pass", outcomes[name].log[-4000:]


def test_weights_over_two_pools_fail_since_istio_asks_one_picker_for_both(outcomes: Mapping[str, Outcome]) -> None:
    """Its configuration of a route rule has room for one picker, the last pool's, which knows no pod of the first."""
    found = outcomes[WEIGHTED]
    assert found.result == "fail", found.log[-4000:]
    assert re.findall(r"Warming up pod (\w+)-", found.log) == ["primary"], found.log[-4000:]  # the test got no further
    refusals = re.findall(r"got (\d+)\. .*X-Multipick-Drop-Reason:\[([\w-]+)\]", found.log)
    assert refusals, found.log[-4000:]
    assert set(refusals) == {("503", "no-endpoint-in-subset")}, found.log[-4000:]


def test_the_suite_has_no_other_tests(outcomes: Mapping[str, Outcome]) -> None:
    assert sorted(outcomes) == sorted((*PASSING, WEIGHTED))
