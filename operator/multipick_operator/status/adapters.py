"""Which pod has which of the adapters that come and go while engines run. No I/O."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from multipick_operator.api.engine import EngineType
from multipick_operator.api.pool import Pool
from multipick_operator.api.status import AdapterStatus, Status
from multipick_operator.children.names import Manifest, endpoint_labels
from multipick_operator.children.pod import http_ports
from multipick_operator.status.pods import is_leaving, is_ready
from multipick_operator.status.verdict import Verdict

_NAMED = 32  # pods that the status names an adapter
_WORDS = 300  # of an engine, that it keeps


class Engine(NamedTuple):
    """One that answers HTTP; a pod has one a data-parallel rank."""

    pod: str
    address: str  # ip:port
    start: str  # another one where its container was started anew, with the adapters of its command line alone


class Order(NamedTuple):
    """What all engines of a pool are to have, and what not."""

    prefix: str  # of the paths by which they are told
    wanted: Mapping[str, str]  # name -> what the engine is to load: a path in it, or a repository of the hub
    unwanted: Sequence[str]  # loaded for this pool before

    def is_met(self, names: frozenset[str]) -> bool:
        """By an engine that has these adapters."""
        return self.wanted.keys() <= names and names.isdisjoint(self.unwanted)


class Held(NamedTuple):
    """What one engine has, and its words for what it could not load or unload, by adapter."""

    names: frozenset[str]
    troubles: Mapping[str, str]


def order_of(pool: Pool, before: Status | None) -> Order | None:
    """None where the pool has and had no such adapters: nobody needs to be asked."""
    wanted = {one.name: one.uri.removeprefix("hf://") for one in pool.spec.adapters}
    known = [one.name for one in before.adapters] if before else []
    unwanted = [name for name in known if name not in wanted]
    prefix = "" if pool.spec.engine.type is EngineType.SGLANG else "/v1"
    return Order(prefix, wanted, unwanted) if wanted or unwanted else None


def answering(pool: Pool, pods: Sequence[Manifest]) -> list[Manifest]:
    """Those that answer requests, or will: of a group that spans nodes, the leader's."""
    labels = endpoint_labels(pool).items()
    return [pod for pod in pods if labels <= pod["metadata"].get("labels", {}).items()]


def engines_of(pool: Pool, pods: Sequence[Manifest]) -> list[Engine]:
    """Of pods that answer, those that are ready."""
    return [
        Engine(pod["metadata"]["name"], f"{_host(pod)}:{port}", _start(pod))
        for pod in answering(pool, pods)
        if is_ready(pod) and _host(pod)
        for port in (pool.ports if pool.spec.existing_pods else http_ports(pod))
    ]


def told(
    order: Order, pods: Sequence[Manifest], engines: Sequence[Engine], held: Mapping[Engine, Held]
) -> tuple[AdapterStatus, ...]:
    """An entry for each adapter; of one that is unwanted, until no pod can have it any more. `pods`: that answer."""
    asked = {engine.pod for engine in engines if engine in held}
    started = (pod for pod in pods if _host(pod))  # what waits for a node has nothing yet
    everywhere = all(pod["metadata"]["name"] in asked for pod in started if not is_leaving(pod))
    found = []
    for name in (*order.wanted, *order.unwanted):
        lacking = {one.pod for one in engines if one not in held or name not in held[one].names}
        having = sorted({one.pod for one in engines} - lacking)
        words = [f"{one.pod}: {told}" for one in engines if one in held and (told := held[one].troubles.get(name))]
        gone = everywhere and not any(name in one.names for one in held.values())
        if name in order.wanted or not gone:
            message = words[0][:_WORDS] if words else ""
            found.append(AdapterStatus(name=name, loaded=len(having), pods=tuple(having[:_NAMED]), message=message))
    return tuple(found)


def verdict(pool: Pool, adapters: Sequence[AdapterStatus], pods: int) -> Verdict | None:
    """Of the condition AdaptersLoaded; None where the pool has no such adapters. `pods`: so many are ready."""
    wanted = {one.name for one in pool.spec.adapters}
    missing = [one for one in adapters if one.name in wanted and one.loaded < pods]
    leaving = [one for one in adapters if one.name not in wanted]
    if not adapters:
        return None
    if failed := [one for one in (*missing, *leaving) if one.message]:
        return Verdict("False", "LoadFailed", "; ".join(f"{one.name}: {one.message}" for one in failed))
    if missing:
        listed = ", ".join(f"{one.name} ({one.loaded} of {pods} pods)" for one in missing)
        return Verdict("False", "Loading", f"not everywhere yet: {listed}")
    if leaving:
        return Verdict("False", "Unloading", f"not gone yet: {', '.join(one.name for one in leaving)}")
    return Verdict("True", "AdaptersLoaded", f"{len(wanted)} adapters on {pods} pods")


def _host(pod: Manifest) -> str:
    ip = str(pod.get("status", {}).get("podIP", ""))
    return f"[{ip}]" if ":" in ip else ip


def _start(pod: Manifest) -> str:
    started = sorted((one["name"], one.get("restartCount", 0)) for one in pod["status"].get("containerStatuses", []))
    return f"{pod['metadata']['uid']} {started}"
