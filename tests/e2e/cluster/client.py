"""A namespace of one test and the calls that tests make in it; waiting for what comes to be."""

import asyncio
import time
import urllib.error
from collections.abc import Callable
from typing import Any

from cluster.apiserver import ApiServer
from cluster.remote import Remote

PATIENCE_S = 120.0
PLURALS = (
    ("apps/v1", "deployments"),
    ("", "services"),
    ("", "configmaps"),
    ("", "secrets"),
    ("", "serviceaccounts"),
    ("", "persistentvolumeclaims"),
    ("rbac.authorization.k8s.io/v1", "roles"),
    ("rbac.authorization.k8s.io/v1", "rolebindings"),
    ("policy/v1", "poddisruptionbudgets"),
    ("networking.k8s.io/v1", "networkpolicies"),
    ("autoscaling/v2", "horizontalpodautoscalers"),
    ("inference.networking.k8s.io/v1", "inferencepools"),
    ("gateway.networking.k8s.io/v1", "httproutes"),
)


class Namespace:
    """A namespace of one test, with the calls that tests make in it."""

    def __init__(self, server: ApiServer | Remote, name: str) -> None:
        self.server = server
        self.name = name

    def path(self, plural: str, name: str = "", group: str = "") -> str:
        prefix = f"/apis/{group}" if group else "/api/v1"
        return f"{prefix}/namespaces/{self.name}/{plural}" + (f"/{name}" if name else "")

    def pool_path(self, name: str = "p") -> str:
        return self.path("inferencepools", name, "multipick.dev/v1alpha1")

    async def call(self, method: str, path: str, body: object = None, content: str = "application/json") -> Any:
        return await asyncio.to_thread(self.server.request, method, path, body, content)

    async def find(self, path: str) -> Any:
        """The object; None where there is none."""
        try:
            return await self.call("GET", path)
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
            return None

    async def apply(self, name: str = "p", **spec: Any) -> Any:
        """A pool with this spec, less what an earlier call of this test named and this one does not."""
        manifest = {
            "apiVersion": "multipick.dev/v1alpha1",
            "kind": "InferencePool",
            "metadata": {"name": name},
            "spec": {"model": {"uri": "hf://org/m"}} | spec,
        }
        return await asyncio.to_thread(self.server.apply, self.pool_path(name), manifest)

    async def patch(self, path: str, body: object) -> Any:
        return await self.call("PATCH", path, body, "application/merge-patch+json")

    async def condition(self, kind: str, name: str = "p") -> tuple[str, str]:
        pool = await self.call("GET", self.pool_path(name))
        found = [one for one in pool.get("status", {}).get("conditions", []) if one["type"] == kind]
        return (found[0]["status"], found[0]["reason"]) if found else ("", "")

    async def reaches(
        self, kind: str, status: str, reason: str, name: str = "p", patience_s: float = PATIENCE_S
    ) -> None:
        """The pool's condition comes to this."""
        await until(lambda: self.condition(kind, name), lambda found: found == (status, reason), patience_s)

    async def events(self) -> list[tuple[str, str]]:
        found = await self.call("GET", self.path("events"))
        ours = [one for one in found["items"] if one["source"].get("component") == "multipick-operator"]
        return [(one["reason"], one["message"]) for one in ours]

    async def children(self) -> dict[tuple[str, str], Any]:
        """Everything of ours here, by plural and name."""
        found = {}
        for group, plural in PLURALS:
            listed = await self.find(self.path(plural, group=group) + "?labelSelector=multipick.dev/pool")
            for one in (listed or {"items": []})["items"]:
                found[plural, one["metadata"]["name"]] = one
        return found

    async def inventory(self) -> set[tuple[str, str]]:
        """Everything that lies here, by resource and name, but events, which tell of what was."""
        groups = (await self.call("GET", "/apis"))["groups"]
        versions = ["", *(one["preferredVersion"]["groupVersion"] for one in groups)]
        found = set()
        for version in versions:
            for one in (await self.call("GET", f"/apis/{version}" if version else "/api/v1"))["resources"]:
                if one["namespaced"] and "list" in one["verbs"] and one["name"] != "events":
                    listed = await self.call("GET", self.path(one["name"], group=version))
                    found |= {(one["name"], item["metadata"]["name"]) for item in listed["items"]}
        return found


async def until(look: Callable[[], Any], good: Callable[[Any], bool] = bool, patience_s: float = PATIENCE_S) -> Any:
    """What `look` finds as soon as it is good. Fails with what it found last."""
    deadline = time.monotonic() + patience_s
    while True:
        found = await look()
        if good(found):
            return found
        assert time.monotonic() < deadline, f"still {str(found)[:2000]} after {patience_s:.0f} s"
        await asyncio.sleep(0.05)
