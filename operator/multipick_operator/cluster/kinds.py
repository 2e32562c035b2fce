"""The kinds that the operator reads or writes: a fixed table, so that no start depends on discovery."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from multipick_operator.api.crd import API_VERSION, KIND, PLURAL
from multipick_operator.children import Ref
from multipick_operator.children.names import MANAGER, POOL_LABEL, Manifest
from multipick_operator.children.tls import DESTINATION_RULE

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
    DESTINATION_RULE: "destinationrules",
    ("keda.sh/v1alpha1", "ScaledObject"): "scaledobjects",
    ("monitoring.coreos.com/v1", "PodMonitor"): "podmonitors",
}
BUILT_IN = ("v1", "apps/v1", "policy/v1", "networking.k8s.io/v1", "autoscaling/v2", "rbac.authorization.k8s.io/v1")


class Watched(NamedTuple):
    """A kind whose objects are kept in memory, and the label selector that all of them match."""

    api_version: str
    kind: str
    labels: str

    @property
    def is_optional(self) -> bool:
        """Another project's: it may come and go."""
        return self.api_version not in BUILT_IN


# Secrets are not among them: nobody may list them (their content is none of our business)
WATCHED = (
    Watched("v1", "Pod", POOL_LABEL),
    *(
        Watched(version, kind, f"app.kubernetes.io/managed-by={MANAGER}")
        for version, kind in (
            ("apps/v1", "Deployment"),
            ("v1", "Service"),
            ("v1", "ConfigMap"),
            ("v1", "ServiceAccount"),
            ("v1", "PersistentVolumeClaim"),
            ("policy/v1", "PodDisruptionBudget"),
            ("networking.k8s.io/v1", "NetworkPolicy"),
            ("autoscaling/v2", "HorizontalPodAutoscaler"),
            ("rbac.authorization.k8s.io/v1", "Role"),
            ("rbac.authorization.k8s.io/v1", "RoleBinding"),
            ("leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet"),
            ("inference.networking.k8s.io/v1", "InferencePool"),
            ("gateway.networking.k8s.io/v1", "HTTPRoute"),
            DESTINATION_RULE,
            ("keda.sh/v1alpha1", "ScaledObject"),
            ("monitoring.coreos.com/v1", "PodMonitor"),
        )
    ),
)


def resource_of(api_version: str, kind: str) -> dict[str, Any]:
    """What `kubernetes.aio.dynamic.Resource` has to know of a kind."""
    group, _, version = api_version.rpartition("/")
    return {
        "prefix": "apis" if group else "api",
        "group": group,
        "api_version": version,
        "kind": kind,
        "namespaced": True,
        "name": PLURALS[api_version, kind],
    }


def ref_of(manifest: Mapping[str, Any]) -> Ref:
    """The reference of a whole object."""
    return Ref(manifest["apiVersion"], manifest["kind"], manifest["metadata"]["name"])


def version_of(manifest: Manifest) -> int:
    """Versions of one kind are numbers that grow: Kubernetes promises it since 1.35, and etcd has always done so."""
    version = manifest["metadata"].get("resourceVersion", "")
    return int(version) if version.isdigit() else 0
