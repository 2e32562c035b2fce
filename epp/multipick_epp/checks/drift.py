"""Whether predicted hits are what an engine really hits, by its own counters and no look at any response.

An engine counts the tokens of prompts that it looked up in its cache (`queries`) and those that it found (`hits`). We
know how many of our prompts' tokens we sent there, and predicted as hits. But its counters hold everybody's requests:
other pickers', unread ones, probes. So nothing is compared that others could explain: of `hits` in `queries`, our own
prompts' can be no more than all of them, and no fewer than what is left if every token of the others was a hit. A
prediction outside of these bounds is wrong whoever else sent what. The greater this picker's share, the sharper.
"""

from typing import NamedTuple

WINDOW_S = 120.0
MIN_PROMPT_TOKENS = 50_000
"""Of ours in a window; with fewer it goes on."""

SLACK = 0.05
"""Share of the window's tokens: requests that were sent in it and looked up after it, or the other way."""

WINDOWS = 2
"""So many windows in a row have to be wrong."""


class Counted(NamedTuple):
    """Counters at one moment, all in tokens."""

    queries: float  # by the engine
    hits: float
    prompts: int  # of ours that were read
    predicted: int  # of these, as hits


class Window(NamedTuple):
    """What was counted between two moments."""

    queries: float
    hits: float
    prompts: int
    predicted: int

    @property
    def bounds(self) -> tuple[float, float]:
        """The fewest and the most hits that our prompts can have had."""
        others = max(0.0, self.queries - self.prompts)
        slack = SLACK * max(self.queries, self.prompts)
        return self.hits - others - slack, min(self.hits, self.prompts) + slack

    @property
    def excess(self) -> float:
        """Predicted tokens above (or, negative, below) what can be true; 0 where it can."""
        least, most = self.bounds
        return max(0.0, self.predicted - most) or min(0.0, self.predicted - least)


class Drift:
    """One endpoint's windows, one after the other."""

    def __init__(self) -> None:
        self.last: Window | None = None  # the last one that was long enough
        self._wrong = 0  # windows in a row
        self._begin: Counted | None = None
        self._since_s = 0.0

    def look(self, now_s: float, counted: Counted | None) -> None:
        """Take the counters at this moment; None where the engine doesn't tell its own."""
        begin = self._begin
        if counted is None or begin is None or any(now < then for now, then in zip(counted, begin, strict=True)):
            self._start(now_s, counted)  # another engine counts from 0 again
            return
        window = Window(*(now - then for now, then in zip(counted, begin, strict=True)))  # type: ignore[arg-type]
        if now_s - self._since_s < WINDOW_S or window.prompts < MIN_PROMPT_TOKENS:
            return
        self._start(now_s, counted)
        self.last = window
        # More of ours than it looked up: it refused some, or its prefix cache is off. Nothing can be said of the rest.
        answered = window.prompts <= window.queries * (1 + SLACK)
        self._wrong = self._wrong + 1 if answered and window.excess else 0

    def forget(self) -> None:
        """The engine is another one."""
        self.last, self._begin, self._wrong = None, None, 0

    @property
    def words(self) -> str | None:
        """What is wrong, where it lasts."""
        if self._wrong < WINDOWS or self.last is None:
            return None
        least, most = (max(0, round(bound)) for bound in self.last.bounds)
        found = f"at least {least}" if self.last.excess < 0 else f"{most} at most"
        return (
            f"{self.last.predicted} of {self.last.prompts} prompt tokens were predicted to be in its cache, and "
            f"{found} were, by its own counters: see `prompts` in this status, multipick_events_gaps_total and its "
            "block size"
        )

    def _start(self, now_s: float, counted: Counted | None) -> None:
        self._begin, self._since_s = counted, now_s
