"""The endpoints of the pool: who exists, who is ready, and the last gauges of each."""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from multipick_epp.engines.metrics_page import Gauges
from multipick_epp.engines.models import ServedModels
from multipick_epp.pods.columns import Columns, ports_of
from multipick_epp.pods.endpoints import EndpointState, Engine, PodEndpoint, Ranks, endpoints_of
from multipick_epp.pods.unexplained import Unexplained
from multipick_epp.types import Endpoint, Mode, address_of, host_of


class Registry:
    """Invariants: `_states` has exactly the endpoints of `_engines`, as `endpoints_of` gives them; `_ready` has exactly
    the ready ones that are not left out, with their figures, in the order they came, and `_row_of` says where. Where
    all would be left out, none is; `_spare` are the ready ones that are. `_block_sizes`, `_max_model_len` and `_sglang`
    are what all engines told, summed up anew whenever one of them tells another.

    What holds for a port as a whole (readiness, models, who is left out) is told by its address; an endpoint does, too.
    """

    def __init__(self, *, asks_ranks: bool = False) -> None:
        """`asks_ranks`: somebody asks each engine for its ranks (`expand`); until then, and anew in each incarnation,
        it is not ready.
        """
        self.known = asyncio.Event()  # set once somebody has said what the pool consists of
        self._asks_ranks = asks_ranks
        self._engines: dict[Endpoint, Engine] = {}
        self._states: dict[Endpoint, EndpointState] = {}
        self._left_out: frozenset[Endpoint] = frozenset()
        self._ready = _columns([])
        self._row_of: dict[Endpoint, int] = {}
        self._spare: Sequence[EndpointState] = ()
        self._block_sizes: Mapping[int, int] = {}
        self._max_model_len: int | None = None
        self._sglang = False
        self._listeners: list[Callable[[Sequence[PodEndpoint]], None]] = []
        self._gone: list[Callable[[Endpoint], None]] = []
        self._anew: list[Callable[[Endpoint], None]] = []

    def on_change(self, listener: Callable[[Sequence[PodEndpoint]], None]) -> None:
        """Call `listener` with all endpoints whenever one comes, goes or restarts."""
        self._listeners.append(listener)

    def on_gone(self, listener: Callable[[Endpoint], None]) -> None:
        """Call `listener` for each endpoint that left the pool for good, when it has."""
        self._gone.append(listener)

    def on_anew(self, listener: Callable[[Endpoint], None]) -> None:
        """Call `listener` with the address of each engine that may be another one from now on."""
        self._anew.append(listener)

    def set(self, pods: Iterable[PodEndpoint]) -> None:
        """The pool consists of exactly these from now on; new ones start as not ready, and with one rank."""
        self.known.set()
        wanted = {pod.endpoint: pod for pod in pods}
        if wanted == {address: engine.pod for address, engine in self._engines.items()}:
            return
        for address in self._engines.keys() - wanted.keys():
            del self._engines[address]
        self._sum_up_served()
        for address, pod in wanted.items():
            if engine := self._engines.get(address):
                before, engine.pod = engine.pod, pod
                if before.started_ms != pod.started_ms:
                    self._begins_anew(engine)
            else:
                self._engines[address] = Engine(pod, told=not self._asks_ranks)
        self._follow()

    def expand(self, address: Endpoint, ranks: Ranks) -> None:
        """Its engine has these data-parallel ranks."""
        engine = self._engines.get(address)
        if engine is None or (engine.told and engine.ranks == ranks):
            return
        before, engine.ranks, engine.told = engine.ranks, ranks, True
        if before == ranks:
            self._refresh()
        else:
            self._follow()

    def mark(self, address: Endpoint, up: bool) -> bool:
        """The engine can, or can't, serve now. Its cache stays known either way. Whether that is news."""
        engine = self.engine(address)
        if engine is None or engine.up == up:
            return False
        engine.up = up
        if up:
            self._begins_anew(engine)
        self._refresh()
        return True

    def leave_out(self, addresses: Collection[Endpoint]) -> None:
        """No request goes to these for now, though they are ready: unless nobody else is."""
        if self._left_out != frozenset(addresses):
            self._left_out = frozenset(addresses)
            self._refresh()

    def serves(self, address: Endpoint, served: ServedModels) -> None:
        """Its engine said which models it serves now."""
        engine = self.engine(address)
        if engine is not None and engine.served != served:
            engine.served = served
            self._sum_up_served()

    def scraped(self, endpoint: Endpoint, gauges: Gauges, unexplained: Unexplained) -> None:
        """A look at the engine's metrics came back."""
        if state := self._states.get(endpoint):
            before = state.gauges.block_size if state.gauges else None
            state.gauges, state.unexplained, state.picked, state.unseen = gauges, unexplained, 0, False
            if gauges.block_size != before:
                self._sum_up_sizes()
            if (row := self._row_of.get(endpoint)) is not None:
                _write(self._ready, row, state)
                self._ready.unscraped.discard(endpoint)

    def unseen(self, address: Endpoint) -> None:
        """The metrics of its engine can't be had: what they said last, of load and of strangers, may be long over."""
        for endpoint in self.endpoints_at(address):
            if state := self._states.get(endpoint):
                state.unexplained, state.unseen = Unexplained(), True
                if (row := self._row_of.get(endpoint)) is not None:
                    _write(self._ready, row, state)
                    self._ready.unscraped.add(endpoint)

    def picked(
        self, endpoint: Endpoint, prompt_tokens: int, hit_tokens: int, *, sure: bool = True, read: bool = False
    ) -> None:
        """This picker sends a request there. Not `sure`: to its port, whose engine may serve it by another rank.

        `read`: the prompt is known, and may hit.
        """
        if state := self._states.get(endpoint):
            state.picked += 1
            state.sent.requests += 1
            state.sent.prompt_tokens += prompt_tokens
            state.sent.hit_tokens += hit_tokens
            state.sent.read_tokens += prompt_tokens if read else 0
            state.longest_prompt = max(state.longest_prompt, prompt_tokens if sure else 0)
            if (row := self._row_of.get(endpoint)) is not None:
                self._ready.picked[row] = state.picked

    def all(self) -> Sequence[Endpoint]:
        """Every endpoint, ready or not."""
        return tuple(self._states)

    def addresses(self) -> Collection[Endpoint]:
        """Every port at which there is an endpoint, or several."""
        return self._engines.keys()

    def endpoints_at(self, address: Endpoint) -> Sequence[Endpoint]:
        """One for each rank there; none at a port that is not of the pool."""
        engine = self._engines.get(address)
        return [pod.endpoint for pod in endpoints_of(engine)] if engine else ()

    def engine(self, address: Endpoint) -> Engine | None:
        """What is behind this port; None for one that is not of the pool."""
        return self._engines.get(address_of(address))

    def untold(self) -> Sequence[Endpoint]:
        """Addresses of engines that could serve, if only their ranks were known."""
        return [address for address, engine in self._engines.items() if engine.up and not engine.told]

    def state(self, endpoint: Endpoint) -> EndpointState | None:
        """What is known of it; None for one that is not of the pool."""
        return self._states.get(endpoint)

    def block_sizes(self) -> Mapping[int, int]:
        """The block sizes that engines which can serve told of, tokens, and how many told of each.

        All ranks of one engine have one vote.
        """
        return self._block_sizes

    @property
    def max_model_len(self) -> int | None:
        """The longest context of any engine, tokens; None before one has said so."""
        return self._max_model_len

    @property
    def sglang(self) -> bool:
        """Engines are SGLang's, one at least; a pool has one kind."""
        return self._sglang

    def mode(self, endpoint: Endpoint, known: Mode) -> Mode:
        """How well a decision for the endpoint knows it, whose cache is `known` so well."""
        state = self._states.get(endpoint)
        return Mode.APPROX if known is Mode.EXACT and state and state.engine.ranks.doubt else known

    def ready(self, subset: Sequence[str] | None = None, model: str | None = None) -> Columns:
        """Endpoints that can serve; with a subset hint (`ip:port`, or `ip` for all its ports) only those it names.

        With `model` those whose engines have it now, where some have: else any engine may know how to load it. Who is
        left out comes in where nobody else is named, or has the model.
        """
        if subset is None and model is None:
            return self._ready
        endpoints, spare = self._ready.endpoints, self._spare
        rows: Sequence[int] = range(len(endpoints))
        if subset is not None:
            named = set(subset)
            rows = [row for row in rows if names(named, endpoints[row])]
            spare = [state for state in spare if names(named, state.pod.endpoint)]
        if model is not None:
            if having := [row for row in rows if self._has(endpoints[row], model)]:
                return self._ready.only(having)
            if having_it := [state for state in spare if self._has(state.pod.endpoint, model)]:
                return _columns(having_it)
        return self._ready.only(rows) if rows else _columns(spare)

    def _begins_anew(self, engine: Engine) -> None:
        engine.incarnation += 1
        engine.served = None
        self._sum_up_served()
        engine.told = not self._asks_ranks
        for endpoint in self.endpoints_at(engine.pod.endpoint):
            if state := self._states.get(endpoint):
                state.longest_prompt = 0
        for listener in self._anew:
            listener(engine.pod.endpoint)

    def _follow(self) -> None:
        """The engines, or their ranks, are others: so are the endpoints."""
        wanted = {pod.endpoint: (pod, engine) for engine in self._engines.values() for pod in endpoints_of(engine)}
        gone = {endpoint: state for endpoint, state in self._states.items() if endpoint not in wanted}
        for endpoint in gone:
            del self._states[endpoint]
        for endpoint, (pod, engine) in wanted.items():
            if state := self._states.get(endpoint):
                state.pod = pod
            else:
                whole = gone.get(engine.pod.endpoint)
                seen = whole.gauges.ranks.get(pod.rank) if whole and whole.gauges else None
                self._states[endpoint] = EndpointState(pod, engine, gauges=seen)
        self._refresh()
        for endpoint in gone:
            for leave in self._gone:
                leave(endpoint)
        for listener in self._listeners:
            listener([pod for pod, _ in wanted.values()])

    def _has(self, endpoint: Endpoint, model: str) -> bool:
        served = self._states[endpoint].served
        return served is not None and (model in served.adapters or model in served.names)

    def _refresh(self) -> None:
        ready = [state for state in self._states.values() if state.ready]
        offered = [each for each in ready if each.engine.pod.endpoint not in self._left_out]
        self._ready = _columns(offered or ready)
        self._spare = [each for each in ready if each.engine.pod.endpoint in self._left_out] if offered else ()
        self._row_of = {endpoint: row for row, endpoint in enumerate(self._ready.endpoints)}
        self._sum_up_sizes()

    def _sum_up_sizes(self) -> None:
        states = (state for state in self._states.values() if state.ready and state.gauges)
        told = {(s.engine.pod.endpoint, s.gauges.block_size) for s in states if s.gauges and s.gauges.block_size}
        self._block_sizes = Counter(size for _, size in told)

    def _sum_up_served(self) -> None:
        served = [engine.served for engine in self._engines.values() if engine.served]
        self._max_model_len = max((each.max_model_len for each in served if each.max_model_len), default=None)
        self._sglang = any(each.takes_any for each in served)


def names(subset: Collection[str], endpoint: Endpoint) -> bool:
    """Whether a subset hint (`ip:port`, or `ip` for all its ports) names it."""
    return address_of(endpoint) in subset or host_of(endpoint) in subset


def _columns(states: Sequence[EndpointState]) -> Columns:
    endpoints = [state.pod.endpoint for state in states]
    count = len(states)
    columns = Columns(
        endpoints,
        *([0] * count, [0] * count),
        *([0.0] * count, [0.0] * count, [0.0] * count),
        [0] * count,
        {state.pod.endpoint for state in states if state.gauges is None or state.unseen},
        ports_of(endpoints),
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
