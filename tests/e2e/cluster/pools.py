"""Pools of simulated engines, as the tests of this folder use them, and how they are looked at."""

from typing import Any

from cluster.client import Namespace, until
from cluster.load import PATIENCE_S

POOL = "demo"
ENGINE = "multipick.dev/role=engine"
PICKER = "multipick.dev/role=picker"


def spec(accelerator: str, **changes: Any) -> dict[str, Any]:
    """Two engines that each ask for an accelerator, and a picker that says where requests went."""
    return {
        "model": {"uri": "/simulated", "name": POOL},
        "replicas": 2,
        "engine": engine(),
        "resources": {"accelerator": {"resource": accelerator, "count": 1}},
        "drain": {"propagationSeconds": 5, "timeoutSeconds": 30},
        "routing": {
            "picker": {"explainHeaders": True, "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}}},
        },
    } | changes


def engine(**changes: Any) -> dict[str, Any]:
    """The `engine` section."""
    return {"type": "Simulated", "blockSize": 16, "imagePullPolicy": "IfNotPresent"} | changes


async def pods(namespace: Namespace, selector: str) -> list[dict[str, Any]]:
    """With these labels; they may be leaving."""
    found: list[dict[str, Any]] = (await namespace.call("GET", namespace.path("pods") + f"?labelSelector={selector}"))[
        "items"
    ]
    return found


async def engines(namespace: Namespace, pool: str = POOL) -> list[dict[str, Any]]:
    """The pool's engine pods."""
    return await pods(namespace, f"multipick.dev/pool={pool},{ENGINE}")


async def serves(namespace: Namespace, replicas: int = 2, pool: str = POOL) -> None:
    """So many engines are ready, none is left of more, and the rollout is done."""

    async def settled() -> dict[str, Any]:
        found = await namespace.call("GET", namespace.pool_path(pool))
        status = found.get("status", {})
        conditions = {one["type"]: one["reason"] for one in status.get("conditions", [])}
        return {
            "current": status.get("observedGeneration") == found["metadata"]["generation"],
            "ready": status.get("readyReplicas"),
            "pods": len(await engines(namespace, pool)),
            "Ready": conditions.get("Ready"),
            "Progressing": conditions.get("Progressing"),
        }

    wanted = {
        "current": True,
        "ready": replicas,
        "pods": replicas,
        "Ready": "Serving",
        "Progressing": "RolloutComplete",
    }
    await until(settled, lambda found: found == wanted, PATIENCE_S)


def identities(found: list[dict[str, Any]]) -> dict[str, int]:
    """Restarts of each pod, by uid: equal before and after means that nothing was restarted or replaced."""
    return {
        pod["metadata"]["uid"]: sum(one["restartCount"] for one in pod["status"].get("containerStatuses", []))
        for pod in found
        if "deletionTimestamp" not in pod["metadata"]
    }
