"""Pauses that grow from failure to failure, so that nobody is asked again and again at once."""

from random import Random


class Backoff:
    """Each pause is twice the one before, up to the longest. With `rng` shortened by up to half: many who lost the same
    peer don't come back in step.
    """

    def __init__(self, first_s: float, longest_s: float, rng: Random | None = None) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._rng = rng
        self._pause_s = first_s

    def next_s(self) -> float:
        """The pause to make now, seconds."""
        pause_s = self._pause_s
        self._pause_s = min(2 * pause_s, self._longest_s)
        return pause_s if self._rng is None else pause_s * self._rng.uniform(0.5, 1.0)

    def reset(self) -> None:
        """It went well: the next pause is the first again."""
        self._pause_s = self._first_s
