"""What the cluster shows of one pool: what its children depend on, and, when they are made, what its status tells."""

import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence

from multipick_operator.adapters import RETRY_S, Adapters
from multipick_operator.api.pool import Pool
from multipick_operator.api.status import AdapterStatus, Status
from multipick_operator.children import Ref
from multipick_operator.children.context import MAX_PORTS, Context, Defaults
from multipick_operator.children.engine import PIN
from multipick_operator.children.names import ENGINE, PICKER, Manifest, engine_name, picker_name
from multipick_operator.children.picker import known_classes, known_stamp
from multipick_operator.children.pod import cache_claim, event_ports, http_ports
from multipick_operator.children.tls import asked_port
from multipick_operator.cluster.client import ApiError
from multipick_operator.cluster.view import View
from multipick_operator.making import TRANSIENT, WORKLOADS, Memory, Turn, first, is_owned
from multipick_operator.neighbours import shadowing, sharing
from multipick_operator.probe import PodProbe
from multipick_operator.references import picker_secret, references
from multipick_operator.status import last_status, superseded
from multipick_operator.status.adapters import answering, engines_of, order_of, told
from multipick_operator.status.observed import Missing, Observed
from multipick_operator.status.pickers import all_is_well
from multipick_operator.status.pods import has_ended, is_fetching, is_ready, ready_for_s

POD = Ref("v1", "Pod", "")
REPORTS_S = 15.0  # what pickers tell changes without any object's change
WARMING_S = 30.0  # for a picker to follow the events of a pod that has just become ready, or of all if it is new itself


class Observer:
    """Looks; of what it tells anybody, only `Adapters` tells engines."""

    def __init__(
        self, view: View, defaults: Defaults, probe: PodProbe, adapters: Adapters, now: Callable[[], str]
    ) -> None:
        self._view = view
        self._defaults = defaults
        self._probe = probe
        self._adapters = adapters
        self._now = now

    async def engine_pods(self, pool: Pool, turn: Turn) -> Sequence[Manifest]:
        """Those that serve the pool, or will, or did until a moment ago. Raises where the API server is in trouble."""
        if pool.spec.existing_pods:
            return await _pods(self._view.pods_with(pool.namespace, pool.spec.existing_pods.match_labels), turn)
        return await _pods(self._view.pods(pool.namespace, pool.name, ENGINE), turn)

    async def context(self, pool: Pool, pods: Sequence[Manifest], turn: Turn, memory: Memory) -> Context:
        """The defaults and what the cluster says; notes what the spec names in vain. Raises likewise.

        What can't be read, or is not there at this moment, changes nothing of what followed from it before.
        """
        version, unsure = "", set[str]()
        for reference in references(pool):
            try:
                found = await memory.looked_up.find(reference)
            except ApiError as error:
                if error.status in TRANSIENT:
                    raise
                turn.refused(reference.ref, error)
                unsure.add(reference.ref.kind)
                continue
            if found is None:
                unsure.add(reference.ref.kind)
                turn.missing.append(Missing(reference.ref.kind, reference.ref.name))
                turn.again(memory.looked_up.missing_s)
            elif reference.ref == picker_secret(pool):
                version = found["metadata"]["resourceVersion"]
            elif reference.ref.kind == "Gateway":
                turn.gateways.append(found)
        claim = turn.live.get(Ref("v1", "PersistentVolumeClaim", cache_claim(pool)))
        modes = tuple(claim["spec"].get("accessModes", ())) if claim else ()
        classes = [str(one.get("spec", {}).get("gatewayClassName", "")) for one in turn.gateways]
        if "Gateway" in unsure:
            classes += known_classes(first(turn.live, picker_name(pool), "Service"))
        return Context(
            self._defaults,
            _pin(pool, turn.live),
            version,
            modes,
            _others(pool, [port for pod in pods for port in http_ports(pod)], pool.ports),
            tuple(dict.fromkeys(classes)),
            _others(pool, [port for pod in pods for port in _event_ports(pod)], event_ports(pool)),
            known_stamp(first(turn.live, picker_name(pool), "Deployment"))
            if picker_secret(pool) and not version
            else "",
        )

    async def observe(
        self, pool: Pool, manifest: Manifest, context: Context, engine_pods: Sequence[Manifest], turn: Turn
    ) -> Observed:
        """Everything that the status is made of. Raises likewise."""
        engine, picker = engine_name(pool), picker_name(pool)
        workload, before = first(turn.live, engine, *WORKLOADS), last_status(manifest)
        revision = _revision(workload)
        others, made = self._view.pools(), manifest["metadata"].get("creationTimestamp", "")
        picker_pods = await _pods(self._view.pods(pool.namespace, pool.name, PICKER), turn)
        reports = await self._probe.pickers([pod["status"]["podIP"] for pod in picker_pods if _answers(pod)])
        fetching = {pod["metadata"]["name"]: _address_of(pod) for pod in engine_pods if is_fetching(pod)}
        if fetching or not all_is_well(reports):
            turn.again(REPORTS_S)
        return Observed(
            workload=workload,
            picker=turn.live.get(Ref("apps/v1", "Deployment", picker)),
            engine_pods=engine_pods,
            picker_pods=picker_pods,
            http_route=first(turn.live, pool.name, "HTTPRoute"),
            inference_pool=first(turn.live, pool.name, "InferencePool"),
            scaler=first(turn.live, engine, "HorizontalPodAutoscaler", "ScaledObject"),
            missing=turn.missing,
            refusals=turn.refusals,
            image=context.engine_image(pool),
            revision=revision,
            superseded=superseded(before, revision),
            shared_state=context.state_url(pool) is not None,
            asked_port=asked_port(pool, context),
            store=_address(context.state_url(pool)),
            store_trouble=turn.store_trouble,
            gateways=turn.gateways,
            fetching=await self._probe.fetching({name: at for name, at in fetching.items() if at}),
            adapters=self._adapters_of(pool, before, engine_pods, turn),
            sharing=sharing(pool, engine_pods, others),
            shadowing=shadowing(pool, made, others),
            reports=reports,
            warming=any(ready_for_s(pod, self._now()) < WARMING_S for pod in [*engine_pods, *picker_pods]),
        )

    def _adapters_of(
        self, pool: Pool, before: Status | None, pods: Sequence[Manifest], turn: Turn
    ) -> tuple[AdapterStatus, ...]:
        """What is known of adapters that come and go; who has not what it should is told beside."""
        key = (pool.namespace, pool.name)
        order = order_of(pool, before)
        if order is None:
            self._adapters.forget(key)
            return ()
        if pool.spec.suspend:
            return before.adapters if before else ()
        engines = engines_of(pool, pods)
        held = self._adapters.look(key, order, engines)
        if not all(one in held and order.is_met(held[one].names) for one in engines):
            turn.again(RETRY_S)
        return told(order, answering(pool, pods), engines, held)


