"""The picker's port: accepts connections, and hands each to the worker whose turn it is."""

import asyncio
import logging
import socket
from collections.abc import Mapping
from typing import Final, Protocol

from multipick_epp.extproc.listening import listening
from multipick_epp.workers.spread import Share, by_turn

log = logging.getLogger(__name__)

_AT_ONCE: Final = 64  # connections, before others have their turn of the loop
_PAUSE_S: Final = 1.0  # where the system lets nobody accept
_FULL_S: Final = 0.02  # where workers have not taken yet what they were given: a burst of hundreds


class Taker(Protocol):
    """Who is given connections: a `Worker`."""

    @property
    def serving(self) -> bool:
        """It decides what comes on its connections."""

    @property
    def silent(self) -> bool:
        """It has not told of itself for longer than it should."""

    @property
    def share(self) -> Share:
        """Of the connections."""

    def give(self, connection: socket.socket, turn: int) -> bool:
        """Hand over a connection; false where it can't take it. `turn` counts what all are given."""


class Door:
    """One listening socket. No connection stays here, but for one that all workers are too busy to take: the next ones
    wait in the system's queue then.
    """

    def __init__(self, workers: Mapping[int, Taker]) -> None:
        """Workers by their numbers."""
        self._workers = workers
        self._listening: socket.socket | None = None
        self._turn = 0
        self._waiting: socket.socket | None = None  # the one that nobody took yet
        self._pausing: asyncio.TimerHandle | None = None

    def open(self, host: str, port: int) -> int:
        """Listen; returns the port, which port 0 leaves to the system. Raises RuntimeError where it can't be had."""
        self._listening = listening(host, port)
        self._listening.setblocking(False)
        self._go_on()
        bound: int = self._listening.getsockname()[1]
        return bound

    def close(self) -> None:
        """Take no more connections; may be called again."""
        if self._pausing is not None:
            self._pausing.cancel()
            self._pausing = None
        if self._waiting is not None:
            self._waiting.close()
            self._waiting = None
        if self._listening is not None:
            asyncio.get_running_loop().remove_reader(self._listening)
            self._listening.close()
            self._listening = None

    def _go_on(self) -> None:
        self._pausing = None
        if self._waiting is not None:
            connection, self._waiting = self._waiting, None
            if not self._hand_over(connection):
                return
        if self._listening is not None:
            asyncio.get_running_loop().add_reader(self._listening, self._accept, self._listening)

    def _pause(self, pause_s: float) -> None:
        loop = asyncio.get_running_loop()
        if self._listening is not None:
            loop.remove_reader(self._listening)
        self._pausing = loop.call_later(pause_s, self._go_on)

    def _accept(self, port: socket.socket) -> None:
        for _ in range(_AT_ONCE):
            try:
                connection, _ = port.accept()
            except (BlockingIOError, ConnectionAbortedError, InterruptedError):
                return
            except OSError as error:  # no descriptors, no memory: it would be called again at once
                log.warning("no connection can be accepted", extra={"why": str(error), "again_in_s": _PAUSE_S})
                self._pause(_PAUSE_S)
                return
            if not self._hand_over(connection):
                return

    def _hand_over(self, connection: socket.socket) -> bool:
        """Whether it is off our hands; else we pause. Where nobody serves, it is closed: its peer sees it end, as of a
        picker that is gone.
        """
        serving = [worker for worker in self._workers.values() if worker.serving]
        heard = [worker for worker in serving if not worker.silent] or serving
        self._turn += 1
        given = any(
            self._workers[number].give(connection, self._turn) for number in by_turn([each.share for each in heard])
        )
        if given or not serving:
            connection.close()  # who was given it has its own descriptor
            return True
        self._waiting = connection
        self._pause(_FULL_S)
        return False
