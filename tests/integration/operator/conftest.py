"""A real kube-apiserver for the tests of this folder; they are skipped, with the reason, where it can't be had."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.apiserver import ApiServer
from cluster.build import UnavailableError
from multipick_operator.api.crd import crd


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One worker runs them all, with one server; the first of them may have to build it."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("apiserver"))
            item.add_marker(pytest.mark.timeout(1800))


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    server = ApiServer(tmp_path_factory.mktemp("apiserver"))
    try:
        server.start()
    except UnavailableError as error:
        pytest.skip(str(error))
    try:
        server.apply("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/inferencepools.multipick.dev", crd())
        yield server
    finally:
        server.stop()
