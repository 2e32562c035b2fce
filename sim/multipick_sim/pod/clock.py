"""The engine's clock: wall time since the start, times the speed."""

import time


class Clock:
    """Steps are planned against this clock, so that a late wake-up delays a token but never the next step."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._started = time.monotonic()

    def now(self) -> float:
        """Engine seconds since the start."""
        return (time.monotonic() - self._started) * self._speed

    def wall_s(self, engine_s: float) -> float:
        """Seconds that a client sees pass in so many engine seconds."""
        return engine_s / self._speed
