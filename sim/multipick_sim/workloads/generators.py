"""Workloads made by a seed, after what others have published of theirs.

Sources: KVCache in the Wild (Alibaba, ATC '25): chats have few turns and short prompts, while API traffic is single
turns over few hot system prompts; Mooncake (FAST '25): agents' prompts have some 8,600 tokens, answers 180, and at
least 59 % of the prompt is reused; public agent traces: contexts that grow over tens of steps, of which 80 % and more
is reused, and tool calls that come seconds apart, several agents at once. Only such figures are taken, no data.
`--load` sets the rate: those here are only a beginning.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from random import Random

from multipick_sim.workloads.sessions import BLOCK_TOKENS, Blocks, Head, Range, Session, merged
from multipick_sim.workloads.workload import Item, Workload

Generator = Callable[[int, int], Workload]
"""(requests, seed) -> a workload."""


def chat(requests: int, seed: int) -> Workload:
    """People who chat: twelve applications, 3.5 turns, 30 s to read and think."""
    rng, blocks = Random(f"chat {seed}"), Blocks()
    heads = [blocks.head(Range(100, 2000).draw(rng)) for _ in range(12)]
    sessions: list[Session] = []
    at_s = 0.0
    while not _enough(sessions, requests, at_s):
        session = Session(blocks, _popular(rng, heads, 1.0), at_s)
        for _ in range(_geometric(rng, 3.5)):
            session.ask(Range(20, 3000).draw(rng), Range(50, 800).draw(rng), rng.expovariate(1 / 30))
        sessions.append(session)
        at_s += rng.expovariate(20.0)
    return _workload("chat", sessions, requests)


def api(requests: int, seed: int) -> Workload:
    """Programs that ask once: eight system prompts of 1,000 to 8,000 tokens, a few of them hot."""
    rng, blocks = Random(f"api {seed}"), Blocks()
    heads = [blocks.head(Range(1000, 8000).draw(rng)) for _ in range(8)]
    sessions: list[Session] = []
    at_s = 0.0
    for _ in range(requests):
        sessions.append(Session(blocks, _popular(rng, heads, 1.2), at_s))
        sessions[-1].ask(Range(50, 1500).draw(rng), Range(10, 200).draw(rng))
        at_s += rng.expovariate(60.0)
    return _workload("api", sessions, requests)


def agent(requests: int, seed: int) -> Workload:
    """Coding agents: bursts of up to six at once on one task, fifteen steps each, their context growing."""
    rng, blocks = Random(f"agent {seed}"), Blocks()
    heads = [blocks.head(Range(6000, 16_000).draw(rng)) for _ in range(4)]
    sessions: list[Session] = []
    at_s = 0.0
    while not _enough(sessions, requests, at_s):
        head = _popular(rng, heads, 1.0)
        task = Head(head.tokens + 2048, (*head.blocks, *blocks.take(2048 // BLOCK_TOKENS)))
        for _ in range(rng.choice((1, 1, 1, 2, 4, 6))):
            session = Session(blocks, task, at_s + rng.expovariate(2.0))
            for _ in range(_geometric(rng, 15.0)):
                if session.tokens > 90_000:
                    break
                session.ask(Range(100, 5000).draw(rng), Range(40, 500).draw(rng), rng.expovariate(1 / 2))
            sessions.append(session)
        at_s += rng.expovariate(1.0)
    return _workload("agent", sessions, requests)


def mixed(requests: int, seed: int) -> Workload:
    """Half chats, three tenths API calls, two tenths agents, all over the same time."""
    parts = [part(max(1, round(share * requests)), seed) for part, share in ((chat, 0.5), (api, 0.3), (agent, 0.2))]
    span = max(part.span_s for part in parts) or 1.0
    tagged: list[tuple[float, int, int, Item]] = []
    offset = 0
    for number, part in enumerate(parts):
        stretch = span / (part.span_s or span)
        most = 0
        for place, item in enumerate(part.items):
            prefixes = tuple(prefix + offset for prefix in item.prefixes)
            most = max(most, max(prefixes, default=0))
            tagged.append((item.at_s * stretch, number, place, item._replace(prefixes=prefixes)))
        offset = most + 1
    tagged.sort(key=lambda each: each[:3])
    places = {(number, place): at for at, (_, number, place, _) in enumerate(tagged)}
    items = [
        item._replace(at_s=at_s, after=places.get((number, item.after), item.after)) for at_s, number, _, item in tagged
    ]
    return Workload("mixed", BLOCK_TOKENS, items[:requests])


def hot_prefix(requests: int, seed: int, tokens: int = 4096, share: float = 0.8, answer: int = 800) -> Workload:
    """Prompts that share nothing, until after a quarter of them a share has one prefix: what multiplication fears.

    Before, one in a hundred has it, so that few endpoints hold it when it becomes popular. 40 requests a second;
    answers have `answer` tokens at most. Raises ValueError for a share outside 0..1 and for a
    prefix or answer of no tokens.
    """
    if not 0 <= share <= 1 or tokens < 1 or answer < 10:
        raise ValueError("a hot prefix has at least one token, a share from 0 to 1, and answers of ten tokens or more")
    rng, blocks = Random(f"hot-prefix {seed}"), Blocks()
    hot, none = blocks.head(tokens), blocks.head(0)
    sessions: list[Session] = []
    at_s = 0.0
    for number in range(requests):
        is_hot = rng.random() < (share if number >= requests // 4 else min(share, 0.01))
        sessions.append(Session(blocks, hot if is_hot else none, at_s))
        sessions[-1].ask(
            Range(50, 500).draw(rng) if is_hot else Range(500, 5000).draw(rng), Range(10, answer).draw(rng)
        )
        at_s += rng.expovariate(40.0)
    return replace(_workload("hot-prefix", sessions, requests), name=f"hot-prefix:{tokens}:{share:g}:{answer}")


GENERATORS: Mapping[str, Generator] = {
    "chat": chat,
    "api": api,
    "agent": agent,
    "mixed": mixed,
    "hot-prefix": hot_prefix,
}


def generator(name: str) -> Generator | None:
    """The generator of that name, None where there is none; `hot-prefix:TOKENS:SHARE:ANSWER` has parameters.

    Raises ValueError for parameters that are none.
    """
    base, *parameters = name.split(":")
    if base not in GENERATORS:
        return None
    if not parameters:
        return GENERATORS[base]
    if base != "hot-prefix" or len(parameters) > 3:
        raise ValueError(f"{base} takes {'TOKENS:SHARE:ANSWER at most' if base == 'hot-prefix' else 'no parameters'}")
    tokens, share, answer = (*parameters, *("4096", "0.8", "800")[len(parameters) :])
    values = int(tokens), float(share), int(answer)
    return lambda requests, seed: hot_prefix(requests, seed, *values)


def _enough(sessions: Sequence[Session], requests: int, now_s: float) -> bool:
    """Whether so many turns come before `now_s` that no session to come can be among the first."""
    return len(sessions) % 64 == 0 and sum(turn.at_s < now_s for each in sessions for turn in each.turns) >= requests


def _geometric(rng: Random, mean: float) -> int:
    count = 1
    while rng.random() >= 1 / mean:
        count += 1
    return count


def _popular(rng: Random, heads: Sequence[Head], zipf: float) -> Head:
    [head] = rng.choices(heads, [rank**-zipf for rank in range(1, len(heads) + 1)])
    return head


def _workload(name: str, sessions: list[Session], requests: int) -> Workload:
    return Workload(name, BLOCK_TOKENS, merged(sessions, requests))
