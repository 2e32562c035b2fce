"""Which endpoints are left out, since their own failures stand out from their peers' (Envoy: outlier ejection). Pure.

Rules
  1. An endpoint is left out after IN_A_ROW failures without a success between them, if at least half of what it was
     sent lately failed, and its peers fail at most half as often. Where all fail, it is not the endpoints' doing.
  2. It is left out for a pause that doubles each time, up to the longest. Then it is on trial: one request at a time
     goes there. TRIALS successes in a row bring it back; a request that fails leaves it out again, a look by rule 1.
  3. What other pickers decided holds here, too, as if it had been decided here (`learn`).
  4. Nothing here knows who is ready; whoever uses `left_out` never lets it take the last endpoint.

A request that fails by its client's doing is neither a success nor a failure: who calls sorts that out. Looks at an
engine's metrics are counted apart from requests: where a policy of the network keeps them from all, nobody stands out.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum, auto
from math import exp2

from multipick_epp.types import Endpoint

IN_A_ROW = 3
LEAST_SHARE = 0.5
TRIALS = 2
FIRST_PAUSE_S = 5.0
LONGEST_PAUSE_S = 300.0
HALF_LIFE_S = 10.0
"""So fast the past is forgotten when failures are weighed against successes."""
TRIAL_S = 60.0
"""A trial whose outcome nobody told in this time is taken for neither; the next one may go."""
CALM_S = 600.0
"""After so long in the pool, an endpoint's next pause is the first again."""


_MANY = 10  # doublings


class Signal(StrEnum):
    """What tells of a failure; each is weighed by itself."""

    REQUEST = "request"  # a 5xx of the endpoint's own, a reset, a refused connection, a 404 that its peers don't give
    LOOK = "look"  # its metrics can't be reached


@dataclass(slots=True)
class _Tally:
    """Successes and failures of late: each counts half as much after HALF_LIFE_S."""

    ok: float = 0.0
    failed: float = 0.0
    in_a_row: int = 0
    at_s: float = 0.0

    def decay(self, now_s: float) -> None:
        factor = exp2((self.at_s - now_s) / HALF_LIFE_S)
        self.ok *= factor
        self.failed *= factor
        self.at_s = now_s


class _Standing(Enum):
    IN = auto()  # in the pool
    OUT = auto()  # until the pause is over
    TRIAL = auto()  # the next request may go there
    TRYING = auto()  # one is there: no other until its outcome


@dataclass(slots=True)
class _Record:
    """One endpoint. `level` is how often in a row it was left out; 0: not lately."""

    tallies: dict[Signal, _Tally] = field(default_factory=lambda: {signal: _Tally() for signal in Signal})
    standing: _Standing = _Standing.IN
    since_s: float = 0.0  # of its standing
    until_s: float = 0.0  # OUT and TRYING
    level: int = 0
    cause: Signal = Signal.REQUEST
    trials: int = 0  # that went well


