"""Disruption budgets, network policies and Prometheus' PodMonitors."""

from typing import Any

from multipick_operator.api.pool import Pool
from multipick_operator.children.configuration import ADMIN_PORT, HEALTH_PORT
from multipick_operator.children.context import Context
from multipick_operator.children.names import (
    ENGINE,
    PICKER,
    POOL_LABEL,
    ROLE_LABEL,
    Manifest,
    engine_name,
    identity,
    manifest,
    picker_name,
    selector,
)
from multipick_operator.children.pod import event_ports, port_name
from multipick_operator.children.scaling import needs_metrics
from multipick_operator.children.tls import EXT_PROC_PORT
from multipick_operator.weights import PORT


def policies(pool: Pool, context: Context) -> list[Manifest]:
    """What the spec asks for of the three."""
    return [*_budgets(pool), *_network(pool, context), *_monitors(pool)]


def _budgets(pool: Pool) -> list[Manifest]:
    """At most so many away at a time; never "all must stay", which would forbid draining a node."""
    roles = [(PICKER, picker_name(pool), 1)]
    if pool.spec.disruption.enabled and not pool.spec.existing_pods:
        roles.append((ENGINE, engine_name(pool), pool.spec.disruption.max_unavailable))
    return [
        manifest(
            pool,
            "policy/v1",
            "PodDisruptionBudget",
            name,
            role,
            spec={
                "maxUnavailable": count,
                "selector": {"matchLabels": selector(pool, role)},
                # a pod that never became ready must not hold up a node drain
                "unhealthyPodEvictionPolicy": "AlwaysAllow",
            },
        )
        for role, name, count in roles
    ]


def _network(pool: Pool, context: Context) -> list[Manifest]:
    """KV events are neither encrypted nor authenticated: only the pool's pickers may connect to them."""
    if not pool.spec.network_policy.enabled:
        return []
    engine_rules: list[Manifest] = [{"ports": [_tcp(port) for port in context.ports(pool)]}]
    if event := [*event_ports(pool), *context.other_event_ports]:
        pickers = {"podSelector": {"matchLabels": selector(pool, PICKER)}}
        engine_rules.append({"from": [pickers], "ports": [_tcp(port) for port in event]})
    if pool.spec.storage.fetch:
        engine_rules.append({"ports": [_tcp(PORT)]})  # how far it is: the operator asks
    if pool.spec.parallelism.nodes > 1:
        engine_rules.append({"from": [{"podSelector": {"matchLabels": selector(pool, ENGINE)}}]})
    rules: list[tuple[str, str, dict[str, str], list[Manifest]]] = [
        (
            PICKER,
            picker_name(pool),
            selector(pool, PICKER),
            [{"ports": [_tcp(port) for port in (EXT_PROC_PORT, HEALTH_PORT, ADMIN_PORT)]}],
        )
    ]
    if not pool.spec.existing_pods:
        rules.append((ENGINE, engine_name(pool), selector(pool, ENGINE), engine_rules))
    return [
        manifest(
            pool,
            "networking.k8s.io/v1",
            "NetworkPolicy",
            name,
            role,
            spec={"podSelector": {"matchLabels": labels}, "policyTypes": ["Ingress"], "ingress": ingress},
        )
        for role, name, labels, ingress in rules
    ]


def _monitors(pool: Pool) -> list[Manifest]:
    wanted = pool.spec.monitoring.pod_monitor
    if not wanted.enabled and not needs_metrics(pool):
        return []
    engine_ports = [(port_name(rank), pool.spec.engine.metrics_path) for rank in range(len(pool.ports))]
    roles = [(PICKER, picker_name(pool), [("admin", "/metrics")])]
    if not pool.spec.existing_pods:
        roles.append((ENGINE, engine_name(pool), engine_ports))
    made = []
    for role, name, ports in roles:
        spec: dict[str, Any] = {
            "selector": {"matchLabels": selector(pool, role)},
            "podTargetLabels": [POOL_LABEL, ROLE_LABEL],
            "podMetricsEndpoints": [
                {"port": port, "path": path, "interval": f"{wanted.interval_seconds}s"} for port, path in ports
            ],
        }
        one = manifest(pool, "monitoring.coreos.com/v1", "PodMonitor", name, role, spec=spec)
        one["metadata"]["labels"] |= wanted.labels | identity(pool, role)
        made.append(one)
    return made


def _tcp(port: int) -> Manifest:
    return {"protocol": "TCP", "port": port}
