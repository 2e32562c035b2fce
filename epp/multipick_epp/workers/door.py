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
    """One listening socket. No connection stays here: a worker has it, or it is closed."""

    def __init__(self, workers: Mapping[int, Taker]) -> None:
        """Workers by their numbers."""
        self._workers = workers
        self._listening: socket.socket | None = None
        self._turn = 0
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
        if self._listening is not None:
            asyncio.get_running_loop().remove_reader(self._listening)
            self._listening.close()
            self._listening = None

    def _go_on(self) -> None:
        self._pausing = None
        if self._listening is not None:
            asyncio.get_running_loop().add_reader(self._listening, self._accept, self._listening)

    def _accept(self, port: socket.socket) -> None:
        for _ in range(_AT_ONCE):
            try:
                connection, _ = port.accept()
            except (BlockingIOError, ConnectionAbortedError, InterruptedError):
                return
            except OSError as error:  # no descriptors, no memory: it would be called again at once
                log.warning("no connection can be accepted", extra={"why": str(error), "again_in_s": _PAUSE_S})
                loop = asyncio.get_running_loop()
                loop.remove_reader(port)
                self._pausing = loop.call_later(_PAUSE_S, self._go_on)
                return
            with connection:  # who was given it has its own descriptor
                self._hand_over(connection)

    def _hand_over(self, connection: socket.socket) -> None:
        """Where nobody takes it, its peer sees it end, as of a picker that is gone."""
        serving = [worker for worker in self._workers.values() if worker.serving]
        heard = [worker for worker in serving if not worker.silent] or serving
        self._turn += 1
        for number in by_turn([worker.share for worker in heard]):
            if self._workers[number].give(connection, self._turn):
                return
