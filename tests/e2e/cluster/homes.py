"""Three homes for one suite: a node that is started here, a kind cluster, and the cluster of a kubeconfig.

Run as a program (`make e2e-cluster`) it keeps the first alive and says how the suite, or kubectl, gets at it.
"""

import contextlib
import os
import signal
import sys
import tempfile
import time
import urllib.error
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from cluster import packages
from cluster.apiserver import ApiServer
from cluster.build import UnavailableError, module_folder
from cluster.images import archives
from cluster.kind import kind
from cluster.load import PATIENCE_S
from cluster.node import Node
from cluster.remote import Remote

TAG = "0.1.0"
SYSTEM = "multipick-e2e-system"
NAMESPACES = ("multipick-e2e", "multipick-e2e-neighbours")
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
OURS = f"{CRDS}/inferencepools.multipick.dev"
GPU = "nvidia.com/gpu"
STAND_IN = "multipick.dev/e2e-accelerator"  # on a cluster that is not ours no test takes a GPU
ACCELERATORS = 4
EXTENSION = ("sigs.k8s.io/gateway-api-inference-extension", "v1.6.0")


@dataclass(frozen=True, slots=True)
class Home:
    """A cluster to test on. The extended resource `accelerator` is there four times, on one node."""

    server: ApiServer | Remote
    values: dict[str, Any]  # for the chart
    accelerator: str
    load: Callable[[Path], None] | None = None  # gives the node an image; None: it pulls from a registry

    @property
    def image(self) -> str:
        """The picker's: it has a Python with aiohttp."""
        image = self.values["picker"]["image"]
        return f"{image['repository']}:{image['tag']}"


@contextlib.contextmanager
def home() -> Iterator[Home]:
    """The one that KUBECONFIG names, else kind where MULTIPICK_E2E says so, else a node of our own."""
    if path := os.environ.get("KUBECONFIG"):
        with _foreign(Path(path)) as found:
            yield found
    elif os.environ.get("MULTIPICK_E2E") == "kind":
        with kind(TAG) as kubeconfig, _foreign(kubeconfig, GPU) as found:
            yield found
    else:
        with _own() as found:
            yield found


@contextlib.contextmanager
def _own() -> Iterator[Home]:
    packages.provide({**packages.NODE, **packages.IMAGES})
    packages.check_kernel()
    images = archives(TAG)
    with tempfile.TemporaryDirectory(prefix="mpk-", ignore_cleanup_errors=True) as folder:
        node = Node(Path(folder), {GPU: ACCELERATORS})
        try:
            node.start(_extension())
            for image in images:
                node.load(image)
            yield Home(node.server, _values("localhost/multipick", _local_images()), GPU, node.load)
        finally:
            node.stop()


@contextlib.contextmanager
def _foreign(kubeconfig: Path, accelerator: str = STAND_IN) -> Iterator[Home]:
    """Images are pulled from $MULTIPICK_IMAGES; further values of the chart stand in the file $MULTIPICK_E2E_VALUES."""
    server = Remote(kubeconfig)
    more = os.environ.get("MULTIPICK_E2E_VALUES")
    values = _values(
        os.environ.get("MULTIPICK_IMAGES", "multipick"), yaml.safe_load(Path(more).read_text()) if more else {}
    )
    with contextlib.ExitStack() as stack:
        installed = [one["metadata"]["name"] for one in server.request("GET", CRDS)["items"]]
        for crd in _extension():
            name = crd["metadata"]["name"]
            if name not in installed:
                server.apply(f"{CRDS}/{name}", crd)
                stack.callback(_delete, server, f"{CRDS}/{name}")
        if OURS.rpartition("/")[2] in installed:
            raise UnavailableError(f"{server.url} has multipick already: the suite brings its own")
        for namespace in (SYSTEM, *NAMESPACES):
            stack.callback(_delete, server, f"/api/v1/namespaces/{namespace}")
        stack.callback(_delete, server, OURS)  # with all pools, before their namespaces
        node = server.request("GET", "/api/v1/nodes")["items"][-1]["metadata"]["name"]
        _advertise(server, node, {accelerator: str(ACCELERATORS)})
        stack.callback(_advertise, server, node, {accelerator: None})
        yield Home(server, values, accelerator)


def _delete(server: Remote, path: str) -> None:
    """And wait until it is gone, where it was."""
    deadline = time.monotonic() + PATIENCE_S
    with contextlib.suppress(urllib.error.HTTPError):
        server.request("DELETE", path)
        while time.monotonic() < deadline:
            server.request("GET", path)
            time.sleep(0.2)


def _advertise(server: Remote, node: str, resources: dict[str, str | None]) -> None:
    status = {"status": {"capacity": resources, "allocatable": resources}}
    server.request("PATCH", f"/api/v1/nodes/{node}/status", status, "application/merge-patch+json")


def _extension() -> list[dict[str, Any]]:
    """The CRD of the Gateway API's InferencePool."""
    folder = module_folder(*EXTENSION) / "config/crd/bases"
    return [yaml.safe_load((folder / "inference.networking.k8s.io_inferencepools.yaml").read_text())]


def _values(prefix: str, more: dict[str, Any]) -> dict[str, Any]:
    """Small, quick to drain, and without a volume; `more` goes one level deep."""
    values: dict[str, Any] = {
        "operator": {"image": {"repository": f"{prefix}/operator", "tag": TAG}},
        "picker": {"image": {"repository": f"{prefix}/epp", "tag": TAG}},
        "valkey": {"persistence": {"enabled": False}},
        "gateway": {"replicas": 1, "drainSeconds": 5},
    }
    return values | {section: values.get(section, {}) | settings for section, settings in more.items()}


def _local_images() -> dict[str, Any]:
    return {"valkey": {"image": "localhost/valkey:wheel"}, "gateway": {"image": "localhost/envoy:wheel"}}


def main() -> None:
    """Keep a node until interrupted."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with _own() as found, tempfile.TemporaryDirectory() as folder:
        values = Path(folder) / "values.yaml"
        values.write_text(yaml.safe_dump(_local_images()))
        images = f"MULTIPICK_IMAGES=localhost/multipick MULTIPICK_E2E_VALUES={values}"
        print(f"KUBECONFIG={found.server.kubeconfig} {images} make e2e", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                time.sleep(3600)


if __name__ == "__main__":
    try:
        main()
    except UnavailableError as error:
        sys.exit(str(error))
