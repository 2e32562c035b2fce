"""A whole cluster for the tests of this folder: a real node on this machine, or the one of KUBECONFIG.

They run on request only (`make e2e` sets MULTIPICK_E2E=1), since they take minutes, and root. The node gets images
built from the users' Dockerfiles; a cluster of KUBECONFIG must be able to pull those that MULTIPICK_IMAGES names (a
prefix, `registry/multipick`, to which /operator:TAG and /epp:TAG are added).
"""

import contextlib
import json
import os
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster.build import UnavailableError
from cluster.client import Namespace
from cluster.images import archives
from cluster.node import Node

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TAG = "0.1.0"
SYSTEM = "multipick-system"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("cluster"))
            item.add_marker(pytest.mark.timeout(1800))
            if not os.environ.get("MULTIPICK_E2E"):
                item.add_marker(pytest.mark.skip(reason="needs a whole cluster: make e2e"))


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where the suite runs. `server` answers `request`, as `cluster.apiserver.ApiServer` does."""

    server: Any
    kubeconfig: Path
    values: dict[str, Any]  # for the chart


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    import helm_python as helm

    with contextlib.ExitStack() as stack:
        home = _foreign(Path(os.environ["KUBECONFIG"])) if os.environ.get("KUBECONFIG") else _own(stack)
        with helm.Config(kubeconfig_path=str(home.kubeconfig), namespace=SYSTEM) as config:
            config.install(str(ROOT / "charts/multipick"), "multipick", home.values, create_namespace=True)
            try:
                yield home
            finally:
                config.uninstall("multipick")


def _own(stack: contextlib.ExitStack) -> Cluster:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mpk-", ignore_cleanup_errors=True)))
    node = Node(folder)
    try:
        images = archives(TAG)
        stack.callback(node.stop)
        node.start()
    except UnavailableError as error:
        pytest.skip(str(error))
    for image in images:
        node.load(image)
    values = {
        "operator": {"image": {"repository": "localhost/multipick/operator", "tag": TAG}},
        "picker": {"image": {"repository": "localhost/multipick/epp", "tag": TAG}},
        "valkey": {"image": "localhost/valkey:wheel", "persistence": {"enabled": False}},
        "gateway": {
            "enabled": True,
            "image": "localhost/envoy:wheel",
            "replicas": 1,
            "drainSeconds": 5,
            "pool": {"name": "demo", "namespace": "default"},
        },
    }
    return Cluster(node.server, node.server.kubeconfig, values)


def _foreign(kubeconfig: Path) -> Cluster:
    prefix = os.environ.get("MULTIPICK_IMAGES", "multipick")
    values = {
        "operator": {"image": {"repository": f"{prefix}/operator", "tag": TAG}},
        "picker": {"image": {"repository": f"{prefix}/epp", "tag": TAG}},
        "valkey": {"persistence": {"enabled": False}},
        "gateway": {"enabled": True, "replicas": 1, "pool": {"name": "demo", "namespace": "default"}},
    }
    return Cluster(Proxied(kubeconfig), kubeconfig, values)


class Proxied:
    """The API server of a kubeconfig, by its certificates or token."""

    def __init__(self, kubeconfig: Path) -> None:
        import kopf

        os.environ["KUBECONFIG"] = str(kubeconfig)
        found = kopf.login_with_kubeconfig(settings=kopf.OperatorSettings())
        if found is None:
            pytest.skip(f"{kubeconfig} gives no access")
        self._info = found
        self._context = found.as_ssl_context()

    def request(self, method: str, path: str, body: object = None, content: str = "application/json") -> Any:
        data = (
            None if body is None else yaml.safe_dump(body).encode() if "yaml" in content else json.dumps(body).encode()
        )
        request = urllib.request.Request(urllib.parse.urljoin(self._info.server, path), data, method=method)
        for name, value in {**self._info.as_http_headers(), "content-type": content}.items():
            request.add_header(name, value)
        with urllib.request.urlopen(request, context=self._context, timeout=30) as response:
            return yaml.safe_load(response.read())

    def apply(self, path: str, manifest: object) -> Any:
        return self.request("PATCH", f"{path}?fieldManager=tests&force=true", manifest, "application/apply-patch+yaml")


@pytest.fixture
def default(cluster: Cluster) -> Namespace:
    """The namespace of the pool that the gateway serves."""
    return Namespace(cluster.server, "default")


@pytest.fixture
def system(cluster: Cluster) -> Namespace:
    """The release's namespace."""
    return Namespace(cluster.server, SYSTEM)