class Outliers:
    """`clock` gives monotonic seconds. A method that returns a level tells that an endpoint was left out (its level),
    or is back (0), by what it was told; None: nothing changes.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.ejections = 0  # times that an endpoint was left out by what was seen here
        self.changes = 0  # grows whenever somebody's standing changes
        self._clock = clock
        self._records: dict[Endpoint, _Record] = {}

    def succeeded(self, endpoint: Endpoint, signal: Signal = Signal.REQUEST) -> int | None:
        """It answered."""
        record, now_s = self._record(endpoint)
        tally = record.tallies[signal]
        tally.decay(now_s)
        tally.ok += 1
        tally.in_a_row = 0
        match record.standing:
            case _Standing.IN if record.level and now_s - record.since_s >= CALM_S:
                record.level = 0
            case _Standing.OUT if signal is record.cause is Signal.LOOK:
                self._stand(record, _Standing.TRIAL, now_s)
            case _Standing.TRYING if signal is Signal.REQUEST:
                record.trials += 1
                if record.trials < TRIALS:
                    self._stand(record, _Standing.TRIAL, now_s)
                else:
                    self._stand(record, _Standing.IN, now_s)
                    return 0
        return None

    def failed(self, endpoint: Endpoint, signal: Signal = Signal.REQUEST) -> int | None:
        """It did not."""
        record, now_s = self._record(endpoint)
        tally = record.tallies[signal]
        tally.decay(now_s)
        tally.failed += 1
        tally.in_a_row += 1
        if record.standing is _Standing.OUT:  # by a request from before, or a look that shows what is known
            return None
        is_trial = record.standing is not _Standing.IN and signal is Signal.REQUEST
        if not is_trial and (tally.in_a_row < IN_A_ROW or not self._stands_out(endpoint, signal, now_s)):
            return None
        self.ejections += 1
        self._leave_out(record, record.level + 1, signal, now_s)
        return record.level

    def learn(self, endpoint: Endpoint, level: int) -> None:
        """Another picker left it out (its level), or had it back (0)."""
        record, now_s = self._record(endpoint)
        if level <= 0:
            if record.standing is not _Standing.IN:
                self._stand(record, _Standing.IN, now_s)
        elif record.standing is _Standing.IN or level > record.level:
            self._leave_out(record, level, Signal.REQUEST, now_s)

    def remember(self, endpoint: Endpoint, level: int) -> None:
        """It was left out before this picker came: what it is like now, a trial shows."""
        record, now_s = self._record(endpoint)
        record.level, record.trials = level, 0
        self._stand(record, _Standing.TRIAL, now_s)

    def picked(self, endpoint: Endpoint) -> bool:
        """A request is on its way there. True where it is a trial: no other may go there until its outcome."""
        seen = self._records.get(endpoint)
        if seen is None or seen.standing is _Standing.IN:
            return False
        record, now_s = self._record(endpoint)
        if record.standing is not _Standing.TRIAL:
            return False
        self._stand(record, _Standing.TRYING, now_s, TRIAL_S)
        return True

    def undecided(self, endpoint: Endpoint) -> None:
        """A request there ended, and says nothing of the endpoint: the client left, or was wrong."""
        record, now_s = self._record(endpoint)
        if record.standing is _Standing.TRYING:
            self._stand(record, _Standing.TRIAL, now_s)

    def left_out(self) -> Mapping[Endpoint, int]:
        """Those that no request should go to now, with their levels."""
        found = {}
        for endpoint in self._records:
            record, _ = self._record(endpoint)
            if record.standing in (_Standing.OUT, _Standing.TRYING):
                found[endpoint] = record.level
        return found

    def known(self) -> Collection[Endpoint]:
        """Those of which anything is known."""
        return self._records.keys()

    def began_anew(self, endpoint: Endpoint) -> None:
        """Its engine is another one: that one is tried at once."""
        record = self._records.get(endpoint)
        if record is not None and record.standing is not _Standing.IN:
            record.trials = 0
            self._stand(record, _Standing.TRIAL, self._clock())

    def forget(self, endpoint: Endpoint) -> bool:
        """It left the pool. Whether it was left out lately."""
        record = self._records.pop(endpoint, None)
        self.changes += 1
        return record is not None and record.level > 0

    def _record(self, endpoint: Endpoint) -> tuple[_Record, float]:
        """The record as it stands now, and now."""
        now_s = self._clock()
        record = self._records.get(endpoint)
        if record is None:
            record = self._records[endpoint] = _Record()
        if record.standing in (_Standing.OUT, _Standing.TRYING) and now_s >= record.until_s:
            self._stand(record, _Standing.TRIAL, now_s)
        return record, now_s

    def _stand(self, record: _Record, standing: _Standing, now_s: float, for_s: float = 0.0) -> None:
        record.standing, record.since_s, record.until_s = standing, now_s, now_s + for_s
        self.changes += 1

    def _leave_out(self, record: _Record, level: int, cause: Signal, now_s: float) -> None:
        record.level, record.cause, record.trials = level, cause, 0
        pause_s = min(FIRST_PAUSE_S * 2 ** min(level - 1, _MANY), LONGEST_PAUSE_S)
        self._stand(record, _Standing.OUT, now_s, pause_s)

    def _stands_out(self, endpoint: Endpoint, signal: Signal, now_s: float) -> bool:
        own = self._records[endpoint].tallies[signal]
        share = own.failed / (own.ok + own.failed)
        peers = [record.tallies[signal] for other, record in self._records.items() if other != endpoint]
        for tally in peers:
            tally.decay(now_s)
        failed, total = sum(each.failed for each in peers), sum(each.ok + each.failed for each in peers)
        return share >= LEAST_SHARE and failed <= total * share / 2
