"""Envoy Gateway as a release of its own chart, with its program built of Go modules and stock Envoys as its proxies."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import yaml
from cluster.apiserver import ApiServer
from cluster.build import HERE, binaries, module_folder
from cluster.homes import Home
from cluster.images import binary
from cluster.istio import gateway_api

SYSTEM = "envoy-gateway-system"
IMAGE = "localhost/envoy-gateway:go"


@contextlib.contextmanager
def envoy_gateway(cluster: Home, folder: Path) -> Iterator[None]:
    """Installed in the block, on the suite's own node. Raises UnavailableError where it can't be built."""
    import helm_python as helm

    assert cluster.load is not None
    assert isinstance(cluster.server, ApiServer)
    source = _source()
    cluster.load(binary(IMAGE, binaries(["envoy-gateway"])["envoy-gateway"], "scratch"))
    for crd in gateway_api():
        cluster.server.install(crd)
    for file in sorted((source / "charts/gateway-helm/charts/crds/crds/generated").glob("*.yaml")):
        cluster.server.install(yaml.load(file.read_text(), yaml.CSafeLoader))
    chart = _chart(source, folder)
    proxy = {"image": cluster.values["gateway"]["image"], "pullPolicy": "IfNotPresent"}
    values = {"crds": {"enabled": False}, "global": {"images": {"envoyProxy": proxy}}}
    with helm.Config(kubeconfig_path=str(cluster.server.kubeconfig), namespace=SYSTEM) as config:
        config.install(str(chart), "eg", values, create_namespace=True)
        try:
            yield
        finally:
            config.uninstall("eg", ignore_not_found=True)
            cluster.server.request("DELETE", f"/api/v1/namespaces/{SYSTEM}")  # the proxies are no part of the release


def _source() -> Path:
    """Of the version in go.mod."""
    required = next(
        line for line in (HERE / "envoygateway/go.mod").read_text().splitlines() if line.startswith("require ")
    )
    _, module, version = required.split()
    return module_folder(module, version)


def _chart(source: Path, folder: Path) -> Path:
    """As its release has it: with values that name its image."""
    chart = folder / "gateway-helm"
    shutil.copytree(source / "charts/gateway-helm", chart, copy_function=shutil.copyfile)
    values = (chart / "values.tmpl.yaml").read_text()
    values = values.replace("${GatewayImage}", IMAGE).replace("${GatewayImagePullPolicy}", "IfNotPresent")
    (chart / "values.yaml").write_text(values)
    return chart
