"""Where a model, an adapter or a tokenizer lies: a URI -> what the engine is told, and the volume that it needs."""

import hashlib
import re
from dataclasses import dataclass
from typing import Any

from multipick_operator.api.pool import Pool
from multipick_operator.children.names import Manifest


@dataclass(frozen=True, slots=True)
class Artifact:
    """`source` is a path in the container or what the engine itself can fetch."""

    source: str
    volume: Manifest | None = None
    mount: Manifest | None = None


def artifact(uri: str, name: str) -> Artifact:
    """Read a URI whose form the CRD checked; a volume of it is called `name` and mounted read-only below /mnt."""
    scheme, found, rest = uri.partition("://")
    if not found or scheme == "s3":
        return Artifact(uri)
    if scheme == "hf":
        return Artifact(rest)
    mount = f"/mnt/{name}"
    if scheme == "oci":
        source: dict[str, Any] = {"image": {"reference": rest}}
        path = ""
    else:
        claim, _, path = rest.partition("/")
        source = {"persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
    return Artifact(
        f"{mount}/{path}".rstrip("/"),
        {"name": name, **source},
        {"name": name, "mountPath": mount, "readOnly": True},
    )


def weights_folder(pool: Pool) -> str | None:
    """Where the init step puts the model; None: there is no such step. Another model or revision has another folder."""
    uri, revision = pool.spec.model.uri or "", pool.spec.model.revision or ""
    if pool.spec.storage.fetch is None:
        return None
    name = re.sub(r"[^A-Za-z0-9._-]+", "--", uri.partition("://")[2] or uri)[-64:]
    hashed = hashlib.sha256(f"{uri} {revision}".encode()).hexdigest()[:8]
    return f"{pool.spec.storage.cache.mount_path.rstrip('/')}/weights/{name}-{hashed}"


def is_downloaded(uri: str) -> bool:
    """The engine fetches it at start, into the cache volume."""
    return not uri.startswith(("pvc://", "oci://", "/"))


def claim_of(uri: str | None) -> str | None:
    """The PersistentVolumeClaim that the URI names, if it names one."""
    if uri is None or not uri.startswith("pvc://"):
        return None
    return uri.removeprefix("pvc://").partition("/")[0]