async def _pods(reading: Awaitable[Sequence[Manifest]], turn: Turn) -> Sequence[Manifest]:
    """Of these pods, those that have not ended: one that did, as an evicted one, may lie there for ever."""
    return [pod for pod in await turn.unless_refused(POD, reading, []) if not has_ended(pod)]


def _address_of(pod: Manifest) -> str:
    return str(pod.get("status", {}).get("podIP", ""))


def _answers(pod: Manifest) -> bool:
    return is_ready(pod) and bool(pod["status"].get("podIP"))


def _pin(pool: Pool, live: Mapping[Ref, Manifest | None]) -> str | None:
    """The default image that this pool was made with."""
    workload = first(live, engine_name(pool), *WORKLOADS)
    return workload["metadata"].get("annotations", {}).get(PIN) if workload and is_owned(pool, workload) else None


def _address(url: str | None) -> str:
    """Of the store, without credentials and options."""
    return (url or "").partition("?")[0].rpartition("@")[2].rpartition("//")[2]


def _others(pool: Pool, found: Sequence[int], known: Sequence[int]) -> tuple[int, ...]:
    """Ports of pods that were made before the spec's changed."""
    return () if pool.spec.existing_pods else tuple(sorted(set(found) - set(known))[: 2 * MAX_PORTS])


def _event_ports(pod: Manifest) -> list[int]:
    ports = [port for container in pod["spec"]["containers"] for port in container.get("ports", [])]
    return [port["containerPort"] for port in ports if port.get("name", "").startswith(("kv-events", "kv-replay"))]


def _revision(workload: Manifest | None) -> str:
    """A name for the engines' pod template."""
    if workload is None:
        return ""
    return hashlib.sha256(json.dumps(_template(workload), sort_keys=True).encode()).hexdigest()[:10]


def _template(workload: Manifest) -> Manifest:
    spec = workload["spec"]
    template: Manifest = spec["template"] if "template" in spec else spec["leaderWorkerTemplate"]["leaderTemplate"]
    return template
