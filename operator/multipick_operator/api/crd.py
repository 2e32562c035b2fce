"""The CustomResourceDefinition of `inferencepools.multipick.dev`, generated from the types that decode it."""

from typing import Any

from multipick_operator.api.pool import PoolSpec
from multipick_operator.api.rules import ROOT_RULES
from multipick_operator.api.schema import schema_of, validations
from multipick_operator.api.status import Status

GROUP = "multipick.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "InferencePool"
PLURAL = "inferencepools"


def crd() -> dict[str, Any]:
    """The whole manifest. Helm keeps it on uninstall: deleting a CRD deletes every pool."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}", "annotations": {"helm.sh/resource-policy": "keep"}},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": "inferencepool",
                # not infpool: that is the Gateway API kind of the same name
                "shortNames": ["mpool"],
                "categories": ["multipick"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": _root()},
                    "subresources": {
                        "status": {},
                        "scale": {
                            "specReplicasPath": ".spec.replicas",
                            "statusReplicasPath": ".status.replicas",
                            "labelSelectorPath": ".status.selector",
                        },
                    },
                    "additionalPrinterColumns": _columns(),
                }
            ],
        },
    }


def _root() -> dict[str, Any]:
    status = schema_of(Status)
    del status["required"]  # the first write may be a part of it
    return {
        "type": "object",
        "description": "A pool of model-server pods and the endpoint picker in front of them.",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": schema_of(PoolSpec),
            "status": status,
        },
        "x-kubernetes-validations": validations(ROOT_RULES),
    }


def _columns() -> list[dict[str, Any]]:
    ready = '.status.conditions[?(@.type=="Ready")]'
    return [
        {"name": "Model", "type": "string", "jsonPath": ".status.model.name"},
        {"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas"},
        {"name": "Ready", "type": "integer", "jsonPath": ".status.readyReplicas"},
        {"name": "Up-to-date", "type": "integer", "jsonPath": ".status.updatedReplicas"},
        {"name": "Status", "type": "string", "jsonPath": f"{ready}.status"},
        {"name": "Reason", "type": "string", "jsonPath": f"{ready}.reason"},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
        {"name": "URI", "type": "string", "jsonPath": ".spec.model.uri", "priority": 1},
        {"name": "Engine", "type": "string", "jsonPath": ".spec.engine.type", "priority": 1},
        {"name": "Picker", "type": "integer", "jsonPath": ".status.picker.readyReplicas", "priority": 1},
        {"name": "URL", "type": "string", "jsonPath": ".status.url", "priority": 1},
    ]
