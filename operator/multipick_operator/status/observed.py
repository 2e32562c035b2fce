"""What the cluster showed of one pool in one reconcile."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from multipick_operator.api.status import AdapterStatus
from multipick_operator.children.names import Manifest
from multipick_operator.children.tls import EXT_PROC_PORT
from multipick_operator.status.pickers import PickerReport


class Missing(NamedTuple):
    """Something that the spec names and that is not there."""

    kind: str  # Secret, PersistentVolumeClaim, Gateway; or a kind that the API server doesn't serve
    name: str  # empty for a whole kind


class Refusal(NamedTuple):
    """A child that is not as it should be, in the API server's words."""

    kind: str
    name: str
    reason: str  # of the condition Accepted
    message: str


@dataclass(frozen=True, slots=True)
class Observed:
    """Live objects, None where they don't exist (yet); pods include those that are leaving, but none that has ended."""

    workload: Manifest | None = None  # Deployment or LeaderWorkerSet of the engines
    picker: Manifest | None = None
    engine_pods: Sequence[Manifest] = ()
    picker_pods: Sequence[Manifest] = ()
    http_route: Manifest | None = None
    inference_pool: Manifest | None = None  # the Gateway API kind of that name
    scaler: Manifest | None = None
    missing: Sequence[Missing] = ()
    refusals: Sequence[Refusal] = ()
    image: str | None = None  # of the engines; None: no default for this engine
    revision: str = ""  # hash of the wanted pod template
    superseded: str = ""  # LeaderWorkerSet's name of the template that was wanted before; empty: of none, or not known
    shared_state: bool = False
    asked_port: int = EXT_PROC_PORT  # of the pickers' Service, that gateways ask
    store: str = ""  # address of the shared state, without credentials
    store_trouble: str = ""  # why the pool's own user there can't be made
    gateways: Sequence[Manifest] = ()  # those that the route names and that exist
    sharing: Sequence[str] = ()  # other pools that have the same pods
    shadowing: str | None = None  # the pool whose older route gets this one's requests
    reports: Sequence[PickerReport] = ()  # of the pickers that answered
    fetching: Sequence[str] = ()  # how far pods are that fetch their weights, in words
    adapters: Sequence[AdapterStatus] = ()
    warming: bool = False  # a pod has just become ready: what pickers know of it is yet to come
