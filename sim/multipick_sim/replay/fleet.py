"""The engines of a pool, and the telling of what they did to the pickers' knowledge, each thing at its time."""

from collections import deque
from collections.abc import Callable, Sequence

from multipick_sim.engine.engine import Engine
from multipick_sim.engine.values import Request, Step, Stored
from multipick_sim.replay.flight import Flight
from multipick_sim.replay.loads import Loads
from multipick_sim.replay.residency import Residency
from multipick_sim.replay.setup import Setup


class Gauges:
    """The engines' gauges at the last look."""

    def __init__(self, engines: Sequence[Engine]) -> None:
        self.waiting = [float(engine.waiting) for engine in engines]
        self.running = [float(engine.running) for engine in engines]
        self.kv_usage = [engine.kv_usage for engine in engines]


class PrefillRate:
    """Tokens that an engine prefills in a second, by the steps that prefilled any; the last hundred or so count."""

    def __init__(self) -> None:
        self._tokens = self._seconds = 0.0

    def add(self, tokens: int, seconds: float) -> None:
        """One such step."""
        self._tokens = 0.98 * self._tokens + tokens
        self._seconds = 0.98 * self._seconds + seconds

    @property
    def tokens_s(self) -> float:
        """0 before the first."""
        return self._tokens / self._seconds if self._seconds else 0.0


class Fleet:
    """Engines in simulated time.

    Invariant: `_flights` are the requests that were sent and not seen to end. A step's outcome is told when the step is
    over, its events `hits_late_s` after that.
    """

    def __init__(self, setup: Setup, ended: Callable[[Flight], None]) -> None:
        """`ended` is called with each request as soon as its end is known, which may be ahead of the clock."""
        self.engines = setup.engines()
        self.residencies = [Residency() for _ in self.engines]
        self.gauges = Gauges(self.engines)
        self.shortest_step_s = min(engine.costs.step_s(0, 0, 1, 0) for engine in self.engines)
        self.prefills = [PrefillRate() for _ in self.engines]
        self._block_size = setup.block_size
        self._late_s = setup.hits_late_s
        self._ended = ended
        self._flights: dict[str, tuple[Flight, Loads]] = {}
        self._events: list[deque[Step]] = [deque() for _ in self.engines]  # whose events are not told yet
        self._ends: list[deque[Step]] = [deque() for _ in self.engines]  # whose finished requests are not

    @property
    def busy(self) -> bool:
        """Whether any engine has work."""
        return any(engine.busy for engine in self.engines)

    def send(self, request_id: str, flight: Flight, loads: Loads) -> None:
        """A request arrives at its engine. The engines have advanced to its time."""
        item = flight.item
        self._flights[request_id] = (flight, loads)
        request = Request(request_id, item.prompt_tokens, item.output_tokens, flight.keys)
        self.engines[flight.row].submit(request, flight.at_s)

    def look(self) -> None:
        """Read the gauges."""
        self.gauges = Gauges(self.engines)

    def advance(self, until: float) -> None:
        """Let the engines begin all steps before `until`."""
        for row, engine in enumerate(self.engines):
            for step in engine.advance(until):
                if step.events or step.first_tokens:
                    self._events[row].append(step)
                if step.finished:
                    self._ends[row].append(step)
                self._note(step)

    def tell(self, now: float) -> None:
        """Let the pickers know what they can know at `now`."""
        for row, steps in enumerate(self._events):
            while steps and steps[0].end_s + self._late_s <= now:
                self._tell_events(row, steps.popleft())
        for steps in self._ends:
            while steps and steps[0].end_s <= now:
                step = steps.popleft()
                for name in step.finished:
                    flight, loads = self._flights.pop(name)
                    loads.ended(flight, step.end_s)
                    flight.keys = ()  # a whole trace of them would be hundreds of megabytes

    def _note(self, step: Step) -> None:
        """Write down what the requests themselves saw."""
        for admission in step.admitted:
            self._flights[admission.request_id][0].cached_tokens = admission.hit_tokens
        for name in step.first_tokens:
            self._flights[name][0].first_s = step.end_s
        for name in step.finished:
            flight = self._flights[name][0]
            flight.end_s = step.end_s
            self._ended(flight)

    def _tell_events(self, row: int, step: Step) -> None:
        self.residencies[row].apply(step.events)
        if step.computed_tokens:
            self.prefills[row].add(step.computed_tokens, step.end_s - step.start_s)
        told_s = step.end_s + self._late_s
        for event in step.events:
            if isinstance(event, Stored) and (known := self._flights.get(event.request_id)):
                flight, loads = known
                if flight.left:
                    loads.progressed(flight, self._left(flight, event.first + len(event.hashes)), told_s)
        for name in step.first_tokens:
            if known := self._flights.get(name):
                flight, loads = known
                loads.prefilled(flight, told_s)

    def _left(self, flight: Flight, stored_blocks: int) -> int:
        """Prompt tokens still to be prefilled once so many blocks are stored; the tail is computed with the last."""
        if stored_blocks >= flight.prompt_blocks:
            return 0
        return flight.item.prompt_tokens - stored_blocks * self._block_size
