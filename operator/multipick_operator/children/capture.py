"""Own traffic that the pickers keep: what they are told, and the volume that it goes to."""

from typing import Any

from multipick_operator.api.routing import Capture
from multipick_operator.children.names import Manifest

FOLDER = "/var/lib/multipick/capture"
MOUNT: Manifest = {"name": "capture", "mountPath": FOLDER}
_SPARE_MIB = 8


def configuration(capture: Capture) -> dict[str, Any]:
    """The section of the picker's configuration."""
    return {"path": FOLDER, "file_bytes": capture.file_bytes, "files": capture.files}


def volume(capture: Capture) -> Manifest:
    """The claim that the pool names, or one that lives as long as the pod and holds all files."""
    if capture.claim_name:
        return {"name": "capture", "persistentVolumeClaim": {"claimName": capture.claim_name}}
    most = (capture.files + 1) * capture.file_bytes  # one is begun before the oldest goes
    return {"name": "capture", "emptyDir": {"sizeLimit": f"{-(-most // (1 << 20)) + _SPARE_MIB}Mi"}}
