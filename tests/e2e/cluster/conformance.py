"""The conformance suite of the Gateway API Inference Extension, unmodified, over our picker in the place of its own.

Its manifests make Gateways, pools, echo servers and a picker for each pool, by the names of two images; the node has
those beforehand, and one of them is ours. The suite itself runs in a pod, and reaches Gateways as any client does.
"""

import json
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from cluster.apiserver import ApiServer
from cluster.build import binaries, module_folder
from cluster.homes import EXTENSION, TAG
from cluster.images import binary, stand_in
from cluster.istio import CLASS, ROOT_NAMESPACE

_SUITE = (f"{EXTENSION[0]}/conformance", EXTENSION[1])
_IMAGE = "localhost/gie-conformance:go"
_NAME = "gie-conformance"
_TIMEOUT_S = 900
_OPTIONS = {
    "gatewayClassName": CLASS,
    # the most that a conformant gateway may take; the suite's own default is ten times as long, for clouds
    "timeoutConfig": {"maxTimeToConsistency": "30s"},
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one of the suite's tests."""

    result: str  # pass, fail or skip
    log: str


def images() -> list[Path]:
    """The suite's own, and those that its manifests name. Raises UnavailableError where they can't be made."""
    named = {
        container["image"]
        for manifest in _manifests("Deployment")
        for container in manifest["spec"]["template"]["spec"]["containers"]
    }
    echo, picker = (next(image for image in named if f"/{name}:" in image) for name in ("echo-basic", "lwepp"))
    programs = binaries(["conformance.test", "echo-basic"])
    return [
        binary(_IMAGE, programs["conformance.test"], "scratch"),
        binary(echo, programs["echo-basic"], "scratch"),
        stand_in(picker, TAG, "--conformance"),
    ]


def run(server: ApiServer) -> dict[str, Outcome]:
    """Each test of the suite, by name. Raises RuntimeError with its log where it began none."""
    for pool in _manifests("InferencePool"):
        _speak_tls(server, f"{pool['spec']['endpointPickerRef']['name']}.{pool['metadata']['namespace']}")
    namespace = f"/api/v1/namespaces/{_NAME}"
    binding = f"/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/{_NAME}"
    server.apply(namespace, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": _NAME}})
    server.apply(binding, _administrator())
    server.apply(f"{namespace}/configmaps/options", _options())
    try:
        server.apply(f"{namespace}/pods/suite", _pod())
        _wait(server, f"{namespace}/pods/suite")
        log = server.read(f"{namespace}/pods/suite/log")
    finally:
        server.request("DELETE", binding)
        server.request("DELETE", namespace)
    found = _outcomes(log)
    if not found:
        raise RuntimeError(f"the suite began no test:\n{log[-4000:].decode(errors='replace')}")
    return found


def _wait(server: ApiServer, pod: str) -> None:
    deadline = time.monotonic() + _TIMEOUT_S + 60
    while (phase := server.request("GET", pod)["status"].get("phase")) not in ("Succeeded", "Failed"):
        if time.monotonic() > deadline:
            raise RuntimeError(f"the suite's pod is still {phase}")
        time.sleep(0.5)


def _outcomes(log: bytes) -> dict[str, Outcome]:
    results: dict[str, str] = {}
    said: defaultdict[str, list[str]] = defaultdict(list)
    events = subprocess.run(["go", "tool", "test2json"], input=log, capture_output=True, check=True).stdout
    for event in map(json.loads, events.splitlines()):
        _, name, inner = (*event.get("Test", "").split("/", 2), "", "")[:3]
        if event["Action"] == "output":
            said[name].append(event["Output"])
        elif name and not inner and event["Action"] in ("pass", "fail", "skip"):
            results[name] = event["Action"]
    return {name: Outcome(result, "".join(said[name])) for name, result in results.items()}


def _manifests(kind: str) -> Iterator[Mapping[str, Any]]:
    """Of what the suite makes first."""
    for one in yaml.load_all((module_folder(*_SUITE) / "resources/base.yaml").read_text(), yaml.CSafeLoader):
        if one and one["kind"] == kind:
            yield one


def _speak_tls(server: ApiServer, service: str) -> None:
    """Pickers of the suite's manifests speak TLS; Istio has to be told, as its users tell it."""
    path = f"/apis/networking.istio.io/v1/namespaces/{ROOT_NAMESPACE}/destinationrules/{service}"
    policy = {"tls": {"mode": "SIMPLE", "insecureSkipVerify": True}}
    rule = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "DestinationRule",
        "metadata": {"name": service},
        "spec": {"host": f"{service}.svc.cluster.local", "trafficPolicy": policy},
    }
    server.apply(path, rule)


def _administrator() -> Mapping[str, Any]:
    """The suite makes namespaces, Gateways and rights."""
    group = "rbac.authorization.k8s.io"
    return {
        "apiVersion": f"{group}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": _NAME},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": _NAME}],
    }


def _options() -> Mapping[str, Any]:
    data = {"options.yaml": json.dumps(_OPTIONS)}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "options"}, "data": data}


def _pod() -> Mapping[str, Any]:
    container = {
        "name": "suite",
        "image": _IMAGE,
        "imagePullPolicy": "Never",
        "args": [
            "-conformance-options-file=/options/options.yaml",
            "-test.v=test2json",
            f"-test.timeout={_TIMEOUT_S}s",
        ],
        "volumeMounts": [{"name": "options", "mountPath": "/options"}],
    }
    volumes = [{"name": "options", "configMap": {"name": "options"}}]
    spec = {"restartPolicy": "Never", "containers": [container], "volumes": volumes}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "suite"}, "spec": spec}
