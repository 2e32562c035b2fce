"""The calls that change the cluster. Each is made under the lease, and is given up before anybody else may hold it."""

from typing import Any

from multipick_operator.api.crd import API_VERSION, GROUP, KIND
from multipick_operator.children import Ref
from multipick_operator.children.names import MANAGER, Manifest
from multipick_operator.cluster.client import Kube
from multipick_operator.cluster.lease import Lease
from multipick_operator.cluster.view import View

CALL_S = 10.0
MAX_MESSAGE = 1024  # of an Event (core/v1)


class NotLeadingError(Exception):
    """The lease is not ours any more: nothing may be written."""


class Writes:
    """Applies, deletes, patches and tells; the view knows of it at once."""

    def __init__(self, api: Kube, lease: Lease, view: View) -> None:
        self._api = api
        self._lease = lease
        self._view = view

    async def apply(self, manifest: Manifest) -> Manifest:
        """Make or change a child; returns it as it is then."""
        result = await self._api.apply(manifest, self._time_s())
        self._view.wrote(result)
        return result

    async def delete(self, live: Manifest, ref: Ref) -> None:
        """Delete this very object."""
        meta = live["metadata"]
        await self._api.delete(ref, meta["namespace"], meta["uid"], self._time_s())
        self._view.deleted({"apiVersion": ref.api_version, "kind": ref.kind} | live)

    async def status(self, namespace: str, name: str, status: Any) -> None:
        """Replace fields of a pool's status."""
        ref = Ref(API_VERSION, KIND, name)
        self._view.wrote(await self._api.merge(ref, namespace, "status", {"status": status}, self._time_s()))

    async def replicas(self, pool: Manifest, count: int) -> None:
        """Write a pool's number of replicas; ApiError 409 if anybody has changed the pool since it was read.

        Not by the scale subresource, which leaves no trace of who wrote it.
        """
        meta = pool["metadata"]
        body = {"metadata": {"resourceVersion": meta["resourceVersion"]}, "spec": {"replicas": count}}
        ref = Ref(API_VERSION, KIND, meta["name"])
        self._view.wrote(await self._api.merge(ref, meta["namespace"], "", body, self._time_s()))

    async def event(self, pool: Manifest, type_: str, reason: str, message: str, now: str) -> None:
        """An Event about a pool. Callers send one a transition, so that nothing needs to be counted up."""
        await self._api.create(_event(pool, type_, reason, message, now), self._time_s())

    def _time_s(self) -> float:
        """Raises NotLeadingError."""
        left_s = self._lease.left_s
        if left_s <= 0:
            raise NotLeadingError
        return min(CALL_S, left_s)


def _event(pool: Manifest, type_: str, reason: str, message: str, now: str) -> Manifest:
    meta = pool["metadata"]
    return {
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
        "message": message[:MAX_MESSAGE],
        "source": {"component": MANAGER},
        "reportingComponent": f"{GROUP}/operator",
        "reportingInstance": MANAGER,
        "action": "Reconcile",
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }
