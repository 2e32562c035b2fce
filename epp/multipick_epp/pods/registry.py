"""The endpoints of the pool: who exists, who is ready, and the last gauges of each."""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from multipick_epp.engines.metrics_page import Gauges
from multipick_epp.engines.models import ServedModels
from multipick_epp.pods.columns import Columns
from multipick_epp.pods.unexplained import Unexplained
from multipick_epp.types import Endpoint


@dataclass(frozen=True, slots=True)
class PodEndpoint:
    """One endpoint as its source describes it."""

    endpoint: Endpoint
    events: str | None = None  # tcp://… of the KV-event publisher; None: asked of the engine, else by the pool's ports
    replay: str | None = None
    started_ms: int | None = None  # start of the container, where the source knows: a new one is a new epoch
    rank: int = 0  # data-parallel rank behind this endpoint


@dataclass(slots=True)
class Sent:
    """What this picker sent to an endpoint since it came."""

    requests: int = 0
    prompt_tokens: int = 0
    hit_tokens: int = 0  # of the prompt tokens, predicted as resident


@dataclass(slots=True)
class EndpointState:
    """What is known of one endpoint now."""

    pod: PodEndpoint
    ready: bool = False
    incarnation: int = 0  # grows whenever the engine may be another one: it became ready, or its container was started
    longest_prompt: int = 0  # tokens, of the prompts that this picker sent to this incarnation
    gauges: Gauges | None = None  # None until the first scrape
    served: ServedModels | None = None  # by this incarnation; None until it has said so
    unexplained: Unexplained = field(default_factory=Unexplained)
    picked: int = 0  # requests that this picker sent there since the last scrape
    sent: Sent = field(default_factory=Sent)

    def begins_anew(self) -> None:
        """The engine may be another one."""
        self.incarnation += 1
        self.longest_prompt = 0
        self.served = None


class Registry:
    """Invariant: `_ready` has exactly the ready endpoints of `_states` that are not left out, with their figures, in
    the order they came; `_row_of` says where. Where all would be left out, none is.
    """

    def __init__(self) -> None:
        self.known = asyncio.Event()  # set once somebody has said what the pool consists of
        self._states: dict[Endpoint, EndpointState] = {}
        self._left_out: frozenset[Endpoint] = frozenset()
        self._ready = _columns([])
        self._row_of: dict[Endpoint, int] = {}
        self._listeners: list[Callable[[Sequence[PodEndpoint]], None]] = []
        self._gone: list[Callable[[Endpoint], None]] = []
        self._anew: list[Callable[[Endpoint], None]] = []

    def on_change(self, listener: Callable[[Sequence[PodEndpoint]], None]) -> None:
        """Call `listener` with all endpoints whenever one comes, goes or restarts."""
        self._listeners.append(listener)

    def on_gone(self, listener: Callable[[Endpoint], None]) -> None:
        """Call `listener` for each endpoint that left the pool for good."""
        self._gone.append(listener)

    def on_anew(self, listener: Callable[[Endpoint], None]) -> None:
        """Call `listener` for each endpoint whose engine may be another one from now on."""
        self._anew.append(listener)

    def set(self, pods: Iterable[PodEndpoint]) -> None:
        """The pool consists of exactly these endpoints from now on; new ones start as not ready."""
        self.known.set()
        wanted = {pod.endpoint: pod for pod in pods}
        if wanted == {endpoint: state.pod for endpoint, state in self._states.items()}:
            return
        gone = [endpoint for endpoint in self._states if endpoint not in wanted]
        for endpoint in gone:
            del self._states[endpoint]
        for endpoint, pod in wanted.items():
            if state := self._states.get(endpoint):
                if state.pod.started_ms != pod.started_ms:
                    self._begins_anew(state)
                state.pod = pod
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
            if ready:
                self._begins_anew(state)
            self._refresh()

    def leave_out(self, endpoints: Collection[Endpoint]) -> None:
        """No request goes to these for now, though they are ready: unless nobody else is."""
        if self._left_out != frozenset(endpoints):
            self._left_out = frozenset(endpoints)
            self._refresh()

    def serves(self, endpoint: Endpoint, served: ServedModels) -> None:
        """Its engine said which models it serves now."""
        if state := self._states.get(endpoint):
            state.served = served

    def scraped(self, endpoint: Endpoint, gauges: Gauges, unexplained: Unexplained) -> None:
        """A look at the engine's metrics came back."""
        if state := self._states.get(endpoint):
            state.gauges, state.unexplained, state.picked = gauges, unexplained, 0
            if (row := self._row_of.get(endpoint)) is not None:
                _write(self._ready, row, state)
                self._ready.unscraped.discard(endpoint)

    def picked(self, endpoint: Endpoint, prompt_tokens: int, hit_tokens: int) -> None:
        """This picker sends a request there."""
        if state := self._states.get(endpoint):
            state.picked += 1
            state.sent.requests += 1
            state.sent.prompt_tokens += prompt_tokens
            state.sent.hit_tokens += hit_tokens
            state.longest_prompt = max(state.longest_prompt, prompt_tokens)
            if (row := self._row_of.get(endpoint)) is not None:
                self._ready.picked[row] = state.picked

    def all(self) -> Sequence[Endpoint]:
        """Every endpoint, ready or not."""
        return tuple(self._states)

    def state(self, endpoint: Endpoint) -> EndpointState | None:
        """What is known of it; None for one that is not of the pool."""
        return self._states.get(endpoint)

    def block_sizes(self) -> Mapping[int, int]:
        """The block sizes that engines which can serve told of, tokens, and how many told of each."""
        states = (state for state in self._states.values() if state.ready and state.gauges)
        return Counter(s.gauges.block_size for s in states if s.gauges and s.gauges.block_size)

    @property
    def max_model_len(self) -> int | None:
        """The longest context of any engine, tokens; None before one has said so."""
        lengths = (state.served.max_model_len for state in self._states.values() if state.served)
        return max((length for length in lengths if length), default=None)

    def ready(self, subset: Sequence[str] | None = None, model: str | None = None) -> Columns:
        """Endpoints that can serve; with a subset hint (`ip:port`, or `ip` for all its ports) only those it names.

        With `model` those whose engines have it now, where some have: else any engine may know how to load it.
        """
        if subset is None and model is None:
            return self._ready
        rows: Sequence[int] = range(len(self._ready.endpoints))
        if subset is not None:
            named, endpoints = set(subset), self._ready.endpoints
            rows = [row for row in rows if endpoints[row] in named or endpoints[row].rpartition(":")[0] in named]
        if model is not None:
            rows = [row for row in rows if self._has(self._ready.endpoints[row], model)] or rows
        return self._ready.only(rows)

    def _begins_anew(self, state: EndpointState) -> None:
        state.begins_anew()
        for listener in self._anew:
            listener(state.pod.endpoint)

    def _has(self, endpoint: Endpoint, model: str) -> bool:
        served = self._states[endpoint].served
        return served is not None and (model in served.adapters or model in served.names)

    def _refresh(self) -> None:
        ready = [state for state in self._states.values() if state.ready]
        self._ready = _columns([state for state in ready if state.pod.endpoint not in self._left_out] or ready)
        self._row_of = {endpoint: row for row, endpoint in enumerate(self._ready.endpoints)}


def _columns(states: Sequence[EndpointState]) -> Columns:
    endpoints = [state.pod.endpoint for state in states]
    count = len(states)
    columns = Columns(
        endpoints,
        *([0] * count, [0] * count),
        *([0.0] * count, [0.0] * count, [0.0] * count),
        [0] * count,
        {state.pod.endpoint for state in states if state.gauges is None},
    )
    for row, state in enumerate(states):
        _write(columns, row, state)
    return columns


def _write(columns: Columns, row: int, state: EndpointState) -> None:
    columns.unexplained_queued[row] = state.unexplained.queued_tokens
    columns.unexplained_in_flight[row] = state.unexplained.in_flight
    columns.picked[row] = state.picked
    if state.gauges:
        columns.waiting[row] = state.gauges.waiting
        columns.running[row] = state.gauges.running
        columns.kv_usage[row] = state.gauges.kv_usage
