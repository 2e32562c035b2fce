"""The order of one publisher's batches: what to take, what is missing, when the engine is another one. No I/O.

Facts. A publisher numbers its batches from 0, one count for each engine process. Live messages come in order and never
twice, but some may be missing, and a subscriber that was away can't tell a restarted engine by its numbers alone. The
replay socket answers from a given number on with byte-identical payloads, as far back as it keeps them (10,000
batches), and then an end marker.

Rules.
1. Fresh, disconnected or with a gap, ask for a replay, from the last taken batch on: if that one comes back with the
   same bytes, the engine is the same, and the rest follows. Live messages are held meanwhile.
2. If it doesn't come back, the engine is another one: `Begin`, and everything is replayed from 0. So too if a live
   number falls back, unless the message is one that a replay brought already.
3. What no replay can bring is `Lost`; the first batch that can be had is taken all the same.
4. Without a replay socket: gaps are lost, and after a disconnection the next number in line passes for the same engine.
5. A quiet publisher is asked now and then (`probe`): the last messages before a silence leave no gap to see.
6. What was held comes one by one after the replay (`held`), so that the caller can pause between two of them.
7. Somebody who took the batches before us is as good as we: a sequence can `resume` behind the last one of his.
8. Where no replay answered, the first live message is the beginning, whatever its number. Once one answers, it is asked
   for all from 0, so that an endpoint is not approximate for ever for having been deaf at first.
9. Where batches are missing, or nobody answers a question soon (`doubt`), so that the last ones may be, nothing is sure
   until the next live message that is taken, or the end of an answer, which may bring much before it, and of what was
   held meanwhile.
10. A publisher's last messages, and answers of its replay socket, may be handed over after its connection is gone: they
   are taken, and nothing is sure for that.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from xxhash import xxh3_64_intdigest

MAX_HELD_BATCHES = 20_000
MAX_HELD_BYTES = 32 << 20
MAX_REMEMBERED = 65_536
MAX_ATTEMPTS = 3  # replays in a row that may break off without having brought anything new
PATIENT_ATTEMPTS = 10
"""The same where batches are missing that can only be had so. Once they are given up, the endpoint is not exact before
its cache has turned over; until then nothing newer is taken.
"""


@dataclass(frozen=True, slots=True)
class Take:
    """The next batch."""

    seq: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Begin:
    """Another engine process: nothing that was known holds. `complete`: its batches come from the first on."""

    complete: bool


@dataclass(frozen=True, slots=True)
class Lost:
    """Batches before the next `Take` can't be had."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Replay from `start` on, instead of any replay under way."""

    start: int


Effect = Take | Begin | Lost | Ask


