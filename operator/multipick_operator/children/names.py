"""Names and labels of a pool's children: derived from the pool's name alone, so that they never change."""

from collections.abc import Mapping
from typing import Any

from multipick_operator.api.crd import API_VERSION, GROUP, KIND
from multipick_operator.api.pool import Pool

Manifest = dict[str, Any]

MANAGER = "multipick-operator"
POOL_LABEL = f"{GROUP}/pool"
ROLE_LABEL = f"{GROUP}/role"
ENGINE = "engine"
PICKER = "picker"
LWS_INDEX = "leaderworkerset.sigs.k8s.io/worker-index"
LWS_REVISION = "leaderworkerset.sigs.k8s.io/template-revision-hash"


def engine_name(pool: Pool) -> str:
    """Deployment or LeaderWorkerSet, headless Service, ServiceAccount and PDB of the engines."""
    return f"{pool.name}-engine"


def picker_name(pool: Pool) -> str:
    """Everything of the pickers."""
    return f"{pool.name}-epp"


def picker_pods_name(pool: Pool) -> str:
    """The headless Service of the pickers."""
    return f"{pool.name}-epp-pods"


def weights_name(pool: Pool) -> str:
    """ConfigMap of the init step that fetches the weights."""
    return f"{pool.name}-weights"


def selector(pool: Pool, role: str) -> dict[str, str]:
    """Labels that select the pods of a role. Immutable in a Deployment: nothing of the spec may enter here."""
    return {POOL_LABEL: pool.name, ROLE_LABEL: role}


def identity(pool: Pool, role: str) -> dict[str, str]:
    """Labels by which a child is found again: nobody else's may take their place."""
    return {"app.kubernetes.io/managed-by": MANAGER, **selector(pool, role)}


def endpoint_labels(pool: Pool) -> dict[str, str]:
    """Labels of the pods that answer requests: of a group that spans nodes, only the leader does."""
    if pool.spec.existing_pods:
        return dict(pool.spec.existing_pods.match_labels)
    leader = {LWS_INDEX: "0"} if pool.spec.parallelism.nodes > 1 else {}
    return selector(pool, ENGINE) | leader


def selector_text(labels: Mapping[str, str]) -> str:
    """A label selector as a string, as the scale subresource and list calls want it."""
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))


def manifest(pool: Pool, api_version: str, kind: str, name: str, role: str, **body: Any) -> Manifest:
    """A child: owned by the pool (deleted with it), labelled, with `body` beside its metadata."""
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": pool.namespace,
            "labels": {
                "app.kubernetes.io/name": "multipick",
                "app.kubernetes.io/component": role,
                **identity(pool, role),
            },
            "ownerReferences": [
                {
                    "apiVersion": API_VERSION,
                    "kind": KIND,
                    "name": pool.name,
                    "uid": pool.uid,
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        },
        **body,
    }


def without_nothing(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields that say something: not None, not empty. An applied empty field would be owned by us for no use."""
    return {name: value for name, value in fields.items() if value is not None and value not in ({}, [], ())}
