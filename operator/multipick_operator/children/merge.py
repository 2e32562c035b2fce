"""Strategic merge of a user's pod template into ours, by the rules of the Kubernetes API that pods need."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

# Merge keys as in k8s.io/api core/v1 (`patchMergeKey`); any other list is replaced whole.
_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "volumes": "name",
    "env": "name",
    "imagePullSecrets": "name",
    "resourceClaims": "name",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "ports": "containerPort",
    "topologySpreadConstraints": "topologyKey",
    "hostAliases": "ip",
}


def merge(base: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `patch` on top; a None in `patch` removes the field. Neither is changed."""
    merged = dict(deepcopy(base))
    for name, value in patch.items():
        old = merged.get(name)
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, Mapping) and isinstance(old, Mapping):
            merged[name] = merge(old, value)
        elif isinstance(value, list) and isinstance(old, list) and name in _KEYS:
            merged[name] = _merge_lists(old, value, _KEYS[name])
        else:
            merged[name] = deepcopy(value)
    return merged


def _merge_lists(base: list[Any], patch: list[Any], key: str) -> list[Any]:
    """Entries with the same key are merged, in the order of `base`; new ones follow."""
    merged = {entry[key]: entry for entry in base}
    for entry in patch:
        merged[entry[key]] = merge(merged[entry[key]], entry) if entry[key] in merged else deepcopy(entry)
    return list(merged.values())
