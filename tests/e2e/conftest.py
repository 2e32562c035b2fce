"""A whole cluster for the tests of this folder, with the chart on it; where it comes from, `cluster/homes.py` says.

They run on request only (`make e2e` sets MULTIPICK_E2E=1), since they take minutes, and root. The chart is three
releases: `multipick` (operator, Valkey), and a gateway each for the pools of two namespaces. The pool of the first is
made once: each test finds it as `cluster.pools.spec` says, with two engines that serve, and may leave it otherwise.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster.apiserver import ApiServer
from cluster.build import UnavailableError
from cluster.client import Namespace, until
from cluster.homes import NAMESPACES, SYSTEM, Home, home
from cluster.istio import istiod
from cluster.load import PATIENCE_S, Gateway
from cluster.pools import POOL, serves, spec
from cluster.release import Release, release

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("cluster"))
            item.add_marker(pytest.mark.timeout(2700))  # the first may have to build the cluster
            if not os.environ.get("MULTIPICK_E2E"):
                item.add_marker(pytest.mark.skip(reason="needs a whole cluster: make e2e"))


@pytest.fixture(scope="session")
def cluster() -> Iterator[Home]:
    made = home()
    try:
        found = made.__enter__()
    except UnavailableError as error:
        pytest.skip(str(error))
    try:
        yield found
    finally:
        made.__exit__(None, None, None)


@pytest.fixture(scope="session")
def system(cluster: Home) -> Namespace:
    """The namespace of all releases."""
    return Namespace(cluster.server, SYSTEM)


@pytest.fixture(scope="session")
def multipick(cluster: Home, system: Namespace) -> Iterator[Release]:
    """Operator and Valkey."""
    with release("multipick", system, cluster.values) as made:
        yield made


@pytest.fixture(scope="session")
def namespace(cluster: Home) -> Namespace:
    """Of the pool that most tests are about."""
    return _made(cluster, NAMESPACES[0])


@pytest.fixture(scope="session")
def neighbours(cluster: Home) -> Namespace:
    """Of a pool of the same name."""
    return _made(cluster, NAMESPACES[1])


@pytest.fixture(scope="session")
def gateway(cluster: Home, multipick: Release, namespace: Namespace) -> Iterator[Release]:
    with release("front", multipick.namespace, _gateway(cluster, namespace)) as made:
        yield made


@pytest.fixture(scope="session")
def neighbours_gateway(cluster: Home, multipick: Release, neighbours: Namespace) -> Iterator[Release]:
    with release("side", multipick.namespace, _gateway(cluster, neighbours)) as made:
        yield made


@pytest.fixture(scope="module")
def istio(cluster: Home, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """Istio's control plane, in front of the suite's own node."""
    if not isinstance(cluster.server, ApiServer):
        pytest.skip("istiod runs beside the suite's own node only")
    made = istiod(cluster.server, tmp_path_factory.mktemp("istiod"), cluster.values["gateway"]["image"])
    try:
        made.__enter__()
    except UnavailableError as error:
        pytest.skip(str(error))
    try:
        yield cluster.server
    finally:
        made.__exit__(None, None, None)


@pytest.fixture
async def pool(cluster: Home, namespace: Namespace, gateway: Release) -> Gateway:
    """The gateway, with the pool behind it as `spec` says."""
    await namespace.apply(POOL, **spec(cluster.accelerator))
    await serves(namespace)
    found = Gateway(gateway.namespace, "front-multipick-gateway", cluster.image)
    await until(found.answers, bool, PATIENCE_S)  # Envoy asks the name server for a new pool by and by
    return found


def _made(cluster: Home, name: str) -> Namespace:
    manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    cluster.server.apply(f"/api/v1/namespaces/{name}", manifest)
    return Namespace(cluster.server, name)


def _gateway(cluster: Home, namespace: Namespace) -> dict[str, Any]:
    """Values of a release that is a gateway alone."""
    off = {"enabled": False}
    front = cluster.values["gateway"] | {"enabled": True, "pool": {"name": POOL, "namespace": namespace.name}}
    return {"operator": off, "valkey": off, "crds": {"install": False}, "gateway": front}