class BatchSequence:
    """Each method takes one thing that happened and yields what to do about it, which must be done in order.

    Invariants: `next` is the number after the last taken batch, None before the first; what is `_held` came while
    `asking`, or behind such; `_replayed` has the digests of batches that a replay brought and that may still come live.
    """

    def __init__(self, replay: bool) -> None:
        self.next: int | None = None
        self.asking = False
        self.proven = False  # the engine is known to be the one whose batches were taken
        self.subscribed = False  # the connection of the subscription stands
        self._doubted = False
        self.gaps = 0
        self.held_bytes = 0
        self._can_ask = replay
        self._probing = False  # asking although nothing is missing: live messages needn't wait
        self._answered = False
        self._attempts = 0
        self._asked_with: int | None = None  # `next` when it asked
        self._whole = False  # the last replay came to its end
        self._midway = False  # the first batch that was taken was not its engine's, for want of an answer
        self._given_up = False  # of asking, until the next connection or probe
        self._last_digest = 0
        self._held: deque[tuple[int, bytes]] = deque()
        self._replayed: dict[int, int] = {}

    def resume(self, seq: int, digest: int) -> None:
        """Batch `seq`, with this digest, was the last one that was taken. Before anything happened."""
        self.next, self._last_digest = seq + 1, digest

    @property
    def last(self) -> tuple[int, int] | None:
        """Number and digest of the last taken batch; -1 where the engine has published none yet."""
        return None if self.next is None else (self.next - 1, self._last_digest)

    @property
    def sure(self) -> bool:
        """All that the engine has published was taken, as far as anybody can know."""
        return self.subscribed and self.proven and not self._doubted

    @property
    def catching_up(self) -> bool:
        """A replay is under way that may bring what is missing, or show that the engine is another one."""
        return self.asking and not self._probing

    @property
    def holds(self) -> bool:
        """There is something that `held` would go on with."""
        return bool(self._held) and not self.asking

    def connected(self) -> Iterator[Effect]:
        """The subscription stands, for the first time or again.

        With a replay socket, what arrived before must not be told any more: the replay has it, if it is this engine's.
        """
        self._given_up = self.proven = False
        self.subscribed = True
        if self._can_ask:
            self._held.clear()
            self.held_bytes = 0
            yield self._ask()

    def disconnected(self) -> None:
        """The publisher is away; messages may be missed from now on."""
        self.proven = self.subscribed = False

    def restarted(self) -> Iterator[Effect]:
        """Somebody who knows says that the engine process is a new one."""
        self._forget()
        yield Begin(complete=False)
        if self._can_ask:
            yield self._ask()

    def probe(self) -> Iterator[Effect]:
        """Nothing came for a while."""
        if self._can_ask and not self.asking and not self._held:
            self._given_up = False
            yield self._ask(probing=self.proven)

    def doubt(self) -> None:
        """An answer to the last `Ask` should have come by now."""
        self._doubted |= self.asking and not self._answered

    def live(self, seq: int, payload: bytes) -> Iterator[Effect]:
        """A message of the subscription."""
        probed = self._probing and self.next is not None and seq <= self.next
        if (self.asking and not probed) or (self._held and not self.asking):
            if self._probing:  # something is missing after all
                self._probing, self._attempts, self._doubted = False, 0, True
            self._hold(seq, payload)
        elif seq == self.next:
            yield self._go_on(seq, payload)
        else:
            yield from self._out_of_line(seq, payload)

    def held(self) -> Iterator[Effect]:
        """The first of what is held, if it `holds` any."""
        if not self.holds:
            return
        seq, payload = self._held.popleft()
        self.held_bytes -= len(payload)
        rest, self._held = self._held, deque()
        doubted = self._doubted
        if seq == self.next:
            yield self._go_on(seq, payload)
        elif self._whole and self.next is not None and seq < self.next:
            self._replayed.pop(seq, None)  # if it isn't the same batch, it is an older engine's
        else:
            yield from self._out_of_line(seq, payload)
        if self._held:  # it has asked, and waits again
            self._held.extend(rest)
        else:
            self._held = rest
        if self._held:
            self._doubted |= doubted
        elif self._whole:
            self._doubted = self._given_up = False

    def _out_of_line(self, seq: int, payload: bytes) -> Iterator[Effect]:
        if self.next is None:
            yield from self._first(seq, payload)
        elif seq < self.next:
            if self._replayed.pop(seq, None) != xxh3_64_intdigest(payload):
                yield from self._another_engine(seq, payload)
        elif self._can_ask and not self._given_up:
            self.gaps += 1
            self._hold(seq, payload)
            yield self._ask()
        else:
            self.gaps += 1
            yield Lost()
            yield self._go_on(seq, payload)

    def replayed(self, seq: int, payload: bytes) -> Iterator[Effect]:
        """An answer to the last `Ask`."""
        if not self.asking:
            return
        first, self._answered = not self._answered, True
        if self.next is None:
            self._midway = False
            yield Begin(complete=seq == 0)
        elif first and self.next and (not self.proven or seq == self.next - 1):
            self.proven = seq == self.next - 1 and xxh3_64_intdigest(payload) == self._last_digest
            if not self.proven:
                self._forget()
                yield self._ask()
                return
        if self.next is not None and seq < self.next:
            return
        if self.next is not None and seq > self.next:
            self._note_progress()
            if not first and self._attempts < MAX_ATTEMPTS:
                self._attempts += 1
                yield self._ask()
                return
            yield Lost()
        self.proven = True
        yield self._take(seq, payload)
        self._replayed[seq] = self._last_digest
        if len(self._replayed) > MAX_REMEMBERED:
            for oldest in list(islice(self._replayed, MAX_REMEMBERED // 4)):
                del self._replayed[oldest]

    def replay_ended(self, whole: bool) -> Iterator[Effect]:
        """The last `Ask` was answered to the end marker, or broke off."""
        if not self.asking:
            return
        self.doubt()
        self.asking, self._whole = False, whole
        if not whole:
            self._note_progress()
            self._attempts += 1
            probing = self._probing and self.next == self._asked_with
            if self._attempts < (PATIENT_ATTEMPTS if self.next and not probing else MAX_ATTEMPTS):
                yield self._ask(probing)
                return
            self._given_up = not probing
        elif not self._answered and self.next:
            self._forget()
            yield self._ask()
            return
        elif not self._answered:
            if self.next is None:
                yield Begin(complete=True)
                self.next = 0
            self.proven = True
            self._given_up = True  # there is nothing to replay: what is held now, if it has a gap, is all there is
        self._attempts = 0
        if whole and self._midway:
            self._forget()
            yield self._ask()
            return
        if whole and not self._held:
            self._doubted = self._given_up = False

    def _note_progress(self) -> None:
        """A replay that breaks off has been worth it if it brought something: publishers drop what a reader lags."""
        if self.next != self._asked_with:
            self._attempts = 0

    def _ask(self, probing: bool = False) -> Ask:
        self.asking, self._answered, self._probing = True, False, probing
        self._doubted |= not probing  # something may be missing
        self._asked_with = self.next
        return Ask(max(0, self.next - 1) if self.next is not None else 0)

    def _first(self, seq: int, payload: bytes) -> Iterator[Effect]:
        self._midway = self._can_ask and seq > 0
        yield Begin(complete=seq == 0)
        yield self._go_on(seq, payload)

    def _another_engine(self, seq: int, payload: bytes) -> Iterator[Effect]:
        self._forget()
        if seq and self._can_ask and not self._given_up:
            self._hold(seq, payload)
            yield self._ask()
        else:
            yield from self._first(seq, payload)

    def _go_on(self, seq: int, payload: bytes) -> Take:
        """With a live message."""
        self._replayed.clear()
        self.proven = True
        self._doubted = False
        return self._take(seq, payload)

    def _take(self, seq: int, payload: bytes) -> Take:
        self.next = seq + 1
        self._last_digest = xxh3_64_intdigest(payload)
        return Take(seq, payload)

    def _hold(self, seq: int, payload: bytes) -> None:
        """What is too much to hold leaves a gap, which is replayed in its turn."""
        if len(self._held) < MAX_HELD_BATCHES and self.held_bytes + len(payload) <= MAX_HELD_BYTES:
            self._held.append((seq, payload))
            self.held_bytes += len(payload)

    def _forget(self) -> None:
        self.next = None
        self.asking = self.proven = self._doubted = self._midway = False
        self._attempts = 0
        self._replayed.clear()
