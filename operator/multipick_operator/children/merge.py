"""Strategic merge of a user's pod template into ours, by the rules of the Kubernetes API.

Sources: `listMapKey`s and unions of k8s.io/api core/v1 (1.36). A list with keys is merged entry by entry, any other is
replaced whole; of fields that exclude each other, those of the patch win.
"""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from multipick_operator.api.pool import SpecError

_KEYS: Mapping[str, tuple[str, ...]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "volumes": ("name",),
    "env": ("name",),
    "imagePullSecrets": ("name",),
    "resourceClaims": ("name",),
    "claims": ("name",),
    "schedulingGates": ("name",),
    "volumeMounts": ("mountPath",),
    "volumeDevices": ("devicePath",),
    "ports": ("containerPort", "protocol"),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
    "hostAliases": ("ip",),
}
_DEFAULTS = {"protocol": "TCP"}
_ONE_OF = (
    frozenset({"exec", "httpGet", "tcpSocket", "grpc", "sleep"}),  # probes and lifecycle hooks
    frozenset({"value", "valueFrom"}),
    frozenset({"fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"}),
)
_BY_TYPE = ("seccompProfile", "appArmorProfile")  # the other fields belong to their `type`


def merge(base: Mapping[str, Any], patch: Mapping[str, Any], path: str = "podTemplate") -> dict[str, Any]:
    """`base` with `patch` on top; a None in `patch` removes the field. Neither is changed.

    Raises SpecError, with the path, for what has not the form of the field that it names.
    """
    merged = {name: deepcopy(value) for name, value in base.items() if not _is_replaced(name, patch)}
    for name, value in patch.items():
        old, where = merged.get(name), f"{path}.{name}"
        if value is None:
            merged.pop(name, None)
        elif isinstance(old, Mapping):
            if not isinstance(value, Mapping):
                raise SpecError(f"{where}: must be an object")
            by_type = name in _BY_TYPE and value.get("type", old.get("type")) != old.get("type")
            merged[name] = deepcopy(dict(value)) if by_type else merge(old, value, where)
        elif isinstance(old, list) and not isinstance(value, list):
            raise SpecError(f"{where}: must be a list")
        elif isinstance(value, list) and name in _KEYS:
            merged[name] = _merge_lists(old or [], value, name, where)
        else:
            merged[name] = deepcopy(value)
    return merged


def _is_replaced(name: str, patch: Mapping[str, Any]) -> bool:
    """The patch has another of a group of which there can be only one."""
    for group in _ONE_OF:
        if name in group:
            given = {one for one in group & patch.keys() if patch[one] is not None}
            return bool(given) and name not in given
    return False


def _merge_lists(base: list[Any], patch: list[Any], name: str, path: str) -> list[Any]:
    """Entries with the same keys are merged, in the order of `base`; new ones follow."""
    merged = {_key(entry, name, path): entry for entry in base}
    seen = set()
    for index, entry in enumerate(patch):
        where = f"{path}[{index}]"
        key = _key(entry, name, where)
        if key in seen:
            raise SpecError(f"{where}: {', '.join(map(str, key))} stands here twice")
        seen.add(key)
        old = merged.get(key, {})
        if name == "volumes" and (source := set(entry) - {"name"}) and not source & set(old):
            old = {"name": old["name"]} if old else {}
        merged[key] = merge(old, entry, where)
    return list(merged.values())


def _key(entry: Any, name: str, where: str) -> tuple[Any, ...]:
    """What tells the entry from the others."""
    if not isinstance(entry, Mapping):
        raise SpecError(f"{where}: must be an object")
    key = tuple(entry.get(one, _DEFAULTS.get(one)) for one in _KEYS[name])
    for one, value in zip(_KEYS[name], key, strict=True):
        if not isinstance(value, str | int):
            raise SpecError(f"{where}: needs {one}")
    return key
