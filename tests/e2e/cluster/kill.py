"""SIGKILL for a container on any cluster: a privileged pod on its node finds the container's processes.

No container can do that to its own first process.
"""

import uuid
from typing import Any

from cluster.client import Namespace, until
from cluster.load import PATIENCE_S

# a process says in its cgroup's name which container it belongs to
PROGRAM = """
import os, pathlib, sys
ended = 0
for process in pathlib.Path("/proc").glob("[0-9]*"):
    try:
        if sys.argv[1] in (process / "cgroup").read_text():
            os.kill(int(process.name), 9)
            ended += 1
    except (FileNotFoundError, ProcessLookupError):
        pass
sys.exit(not ended)
"""


async def kill(namespace: Namespace, pod: dict[str, Any], image: str) -> None:
    """End the pod's only container as `kill -9` does, from `namespace`; returns when the kubelet has started it anew.

    `image` has a Python.
    """
    before = pod["status"]["containerStatuses"][0]
    name = f"killer-{uuid.uuid4().hex[:8]}"
    container = {
        "name": "killer",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-c", PROGRAM, before["containerID"].partition("://")[2]],
        "securityContext": {"privileged": True, "runAsUser": 0},
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    spec = {
        "nodeName": pod["spec"]["nodeName"],
        "hostPID": True,
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "containers": [container],
    }
    await namespace.call("POST", namespace.path("pods"), {"metadata": {"name": name}, "spec": spec})

    async def restarted() -> Any:
        found = await namespace.call("GET", f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{_name(pod)}")
        now = found["status"]["containerStatuses"][0]
        killer = (await namespace.call("GET", namespace.path("pods", name)))["status"]
        assert killer["phase"] != "Failed", killer
        return killer["phase"] == "Succeeded" and now["restartCount"] > before["restartCount"]

    try:
        await until(restarted, bool, PATIENCE_S)
    finally:
        await namespace.call("DELETE", namespace.path("pods", name))


def _name(pod: dict[str, Any]) -> str:
    name: str = pod["metadata"]["name"]
    return name
