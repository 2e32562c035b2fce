"""Which replica ingests which endpoint: rendezvous hashing; a replica that comes or goes moves only its share."""

from collections.abc import Iterable, Sequence

from xxhash import xxh3_64_intdigest

from multipick_epp.types import Endpoint, ReplicaId


def owner_of(endpoint: Endpoint, replicas: Iterable[ReplicaId]) -> ReplicaId | None:
    """The replica with the highest hash together with `endpoint`; None where there are no replicas."""
    return max(
        replicas, key=lambda replica: (xxh3_64_intdigest(f"{endpoint}\0{replica}".encode()), replica), default=None
    )


def owned_by(me: ReplicaId, endpoints: Iterable[Endpoint], replicas: Sequence[ReplicaId]) -> Sequence[Endpoint]:
    """Those of `endpoints` that are `me`'s."""
    return [endpoint for endpoint in endpoints if owner_of(endpoint, replicas) == me]
