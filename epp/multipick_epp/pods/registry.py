"""The endpoints of the pool: who exists, who is ready, and the last gauges of each."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from multipick_epp.pods.engine_metrics import Gauges
from multipick_epp.pods.unseen import Unseen
from multipick_epp.types import Endpoint


@dataclass(frozen=True, slots=True)
class PodEndpoint:
    """One endpoint as its source describes it."""

    endpoint: Endpoint
    events: str | None = None  # tcp://… of the KV-event publisher; None: asked of the engine, else by the pool's ports
    replay: str | None = None
    topic: str = ""
    started_ms: int | None = None  # start of the container, where the source knows: a new one is a new epoch


@dataclass(slots=True)
class EndpointState:
    """What is known of one endpoint now."""

    pod: PodEndpoint
    ready: bool = False
    gauges: Gauges | None = None  # None until the first scrape
    unseen: Unseen = field(default_factory=Unseen)
    picked: int = 0  # requests that this picker sent there since the last scrape


class Registry:
    """Invariant: `_ready` lists exactly the ready endpoints of `_states`, in the order in which they came."""

    def __init__(self) -> None:
        self._states: dict[Endpoint, EndpointState] = {}
        self._ready: tuple[Endpoint, ...] = ()
        self._listeners: list[Callable[[Sequence[PodEndpoint]], None]] = []
        self._gone: list[Callable[[Endpoint], None]] = []

    def on_change(self, listener: Callable[[Sequence[PodEndpoint]], None]) -> None:
        """Call `listener` with all endpoints whenever one comes, goes or restarts."""
        self._listeners.append(listener)

    def on_gone(self, listener: Callable[[Endpoint], None]) -> None:
        """Call `listener` for each endpoint that left the pool for good."""
        self._gone.append(listener)

    def set(self, pods: Iterable[PodEndpoint]) -> None:
        """The pool consists of exactly these endpoints from now on; new ones start as not ready."""
        wanted = {pod.endpoint: pod for pod in pods}
        if wanted == {endpoint: state.pod for endpoint, state in self._states.items()}:
            return
        gone = [endpoint for endpoint in self._states if endpoint not in wanted]
        for endpoint in gone:
            del self._states[endpoint]
        for endpoint, pod in wanted.items():
            if endpoint in self._states:
                self._states[endpoint].pod = pod
            else:
                self._states[endpoint] = EndpointState(pod)
        self._refresh()
        for endpoint in gone:
            for leave in self._gone:
                leave(endpoint)
        for listener in self._listeners:
            listener(list(wanted.values()))

    def mark(self, endpoint: Endpoint, ready: bool) -> None:
        """The endpoint can, or can't, serve now. Its cache stays known either way."""
        state = self._states.get(endpoint)
        if state is not None and state.ready != ready:
            state.ready = ready
            self._refresh()

    def scraped(self, endpoint: Endpoint, gauges: Gauges, unseen: Unseen) -> None:
        """A look at the engine's metrics came back."""
        if state := self._states.get(endpoint):
            state.gauges, state.unseen, state.picked = gauges, unseen, 0

    def all(self) -> Sequence[Endpoint]:
        """Every endpoint, ready or not."""
        return tuple(self._states)

    def state(self, endpoint: Endpoint) -> EndpointState | None:
        """What is known of it; None for one that is not of the pool."""
        return self._states.get(endpoint)

    def ready(self, subset: Sequence[str] | None = None) -> Sequence[Endpoint]:
        """Endpoints that can serve; with a subset hint (`ip:port`, or `ip` for all its ports) only those it names."""
        if subset is None:
            return self._ready
        named = set(subset)
        return tuple(e for e in self._ready if e in named or e.rpartition(":")[0] in named)

    def _refresh(self) -> None:
        self._ready = tuple(endpoint for endpoint, state in self._states.items() if state.ready)
