"""The conformance suite of the Gateway API Inference Extension, unmodified, over our picker in the place of its own.

It runs beside the node, with the node's name server: a Gateway's address is the name of its Service.
"""

import os
import re
import subprocess
from pathlib import Path

from cluster.apiserver import ApiServer
from cluster.build import binaries
from cluster.istio import CLASS
from cluster.node import ADDRESS

_NAMESPACE = "inference-conformance-app-backend"
_PICKERS = ("primary", "secondary", "appprotocol-http", "appprotocol-h2c", "dp")
_RESULT = re.compile(r"^    --- (PASS|FAIL|SKIP): TestConformance/(\w+) ", re.MULTILINE)
_TIMEOUT_S = 1500


def run(server: ApiServer, folder: Path) -> dict[str, str]:
    """Each test of the suite and what came of it: PASS, FAIL or SKIP; its log is in `folder`."""
    program = binaries(["gie-conformance"])["gie-conformance"]
    server.apply(
        f"/api/v1/namespaces/{_NAMESPACE}",
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": _NAMESPACE}},
    )
    for picker in _PICKERS:
        _speak_tls(server, f"{picker}-endpoint-picker-svc")
    resolver = folder / "resolv.conf"
    resolver.write_text(f"nameserver {ADDRESS}\n")
    log = folder / "conformance.log"
    flags = (f"-gateway-class={CLASS}", "-test.v", f"-test.timeout={_TIMEOUT_S}s")
    inside = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'
    with log.open("wb") as output:
        subprocess.run(
            ["unshare", "--mount", "sh", "-c", inside, str(resolver), str(program), *flags],
            env={"KUBECONFIG": str(server.kubeconfig), "PATH": os.defpath},
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,  # one test fails by the gateway
        )
    return {name: result for result, name in _RESULT.findall(log.read_text())}


def _speak_tls(server: ApiServer, service: str) -> None:
    """Pickers of the suite's manifests speak TLS; Istio has to be told."""
    path = f"/apis/networking.istio.io/v1/namespaces/{_NAMESPACE}/destinationrules/{service}"
    policy = {"tls": {"mode": "SIMPLE", "insecureSkipVerify": True}}
    rule = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "DestinationRule",
        "metadata": {"name": service},
        "spec": {"host": service, "trafficPolicy": policy},
    }
    server.apply(path, rule)
