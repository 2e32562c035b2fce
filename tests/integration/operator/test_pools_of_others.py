"""`multipick epp --pool-name`: a picker for a pool that is not ours, on a real API server, as whoever may only read."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from cluster.apiserver import ApiServer
from cluster.build import UnavailableError, module_folder
from cluster.client import Namespace
from kubernetes.aio import client
from multipick_epp.config import InferencePoolName
from multipick_epp.pods.inference_pool import InferencePoolWatch
from multipick_epp.pods.registry import Registry

GIE = "inference.networking.k8s.io"
READY = {
    "phase": "Running",
    "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-22T08:00:00Z"}],
}


@pytest.fixture
def gie(api: ApiServer) -> Any:
    """The InferencePool's CRD; it goes again."""
    try:
        folder = module_folder("sigs.k8s.io/gateway-api-inference-extension", "v1.5.0") / "config/crd/bases"
    except UnavailableError as error:
        pytest.skip(str(error))
    crd = yaml.safe_load((folder / f"{GIE}_inferencepools.yaml").read_text())
    api.install(crd)
    yield
    api.request("DELETE", f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{crd['metadata']['name']}")


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(120):
        while not condition():
            await asyncio.sleep(0.02)


async def run_pod(namespace: Namespace, name: str, address: str, **labels: str) -> None:
    spec = {"containers": [{"name": "engine", "image": "example.com/engine:1"}]}
    metadata = {"name": name, "labels": labels}
    await namespace.call("POST", namespace.path("pods"), {"metadata": metadata, "spec": spec})
    await namespace.patch(namespace.path("pods", name) + "/status", {"status": {**READY, "podIP": address}})


async def test_a_foreign_pool_is_followed_from_its_making_to_its_end(
    api: ApiServer, namespace: Namespace, gie: None
) -> None:
    async def connect() -> client.ApiClient:
        configuration = client.Configuration(host=api.url)
        configuration.ssl_ca_cert = str(api.ca)
        configuration.api_key = {"BearerToken": f"Bearer {api.token}"}
        return client.ApiClient(configuration)

    await run_pod(namespace, "a", "10.0.0.1", app="x")
    await run_pod(namespace, "b", "10.0.0.2", app="y")
    registry = Registry()
    watch = InferencePoolWatch(InferencePoolName("theirs", namespace.name), registry, connect)
    following = asyncio.create_task(watch.follow())
    pools = f"/apis/{GIE}/v1/namespaces/{namespace.name}/inferencepools"
    try:
        await until(lambda: (watch.outage or "").startswith("no InferencePool"))
        await namespace.call(
            "POST",
            pools,
            {
                "apiVersion": f"{GIE}/v1",
                "kind": "InferencePool",
                "metadata": {"name": "theirs"},
                "spec": {
                    "selector": {"matchLabels": {"app": "x"}},
                    "targetPorts": [{"number": 8000}, {"number": 8001}],
                    "endpointPickerRef": {"name": "epp", "port": {"number": 9002}},
                },
            },
        )
        await until(lambda: registry.ready().endpoints == ["10.0.0.1:8000", "10.0.0.1:8001"])
        change = {"spec": {"selector": {"matchLabels": {"app": "y"}}, "targetPorts": [{"number": 9000}]}}
        await namespace.patch(f"{pools}/theirs", change)
        await until(lambda: registry.ready().endpoints == ["10.0.0.2:9000"])
        await namespace.call("DELETE", f"{pools}/theirs")
        await until(lambda: not registry.all())
        assert not following.done()
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
