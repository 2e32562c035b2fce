"""A workload of the generators -> a plan: its prompts as texts, so that real programs hit what its blocks say.

What several sessions begin with becomes messages of their own with equal texts, cut where the sessions that share it
change: an application's system prompt, a task that several agents work on. The rest of a first prompt is the session's
own message. A later turn is the conversation so far, the real answers in it, and one more message. A message costs the
chat template a few tokens, so a prompt is some tokens shorter or longer than in the workload.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from itertools import groupby, pairwise

from multipick_sim.traffic.plan import ANSWER_OPENING_TOKENS, MESSAGE_OVERHEAD_TOKENS, Message, Session, Turn
from multipick_sim.workloads.sessions import NOMINAL_FIRST_S, NOMINAL_TOKEN_S
from multipick_sim.workloads.workload import NOBODY, Item, Workload

_SEED_OF_SHARED = 0x4D616465 << 64  # keeps texts of shared prefixes apart from those of sessions


def plan(workload: Workload, load: float, seed: int) -> tuple[Session, ...]:
    """Sessions in the order in which they begin, `load` times faster than in the workload."""
    chains: list[list[Item]] = []
    session_of: dict[int, int] = {}
    for number, item in enumerate(workload.items):
        if item.after == NOBODY:
            chains.append([])
        session_of[number] = len(chains) - 1 if item.after == NOBODY else session_of[item.after]
        chains[session_of[number]].append(item)
    shares = Counter(prefix for items in chains for prefix in items[0].prefixes[: _full(items[0], workload)])
    return tuple(
        Session(items[0].at_s / load, _turns(items, shares, workload, load, f"{workload.name} {seed} {number}"))
        for number, items in enumerate(chains)
    )


def _turns(
    items: Sequence[Item], shares: Mapping[int, int], workload: Workload, load: float, name: str
) -> tuple[Turn, ...]:
    first = items[0]
    full = first.prefixes[: _full(first, workload)]
    runs = [(sessions, list(run)) for sessions, run in groupby(full, shares.__getitem__)]
    shared = [run for sessions, run in runs if sessions > 1]
    messages = [
        _message("system" if place == 0 else "user", _SEED_OF_SHARED + run[0], len(run) * workload.block_tokens)
        for place, run in enumerate(shared)
    ]
    own = first.prompt_tokens - sum(map(len, shared)) * workload.block_tokens - ANSWER_OPENING_TOKENS
    messages.append(_message("user", _seed(name, 0), own))
    turns = [Turn(0.0, tuple(messages), first.output_tokens)]
    for number, (before, item) in enumerate(pairwise(items), start=1):
        new = item.prompt_tokens - before.prompt_tokens - before.output_tokens - MESSAGE_OVERHEAD_TOKENS
        nominal_s = NOMINAL_FIRST_S + NOMINAL_TOKEN_S * before.output_tokens
        wait_s = max(0.0, item.at_s - before.at_s - nominal_s) / load
        turns.append(Turn(wait_s, (_message("user", _seed(name, number), new),), item.output_tokens))
    return tuple(turns)


def _full(item: Item, workload: Workload) -> int:
    return item.prompt_tokens // workload.block_tokens


def _message(role: str, seed: int, tokens: int) -> Message:
    """With so many tokens in a prompt; one of text at least."""
    return Message(role, seed, max(1, tokens - MESSAGE_OVERHEAD_TOKENS))


def _seed(name: str, turn: int) -> int:
    return int.from_bytes(blake2b(f"{name} {turn}".encode(), digest_size=8).digest(), "big")
