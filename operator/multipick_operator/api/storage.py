"""The storage part of the spec: where weights are kept."""

from enum import StrEnum
from typing import Annotated

from msgspec import Meta

from multipick_operator.api.fields import ObjectName, Quantity, Spec
from multipick_operator.api.texts import ImageName, MountPath


class CacheType(StrEnum):
    """Where downloaded weights live."""

    EMPTY_DIR = "EmptyDir"
    PVC = "PVC"
    HOST_PATH = "HostPath"
    EXISTING_CLAIM = "ExistingClaim"


class AccessMode(StrEnum):
    """Who may mount the cache's claim."""

    MANY = "ReadWriteMany"
    ONCE = "ReadWriteOnce"


class Retention(StrEnum):
    """What becomes of the cache's claim when nobody uses it any more."""

    RETAIN = "Retain"
    DELETE = "Delete"


class Cache(Spec, frozen=True):
    """The volume that downloaded weights go to."""

    type: Annotated[CacheType, Meta(description="EmptyDir: each pod downloads for itself, into its node's disk.")] = (
        CacheType.EMPTY_DIR
    )
    size: (
        Annotated[
            Quantity,
            Meta(
                description="EmptyDir: ephemeral storage that each pod asks of its node; none where not given. "
                "PVC: size of the claim, 100Gi where not given."
            ),
        ]
        | None
    ) = None
    storage_class_name: (
        Annotated[ObjectName, Meta(description="PVC: the cluster's default where not given.")] | None
    ) = None
    access_mode: (
        Annotated[
            AccessMode,
            Meta(
                description="PVC: where not given, ReadWriteOnce for a pool that never has more than one pod, else "
                "ReadWriteMany, and what the claim has once it is there."
            ),
        ]
        | None
    ) = None
    retention: Annotated[
        Retention,
        Meta(description="PVC: Retain keeps the claim when the cache's type changes or the pool is deleted."),
    ] = Retention.RETAIN
    claim_name: (
        Annotated[ObjectName, Meta(description="ExistingClaim: name of the claim. Not given for other types.")] | None
    ) = None
    host_path: (
        Annotated[
            str,
            Meta(max_length=1024, pattern="^/", description="HostPath: folder of the node. Not given for other types."),
        ]
        | None
    ) = None
    mount_path: Annotated[MountPath, Meta(description="Where the engine finds the cache.")] = "/models"


class Fetch(Spec, frozen=True):
    """An init step that fetches weights of hf:// or s3:// into the cache's volume, once a volume."""

    image: (
        Annotated[
            ImageName,
            Meta(
                description="Image of the step: with Python 3.9 or later, and huggingface_hub for hf:// or boto3 for "
                "s3://; the engine's where not given."
            ),
        ]
        | None
    ) = None
    secret_name: (
        Annotated[
            ObjectName,
            Meta(
                description="Secret whose keys are the step's environment: HF_TOKEN, AWS_ACCESS_KEY_ID, ...; none "
                "where not given."
            ),
        ]
        | None
    ) = None


class Storage(Spec, frozen=True):
    """Where weights are kept."""

    cache: Cache = Cache()
    fetch: Fetch | None = None
