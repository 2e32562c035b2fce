"""Istio's control plane as a process of the node's machine: Gateways of the class `istio` become stock Envoys.

It doesn't see the namespaces of the other tests, for it writes into all that it sees. TLS among pods, and what only
Istio's own build of Envoy knows, is off: a stock Envoy would wait for it for ever, or refuse it.
"""

import contextlib
import json
import os
import subprocess
import time
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from cluster.apiserver import ApiServer, end
from cluster.build import HERE, binaries, module_folder
from cluster.homes import NAMESPACES, SYSTEM
from cluster.node import ADDRESS

CLASS = "istio"
ADMIN_PORT = 15000  # of each gateway's Envoy
ROOT_NAMESPACE = "istio-system"  # a DestinationRule here is for all
_FILES = HERE / "istiod"
_GATEWAY_API = ("sigs.k8s.io/gateway-api", "v1.6.1")
_ENVIRONMENT = {
    "ENABLE_GATEWAY_API_INFERENCE_EXTENSION": "true",
    "PILOT_ENABLE_METADATA_EXCHANGE": "false",
    "PILOT_ENABLE_ALPN_FILTER": "false",
    "POD_NAME": "istiod-host",
    "POD_NAMESPACE": ROOT_NAMESPACE,
    "CLUSTER_ID": "Kubernetes",
    "REVISION": "default",
}
_PORTS = {"grpcAddr": 15010, "secureGRPCAddr": 15012, "monitoringAddr": 15014, "httpsAddr": 15017, "httpAddr": 15080}
_PATIENCE_S = 60.0


@contextlib.contextmanager
def istiod(server: ApiServer, folder: Path, image: str) -> Iterator[None]:
    """It runs, with its CRDs and its class; `image` has Envoy, `folder` takes its files and its log.

    Raises UnavailableError where it can't be built, RuntimeError with its log where it doesn't start.
    """
    program = binaries(["pilot-discovery"])["pilot-discovery"]
    for crd in (*gateway_api(), *_own()):
        server.install(crd)
    system = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": ROOT_NAMESPACE}}
    server.apply(f"/api/v1/namespaces/{ROOT_NAMESPACE}", system)
    _configure(folder, image)
    addresses = [f"--{name}={ADDRESS}:{port}" for name, port in _PORTS.items()]
    command = [str(program), "discovery", f"--kubeconfig={server.kubeconfig}", "--domain=cluster.local"]
    with (folder / "istiod.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--meshConfig=./etc/istio/config/mesh", f"--ctrlz_address={ADDRESS}", *addresses],
            cwd=folder,
            env=os.environ | _ENVIRONMENT,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait_for_class(server, process, folder / "istiod.log")
        yield
    finally:
        end(process)


def _configure(folder: Path, image: str) -> None:
    """What istiod reads below its working folder."""
    template = (_FILES / "kube-gateway.tpl").read_text().replace("@IMAGE@", image).replace("@ISTIOD@", ADDRESS)
    others = {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": [SYSTEM, *NAMESPACES]}
    mesh = {
        "enableAutoMtls": False,
        "defaultConfig": {"discoveryAddress": f"{ADDRESS}:{_PORTS['grpcAddr']}"},
        "discoverySelectors": [{"matchExpressions": [others]}],
    }
    injection = {"policy": "disabled", "defaultTemplates": ["sidecar"], "templates": {"kube-gateway": template}}
    values = {
        "global": {"proxy": {"image": image, "clusterDomain": "cluster.local"}, "imagePullPolicy": "Never"},
        "gateways": {},
        "revision": "",
    }
    for file, content in (
        ("etc/istio/config/mesh", mesh),
        ("var/lib/istio/inject/config", injection),
        ("var/lib/istio/inject/values", values),
    ):
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))  # which is YAML, too


def gateway_api() -> Iterator[Any]:
    """Its standard CRDs."""
    for file in sorted((module_folder(*_GATEWAY_API) / "config/crd/standard").glob("*.yaml")):
        yield from _crds(file)


def _own() -> Iterator[Any]:
    """Istio's; its version stands in go.mod."""
    required = next(line for line in (_FILES / "go.mod").read_text().splitlines() if line.startswith("require "))
    _, module, version = required.split()
    yield from _crds(module_folder(module, version) / "manifests/charts/base/files/crd-all.gen.yaml")


def _crds(file: Path) -> Iterator[Any]:
    for one in yaml.load_all(file.read_text(), yaml.CSafeLoader):
        if one and one["kind"] == "CustomResourceDefinition":
            yield one


def _wait_for_class(server: ApiServer, process: subprocess.Popen[bytes], log: Path) -> None:
    path = f"/apis/gateway.networking.k8s.io/v1/gatewayclasses/{CLASS}"
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(urllib.error.HTTPError):
            conditions = server.request("GET", path).get("status", {}).get("conditions", [])
            if any(one["type"] == "Accepted" and one["status"] == "True" for one in conditions):
                return
        time.sleep(0.1)
    raise RuntimeError(f"istiod takes up no Gateways:\n{log.read_text()[-2000:]}")
