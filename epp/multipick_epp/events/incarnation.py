"""What one engine process told us, and what the index knows of it."""

from dataclasses import dataclass

from multipick_epp.events.tracker import Tracker
from multipick_epp.state.succession import Position

_PAUSE_S = (0.25, 5.0)  # first and longest pause before the index is told everything again


@dataclass(slots=True)
class Incarnation:
    """What one engine process told us. Batches are counted on from those that the index knows, whatever number the
    engine gives them.
    """

    tracker: Tracker
    epoch: int  # ours, as the endpoint's owner
    batches: int  # taken: the next one's number here
    uploaded: int  # the last batch that the index knows of
    stale: bool  # the index has to be told everything
    retry_s: float = 0.0  # loop time before which it isn't told so
    next_s: float = 0.0  # loop time before which it isn't told of anything
    pause_s: float = 0.0  # the last pause between two such attempts
    oldest_s: float | None = None  # Unix time at which the oldest batch that the index doesn't know was published
    noted: Position | None = None  # as the index has it
    noted_s: float = 0.0  # loop time at which it was noted

    def replaced(self, tracker: Tracker) -> "Incarnation":
        """The engine process after this one, of which the index has to be told everything: no sooner, and no more
        often, for its being another one.
        """
        paces = self.retry_s, self.next_s, self.pause_s
        return Incarnation(tracker, self.epoch, self.batches, self.batches - 1, True, *paces)

    def failed(self, now_s: float) -> None:
        """The index could not be told: tell it everything, after a pause that grows."""
        self.stale = True
        self.pause_s = min(max(2 * self.pause_s, _PAUSE_S[0]), _PAUSE_S[1])
        self.retry_s = now_s + self.pause_s
