"""The Kubernetes API as this operator uses it: requests are built as plain values, and sent by one small client.

No client library: ten verbs of a REST API over aiohttp, which kopf brings anyway, instead of 75 MB of generated models.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import aiohttp
import kopf

from multipick_operator.api.crd import API_VERSION, GROUP, KIND, PLURAL
from multipick_operator.children import Ref
from multipick_operator.children.names import MANAGER, Manifest

TIMEOUT = aiohttp.ClientTimeout(total=30, connect=5)
JSON = "application/json"
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
METADATA_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"

PLURALS: Mapping[tuple[str, str], str] = {
    (API_VERSION, KIND): PLURAL,
    ("v1", "Pod"): "pods",
    ("v1", "Service"): "services",
    ("v1", "Secret"): "secrets",
    ("v1", "ConfigMap"): "configmaps",
    ("v1", "ServiceAccount"): "serviceaccounts",
    ("v1", "PersistentVolumeClaim"): "persistentvolumeclaims",
    ("v1", "Event"): "events",
    ("apps/v1", "Deployment"): "deployments",
    ("policy/v1", "PodDisruptionBudget"): "poddisruptionbudgets",
    ("networking.k8s.io/v1", "NetworkPolicy"): "networkpolicies",
    ("autoscaling/v2", "HorizontalPodAutoscaler"): "horizontalpodautoscalers",
    ("coordination.k8s.io/v1", "Lease"): "leases",
    ("rbac.authorization.k8s.io/v1", "Role"): "roles",
    ("rbac.authorization.k8s.io/v1", "RoleBinding"): "rolebindings",
    ("leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet"): "leaderworkersets",
    ("inference.networking.k8s.io/v1", "InferencePool"): "inferencepools",
    ("gateway.networking.k8s.io/v1", "HTTPRoute"): "httproutes",
    ("gateway.networking.k8s.io/v1", "Gateway"): "gateways",
    ("keda.sh/v1alpha1", "ScaledObject"): "scaledobjects",
    ("monitoring.coreos.com/v1", "PodMonitor"): "podmonitors",
}
BUILT_IN = ("v1", "apps/v1", "policy/v1", "networking.k8s.io/v1", "autoscaling/v2", "rbac.authorization.k8s.io/v1")


class ApiError(Exception):
    """The API server refused; `status` is the HTTP status, `reason` its machine-readable word."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message


@dataclass(frozen=True, slots=True)
class Request:
    """One call, not yet sent."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    content_type: str = JSON
    accept: str = JSON


def path_of(ref: Ref, namespace: str, subresource: str = "") -> str:
    """URL path of an object, or of the collection where the name is empty."""
    prefix = "/api/v1" if ref.api_version == "v1" else f"/apis/{ref.api_version}"
    parts = [namespace, PLURALS[ref.api_version, ref.kind], ref.name, subresource]
    return f"{prefix}/namespaces/" + "/".join(quote(part, safe="") for part in parts if part)


def get(ref: Ref, namespace: str) -> Request:
    """Read an object; of a Secret only its metadata, since its content is none of our business."""
    return Request("GET", path_of(ref, namespace), accept=METADATA_ONLY if ref.kind == "Secret" else JSON)


def list_(api_version: str, kind: str, namespace: str, selector: str) -> Request:
    """Read all objects of a namespace that the label selector matches."""
    return Request("GET", path_of(Ref(api_version, kind, ""), namespace), {"labelSelector": selector})


def apply(manifest: Manifest) -> Request:
    """Server-side apply. Forced: a child's fields that we name are ours, whoever touched them."""
    meta = manifest["metadata"]
    ref = Ref(manifest["apiVersion"], manifest["kind"], meta["name"])
    query = {"fieldManager": MANAGER, "force": "true"}
    return Request("PATCH", path_of(ref, meta["namespace"]), query, manifest, APPLY)


