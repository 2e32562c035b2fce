"""The built-in traffic: multi-turn chats of several applications, each with a system prompt of its own.

Applications differ in popularity by Zipf's law and in the length of their system prompt; each keeps it for all its
sessions. Sessions begin as a Poisson process. A session comes back, after a time to read and think, with its previous
answer and a new user message. So there are two things to hit: the application's system prompt, which every pod may
come to hold, and the session's own history, which only the pods hold that served it.

The arrivals are partly open: sessions come when they come, but a turn waits for the answer before it. A slow policy
thereby gets its later turns later, which spares it a little.
"""

import math
from bisect import insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

from multipick_sim.traffic.plan import Message, Session, Turn

NOMINAL_TOKEN_S = 0.02


@dataclass(frozen=True, slots=True)
class Range:
    """Whole numbers from `low` to `high`, drawn log-uniformly: short ones are more frequent, as in real chats."""

    low: int
    high: int

    def draw(self, random: Random) -> int:
        """One number."""
        return round(self.low * math.pow(self.high / self.low, random.random()))


@dataclass(frozen=True, slots=True)
class Shape:
    """What the chats are like. Lengths are tokens of text, times engine seconds."""

    sessions_per_s: float = 4.0
    applications: int = 20
    zipf: float = 1.0  # share of the k-th application ~ k^-zipf
    system: Range = Range(3000, 20_000)  # instructions, tools and documents of an agent
    question: Range = Range(200, 6000)  # what users write and tools return
    answer: Range = Range(50, 400)
    mean_turns: float = 4.0  # geometric: each answer is the last one with the same chance
    mean_think_s: float = 4.0  # exponential

    def shares(self) -> Sequence[float]:
        """Each application's share of the sessions; they sum to 1."""
        weights = [rank**-self.zipf for rank in range(1, self.applications + 1)]
        return [weight / sum(weights) for weight in weights]


def chats(requests: int, seed: int, shape: Shape) -> tuple[Session, ...]:
    """The first `requests` requests of this traffic, a function of the arguments alone.

    Which ones are the first is judged with answers that take `NOMINAL_TOKEN_S` a token. So the load is the same to the
    end, where whole sessions would leave a long tail of few requests.
    """
    random = Random(f"chats {seed}")
    systems = [Message("system", random.getrandbits(64), shape.system.draw(random)) for _ in range(shape.applications)]
    shares = shape.shares()
    sessions: list[Session] = []
    asked: list[float] = []  # when each turn of `sessions` is asked, ascending
    now = 0.0
    while len(asked) < requests or asked[requests - 1] >= now:
        [system] = random.choices(systems, shares)
        session = Session(now, _turns(random, system, shape))
        sessions.append(session)
        for at_s in _asked_s(session):
            insort(asked, at_s)
        now += random.expovariate(shape.sessions_per_s)
    return tuple(_cut(session, asked[requests - 1]) for session in sessions)


def _asked_s(session: Session) -> Iterator[float]:
    at_s = session.start_s
    for turn in session.turns:
        at_s += turn.wait_s
        yield at_s
        at_s += turn.output_tokens * NOMINAL_TOKEN_S


def _cut(session: Session, last_s: float) -> Session:
    """Without the turns that are asked after `last_s`."""
    return Session(session.start_s, session.turns[: sum(at_s <= last_s for at_s in _asked_s(session))])


def _turns(random: Random, system: Message, shape: Shape) -> tuple[Turn, ...]:
    turns = [Turn(0.0, (system, _question(random, shape)), shape.answer.draw(random))]
    while random.random() >= 1 / shape.mean_turns:
        wait_s = random.expovariate(1 / shape.mean_think_s)
        turns.append(Turn(wait_s, (_question(random, shape),), shape.answer.draw(random)))
    return tuple(turns)


def _question(random: Random, shape: Shape) -> Message:
    return Message("user", random.getrandbits(64), shape.question.draw(random))
