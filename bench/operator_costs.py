"""What the operator costs: requests at the API server, CPU and memory, on a real API server.

1. at rest: 100 pools whose pods serve and whose pickers say that all is well.
2. sick: 100 pools whose engines crash.
3. large: one pool of 2,000 pods that become ready.

There is no node: what kubelets would say is written into the pods, and one server stands for all pickers' `/status`.
Requests are those of the operator's own user in the API server's audit log, kopf's among them.

    python bench/operator_costs.py [--pools 100] [--pods 2000] [--seconds 180] [--json FILE]
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

import yaml
from aiohttp import web

sys.path.insert(0, str(Path(__file__).parent.parent / "tests/e2e"))

from cluster.apiserver import ApiServer
from cluster.client import Namespace, until
from cluster.rights import EVERYTHING, account, allow
from multipick_operator.api.crd import crd
from multipick_operator.children.configuration import ADMIN_PORT
from multipick_sim.local.processes import running

MULTIPICK: Final = (sys.executable, "-c", "import sys; from multipick_cli.main import main; sys.exit(main())")
BAR: Final = 5.0  # requests a pool and minute
PATIENCE_S: Final = 300.0
AT_ONCE: Final = 16
READY: Final = {
    "phase": "Running",
    "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-22T08:00:00Z"}],
}
CRASHED: Final = {
    "name": "engine",
    "image": "i",
    "imageID": "i",
    "ready": False,
    "restartCount": 4,
    "state": {"waiting": {"reason": "CrashLoopBackOff"}},
    "lastState": {"terminated": {"exitCode": 1, "message": "CUDA out of memory"}},
}
WELL: Final = {"endpoints": {"ready": 1, "checked": 1, "modes": {"exact": 1}}, "mismatches": []}
Row = dict[str, Any]


class Operator:
    """The operator's process, and what it has asked for so far."""

    def __init__(self, pid: int, audit: Path, user: str) -> None:
        self._pid = pid
        self._audit = audit
        self._user = user

    def requests(self) -> Counter[str]:
        """By verb and resource."""
        found: Counter[str] = Counter()
        for line in self._audit.read_text().splitlines():
            entry = json.loads(line)
            if entry["user"]["username"] == self._user:
                found[f"{entry['verb']} {entry.get('objectRef', {}).get('resource', entry['requestURI'])}"] += 1
        return found

    def cpu_s(self) -> float:
        """Of user and system, so far."""
        fields = Path(f"/proc/{self._pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_mb(self) -> int:
        """Resident now."""
        lines = Path(f"/proc/{self._pid}/status").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("VmRSS"))) // 1024


async def measured(operator: Operator, pools: int, seconds: float) -> Row:
    """A stretch of time in which nobody changes anything."""
    before, cpu, started = operator.requests(), operator.cpu_s(), time.monotonic()
    await asyncio.sleep(seconds)
    minutes = (time.monotonic() - started) / 60
    asked = operator.requests() - before
    own = sum(count for name, count in asked.items() if not name.endswith(" leases"))
    return {
        "pools": pools,
        "requests_a_minute": round(sum(asked.values()) / minutes, 1),
        "requests_a_pool_and_minute": round(own / minutes / pools, 2),
        "of_the_lease_a_minute": round((sum(asked.values()) - own) / minutes, 1),
        "most": dict(asked.most_common(4)),
        "cpu_cores": round((operator.cpu_s() - cpu) / minutes / 60, 4),
        "memory_mb": operator.memory_mb(),
    }