def delete(ref: Ref, namespace: str, uid: str) -> Request:
    """Delete just this object, not a new one of the same name."""
    body = {"propagationPolicy": "Background", "preconditions": {"uid": uid}}
    return Request("DELETE", path_of(ref, namespace), body=body)


def patch_status(namespace: str, name: str, status: Any) -> Request:
    """Replace fields of a pool's status; lists are replaced whole."""
    path = path_of(Ref(API_VERSION, KIND, name), namespace, "status")
    return Request("PATCH", path, {"fieldManager": MANAGER}, {"status": status}, MERGE)


def create(manifest: Manifest) -> Request:
    """Create an object."""
    meta = manifest["metadata"]
    ref = Ref(manifest["apiVersion"], manifest["kind"], "")
    return Request("POST", path_of(ref, meta["namespace"]), {"fieldManager": MANAGER}, manifest)


def replace(manifest: Manifest) -> Request:
    """Replace an object if nobody changed it since (`metadata.resourceVersion`); 409 otherwise."""
    meta = manifest["metadata"]
    return Request(
        "PUT", path_of(Ref(manifest["apiVersion"], manifest["kind"], meta["name"]), meta["namespace"]), body=manifest
    )


def resources(api_version: str) -> Request:
    """Which kinds the API server serves in a group and version."""
    return Request("GET", f"/apis/{api_version}")


def event(pool: Manifest, type_: str, reason: str, message: str, now: str) -> Request:
    """An Event about a pool. Callers send one a transition, so that nothing needs to be counted up."""
    meta = pool["metadata"]
    manifest = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": f"{meta['name']}.", "namespace": meta["namespace"]},
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "name": meta["name"],
            "namespace": meta["namespace"],
            "uid": meta["uid"],
            "resourceVersion": meta.get("resourceVersion", ""),
        },
        "type": type_,
        "reason": reason,
        "message": message[:1024],
        "source": {"component": MANAGER},
        "reportingComponent": f"{GROUP}/operator",
        "reportingInstance": MANAGER,
        "action": "Reconcile",
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }
    return create(manifest)


class Kube:
    """Sends requests with the credentials of `login`, which is asked again when they are refused (tokens rotate)."""

    def __init__(self, login: Callable[[], kopf.ConnectionInfo]) -> None:
        self._login = login
        self._info = login()
        self._session: aiohttp.ClientSession | None = None

    async def send(self, request: Request) -> Any:
        """The decoded answer. Raises ApiError, or aiohttp.ClientError / TimeoutError where none came."""
        try:
            return await self._send(request)
        except ApiError as error:
            if error.status != 401:
                raise
        self._info = self._login()
        return await self._send(request)

    async def find(self, request: Request) -> Manifest | None:
        """The same; None for what does not exist."""
        try:
            found: Manifest = await self.send(request)
        except ApiError as error:
            if error.status != 404:
                raise
            return None
        return found

    async def close(self) -> None:
        """Close the connections."""
        if self._session:
            await self._session.close()

    async def _send(self, request: Request) -> Any:
        if self._session is None:
            tls = await asyncio.to_thread(self._info.as_ssl_context) if self._info.server.startswith("https") else True
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls, limit=32), timeout=TIMEOUT)
        headers = {"accept": request.accept, "content-type": request.content_type, **self._info.as_http_headers()}
        async with self._session.request(
            request.method,
            self._info.server.rstrip("/") + request.path,
            params=dict(request.query),
            data=None if request.body is None else json.dumps(request.body).encode(),
            headers=headers,
        ) as answer:
            body = await answer.read()
            if answer.status < 400:
                return json.loads(body)
            raise _error(answer.status, body)


def _error(status: int, body: bytes) -> ApiError:
    try:
        said = json.loads(body)
        return ApiError(status, str(said.get("reason", "")), str(said.get("message", "")))
    except (ValueError, AttributeError):
        return ApiError(status, "", body[:300].decode(errors="replace"))
