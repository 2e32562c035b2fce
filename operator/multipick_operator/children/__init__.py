"""What should exist for a pool: pure functions from the spec to manifests.

In: a `Pool` and a `Context` (defaults, what the cluster says). Out: complete manifests for server-side apply, in the
order in which they are applied. The reconciler calls `desired`, and deletes what `catalogue` names beyond it.
"""

from typing import NamedTuple

from multipick_operator.api.pool import Pool
from multipick_operator.children.context import Context
from multipick_operator.children.engine import engines
from multipick_operator.children.names import Manifest, engine_name, picker_name, picker_pods_name
from multipick_operator.children.picker import pickers
from multipick_operator.children.pod import cache_claim
from multipick_operator.children.policies import policies
from multipick_operator.children.routes import GIE_GROUP, routes
from multipick_operator.children.scaling import scalers
from multipick_operator.children.tls import DESTINATION_RULE, destination_rules


class Ref(NamedTuple):
    """A child by kind and name; it lies in the pool's namespace."""

    api_version: str
    kind: str
    name: str


def desired(pool: Pool, context: Context) -> list[Manifest]:
    """All children, pickers before the engines that they route to, routes last."""
    return [
        *pickers(pool, context),
        *engines(pool, context),
        *policies(pool, context),
        *scalers(pool),
        *destination_rules(pool, context),
        *routes(pool, context),
    ]


def ref_of(manifest: Manifest) -> Ref:
    """The reference of a manifest."""
    return Ref(manifest["apiVersion"], manifest["kind"], manifest["metadata"]["name"])


def catalogue(pool: Pool) -> list[Ref]:
    """Every child that some spec of this pool could have: those that its spec lost are found here and deleted.

    But ConfigMaps: their names hold a hash of what they say.
    """
    engine, picker = engine_name(pool), picker_name(pool)
    return [
        Ref("gateway.networking.k8s.io/v1", "HTTPRoute", pool.name),
        Ref(f"{GIE_GROUP}/v1", "InferencePool", pool.name),
        Ref(*DESTINATION_RULE, picker),
        Ref("keda.sh/v1alpha1", "ScaledObject", engine),
        Ref("autoscaling/v2", "HorizontalPodAutoscaler", engine),
        Ref("apps/v1", "Deployment", engine),
        Ref("leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet", engine),
        Ref("v1", "Service", engine),
        Ref("v1", "ServiceAccount", engine),
        Ref("v1", "PersistentVolumeClaim", cache_claim(pool)),
        Ref("policy/v1", "PodDisruptionBudget", engine),
        Ref("networking.k8s.io/v1", "NetworkPolicy", engine),
        Ref("monitoring.coreos.com/v1", "PodMonitor", engine),
        Ref("apps/v1", "Deployment", picker),
        Ref("v1", "Service", picker),
        Ref("v1", "Service", picker_pods_name(pool)),
        Ref("v1", "Secret", picker),
        Ref("v1", "ServiceAccount", picker),
        Ref("rbac.authorization.k8s.io/v1", "RoleBinding", picker),
        Ref("rbac.authorization.k8s.io/v1", "Role", picker),
        Ref("policy/v1", "PodDisruptionBudget", picker),
        Ref("networking.k8s.io/v1", "NetworkPolicy", picker),
        Ref("monitoring.coreos.com/v1", "PodMonitor", picker),
    ]
