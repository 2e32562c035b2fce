"""Whose loss a lost request is: ours, or that of what was broken on purpose.

Not ours is, and nothing else:
- what a pod itself did: it answered with an error, or it was at work on the request (sent before it failed) when it was
  killed, or it took the request and hangs. What an engine refused or swallowed, nobody may repeat unseen. How many
  requests a sick pod drew is held against us all the same, as a share;
- what was in flight through a picker that was killed or paused, where all bytes pass through it (full duplex): the
  gateway has no copy of what it handed over.
A request that was sent when its pod or picker was gone already is ours: it can go elsewhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from lab.traffic import Sent

AT_ONCE_S: Final = 0.1  # between a client's sending and the moment at which pod and picker have the request


@dataclass(frozen=True, slots=True)
class Ailing:
    """What was broken, and from when to when."""

    pod: str | None = None  # the sick one's endpoint
    answers: bool = False  # it answers, with errors, or takes requests and hangs
    through_picker: bool = False  # all bytes pass through the picker that was broken
    from_s: float = 0.0
    until_s: float = float("inf")


@dataclass(slots=True)
class Losses:
    """Lost requests, by whose loss they are."""

    ours: list[Sent] = field(default_factory=list)
    pods: list[Sent] = field(default_factory=list)
    pickers: list[Sent] = field(default_factory=list)


def blamed(sent: Sequence[Sent], ailing: Ailing, swallowed: int) -> Losses:
    """`swallowed` is how many requests the sick pod says it treated badly: no more without a picker's word are its."""
    losses = Losses()
    unnamed = swallowed - sum(each.endpoint == ailing.pod for each in sent if each.outcome == "lost")
    for each in sent:
        if each.outcome != "lost":
            continue
        before = each.sent_s <= ailing.from_s + AT_ONCE_S and each.ended_s >= ailing.from_s
        meanwhile = each.ended_s >= ailing.from_s and each.sent_s <= ailing.until_s
        if ailing.pod is not None and each.endpoint == ailing.pod and (before or (ailing.answers and meanwhile)):
            losses.pods.append(each)
        elif ailing.answers and each.endpoint is None and meanwhile and unnamed > 0:
            unnamed -= 1
            losses.pods.append(each)
        elif ailing.pod is not None and each.endpoint is None and before and each.status == 0:
            losses.pods.append(each)
        elif ailing.through_picker and before:
            losses.pickers.append(each)
        else:
            losses.ours.append(each)
    return losses


def drawn_share(sent: Sequence[Sent], ailing: Ailing, swallowed: int) -> float:
    """Of the requests sent while it was sick, the share that the sick pod drew: by the picker's word, or its own."""
    meanwhile = [each for each in sent if ailing.from_s <= each.sent_s <= ailing.until_s]
    named = sum(each.endpoint == ailing.pod for each in meanwhile)
    return max(named, swallowed) / max(1, len(meanwhile))
