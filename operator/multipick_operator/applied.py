"""Remembers what was applied for one pool, so that a reconcile without a change writes nothing."""

import hashlib
import json

from multipick_operator.children import Ref
from multipick_operator.children.names import Manifest

CONTROLLERS = ("deployment.kubernetes.io/", "pv.kubernetes.io/", "volume.kubernetes.io/")  # notes of Kubernetes' own


class Applied:
    """Invariant: for each child, the hash of the manifest last applied and the fingerprint of what came of it."""

    def __init__(self) -> None:
        self._of: dict[Ref, tuple[str, str]] = {}

    def is_current(self, ref: Ref, manifest: Manifest, live: Manifest | None) -> bool:
        """The live object is what came of applying this very manifest."""
        known = self._of.get(ref)
        return live is not None and known == (_hash(manifest), fingerprint(ref, live))

    def remember(self, ref: Ref, manifest: Manifest, result: Manifest) -> None:
        """The manifest was applied, and the API server answered with `result`."""
        self._of[ref] = (_hash(manifest), fingerprint(ref, result))

    def forget(self, ref: Ref) -> None:
        """The child is gone, or no longer ours."""
        self._of.pop(ref, None)


def fingerprint(ref: Ref, live: Manifest) -> str:
    """Changes with anything that somebody could have changed about the object, and not with its status."""
    meta = live["metadata"]
    if ref.kind == "Secret":  # read without its content
        return f"{meta['uid']} {meta['resourceVersion']}"
    kept = {name: value for name, value in meta.items() if name not in ("managedFields", "resourceVersion")}
    kept["annotations"] = {
        name: value for name, value in meta.get("annotations", {}).items() if not name.startswith(CONTROLLERS)
    }
    return _hash({name: value for name, value in live.items() if name != "status"} | {"metadata": kept})


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