async def say(namespace: Namespace, status: dict[str, Any], pods: list[Any]) -> None:
    """What kubelets would."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(pod: Any) -> None:
        async with gate:
            await namespace.patch(namespace.path("pods", pod["metadata"]["name"]) + "/status", {"status": status})

    await asyncio.gather(*(one(pod) for pod in pods))


async def pods(namespace: Namespace, role: str, count: int) -> list[Any]:
    async def look() -> list[Any]:
        path = namespace.path("pods") + f"?labelSelector=multipick.dev/role={role}"
        found = (await namespace.call("GET", path))["items"]
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    found: list[Any] = await until(look, lambda found: len(found) >= count, PATIENCE_S)
    return found


async def conditions(namespace: Namespace, kind: str, status: str, reason: str, count: int) -> None:
    """So many pools come to this."""

    async def look() -> int:
        listed = await namespace.call("GET", namespace.path("inferencepools", group="multipick.dev/v1alpha1"))
        every = [one for pool in listed["items"] for one in pool.get("status", {}).get("conditions", [])]
        return sum((one["type"], one["status"], one["reason"]) == (kind, status, reason) for one in every)

    await until(look, lambda found: found >= count, PATIENCE_S)


async def many(namespace: Namespace, operator: Operator, count: int, sick: bool, seconds: float) -> Row:
    for index in range(count):
        await namespace.apply(f"p{index}", engine={"image": "example.com/vllm:1"})
    engines, pickers = await pods(namespace, "engine", count), await pods(namespace, "picker", count)
    await say(namespace, READY | {"podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}]}, pickers)
    await say(namespace, {"containerStatuses": [CRASHED]} if sick else READY, engines)
    if sick:
        await conditions(namespace, "Available", "False", "CrashLoop", count)
    else:
        await conditions(namespace, "EnginesMatch", "True", "EnginesMatch", count)
    await asyncio.sleep(30)  # what has just become ready is looked at again
    row = await measured(operator, count, seconds)
    await namespace.call("DELETE", namespace.path("inferencepools", group="multipick.dev/v1alpha1"))
    await until(namespace.children, lambda found: not found, PATIENCE_S)
    await until(lambda: pods(namespace, "engine", 0), lambda found: not found, PATIENCE_S)
    return row


async def large(namespace: Namespace, operator: Operator, count: int, seconds: float) -> Row:
    cpu, started, asked = operator.cpu_s(), time.monotonic(), operator.requests()
    await namespace.apply("large", engine={"image": "example.com/vllm:1"}, replicas=count)
    engines, pickers = await pods(namespace, "engine", count), await pods(namespace, "picker", 1)
    await say(namespace, READY | {"podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}]}, pickers)
    await say(namespace, READY, engines)
    await conditions(namespace, "Ready", "True", "Serving", 1)
    await conditions(namespace, "Progressing", "True", "RolloutComplete", 1)
    grown = {
        "pods": count,
        "to_all_ready_s": round(time.monotonic() - started),
        "requests_to_all_ready": sum((operator.requests() - asked).values()),
        "cpu_s_to_all_ready": round(operator.cpu_s() - cpu, 1),
    }
    await asyncio.sleep(30)
    return grown | await measured(operator, 1, seconds)


async def bench(options: argparse.Namespace, folder: Path) -> dict[str, Row]:
    server, audit = ApiServer(folder / "cluster"), folder / "audit.log"
    policy = folder / "policy.yaml"
    rules = [{"level": "Metadata"}]
    policy.write_text(
        yaml.safe_dump(
            {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"], "rules": rules}
        )
    )
    await asyncio.to_thread(server.start, [crd()], [f"--audit-policy-file={policy}", f"--audit-log-path={audit}"])
    runner = web.AppRunner(web.Application())

    async def well(_: web.Request) -> web.Response:
        return web.json_response(WELL)

    runner.app.router.add_get("/status", well)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", ADMIN_PORT).start()
    try:
        namespace = Namespace(server, "bench")
        await namespace.call("POST", "/api/v1/namespaces", {"metadata": {"name": namespace.name}})
        token = await account(namespace)
        await allow(namespace, namespace, EVERYTHING)
        kubeconfig = yaml.safe_load(server.kubeconfig.read_text())
        kubeconfig["users"][0]["user"] = {"token": token}
        (folder / "kubeconfig").write_text(yaml.safe_dump(kubeconfig))
        words = ["operator", "--picker-image", "example.com/multipick:1", "--namespaces", namespace.name]
        words += ["--lease-namespace", namespace.name, "--host", "127.0.0.1", "--port", "0", "--log-level", "warning"]
        environment = os.environ | {"KUBECONFIG": str(folder / "kubeconfig")}
        async with running([*MULTIPICK, *words], log=folder / "operator.log", env=environment) as process:
            user = f"system:serviceaccount:{namespace.name}:operator"
            operator = Operator(_child(process.pid), audit, user)
            rows = {"at rest": await many(namespace, operator, options.pools, False, options.seconds)}
            rows["sick"] = await many(namespace, operator, options.pools, True, options.seconds)
            rows["large"] = await large(namespace, operator, options.pods, options.seconds)
            return rows
    finally:
        await runner.cleanup()
        await asyncio.to_thread(server.stop)


def _child(pid: int) -> int:
    """The process itself: what was started may be a keeper that ends it with us."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return _child(int(children[0])) if children else pid


def table(rows: dict[str, Row]) -> str:
    names = ("requests_a_pool_and_minute", "requests_a_minute", "cpu_cores", "memory_mb")
    lines = [f"{'':<10}" + "".join(f"{name:>28}" for name in names)]
    lines += [f"{state:<10}" + "".join(f"{row[name]:>28}" for name in names) for state, row in rows.items()]
    return "\n".join([*lines, f"bar: under {BAR:g} requests a pool and minute, at rest and sick (the lease apart)"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pools", type=int, default=100)
    parser.add_argument("--pods", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=180.0, help="length of each measurement")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="multipick-bench-") as folder:
        rows = asyncio.run(bench(options, Path(folder)))
    print(table(rows))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    return int(any(rows[state]["requests_a_pool_and_minute"] >= BAR for state in ("at rest", "sick")))


if __name__ == "__main__":
    sys.exit(main())
