"""Predicted against reported hits: how often they are equal, and why not. Pure.

The picker foresees a hit when it picks; the engine counts the real one when it admits the request, which on a busy pod
is later. A difference is put down to a cause only where the records show it at work: another request on the same
endpoint, with enough of a common prefix, at the right stage when this one was sent. The rest is called unexplained.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from multipick_epp.types import Mode

from multipick_sim.traffic.plan import ANSWER_OPENING_TOKENS
from multipick_sim.traffic.records import Record, Segment

EVENT_LAG_S = 0.25  # wall seconds that an event may take to the index: the bar for its p99


class Cause(StrEnum):
    """Why a predicted hit differs from the reported one."""

    BLIND = "the prompt was not read in time or at all, load alone decided"
    APPROX = "the endpoint's cache was known roughly: events lost, or none had come yet"
    OTHER_TOKENS = "picker and engine made different tokens of the prompt"
    IN_PREFILL = "less predicted: the shared prefix was still in prefill at the pick"
    EVENT_LAG = "less predicted: the shared prefix had just been computed, its events were on their way"
    LESS = "less predicted: unexplained"
    EVICTED = "more predicted: the shared prefix was evicted between pick and admission"
    COUNTED_AHEAD = "more predicted: the pick counted on a prompt whose prefill was not done"
    MORE = "more predicted: unexplained"


@dataclass(frozen=True, slots=True)
class Agreement:
    """How well the picker foresaw the engine's cache hits, over whole answers that report them."""

    compared: int
    equal: int
    unpredicted: int  # answers without a prediction, e.g. routed by Envoy's own fallback; not compared
    causes: Mapping[Cause, int]  # of the unequal ones, most frequent first

    @property
    def share(self) -> float:
        """Equal ones among the compared; 1 where there was nothing to compare."""
        return self.equal / self.compared if self.compared else 1.0


def agreement(records: Sequence[Record], speed: float) -> Agreement:
    """Compare all records of one run. `speed` is engine seconds a wall second."""
    reported = [record for record in records if record.ok and record.cached_tokens is not None]
    compared = [record for record in reported if record.predicted_tokens is not None]
    unequal = [record for record in compared if record.predicted_tokens != record.cached_tokens]
    causes = Counter(cause(record, records, EVENT_LAG_S * speed) for record in unequal)
    return Agreement(
        compared=len(compared),
        equal=len(compared) - len(unequal),
        unpredicted=len(reported) - len(compared),
        causes=dict(causes.most_common()),
    )


def cause(record: Record, records: Sequence[Record], lag_s: float) -> Cause:
    """Why the two hits of `record` differ; `records` is the whole run, `lag_s` in engine seconds."""
    predicted, reported = record.predicted_tokens or 0, record.cached_tokens or 0
    if record.mode != Mode.EXACT:
        return Cause.APPROX if record.mode == Mode.APPROX else Cause.BLIND
    if record.counted_tokens != record.prompt_tokens:
        return Cause.OTHER_TOKENS
    computed_s = _computed_s(record, records, max(predicted, reported))
    done = [at_s for at_s in computed_s if at_s is not None and at_s < record.sent_s]
    if predicted < reported:
        if len(done) < len(computed_s):
            return Cause.IN_PREFILL
        return Cause.EVENT_LAG if done and max(done) > record.sent_s - lag_s else Cause.LESS
    if done:
        return Cause.EVICTED
    return Cause.COUNTED_AHEAD if computed_s else Cause.MORE


def shared_tokens(segments: Sequence[Segment], others: Sequence[Segment]) -> int:
    """Leading tokens, at most, that two prompts share.

    Past the last common message the next one opens with the same few tokens, whatever it says.
    """
    tokens = 0
    for mine, theirs in zip(segments, others, strict=False):
        if mine.name != theirs.name:
            break
        tokens += min(mine.tokens, theirs.tokens)
        if mine.tokens != theirs.tokens:
            break
    return tokens + ANSWER_OPENING_TOKENS


def _computed_s(record: Record, records: Sequence[Record], tokens: int) -> list[float | None]:
    """When each other request on the endpoint that shares at least `tokens` with `record` had computed them.

    Only requests sent before `record` had its first token count. None: never, or it isn't known when.
    """
    times: list[float | None] = []
    for other in records:
        in_time = record.first_token_s is None or other.sent_s < record.first_token_s
        if other is record or other.endpoint != record.endpoint or not in_time:
            continue
        if shared_tokens(record.segments, other.segments) >= tokens:
            times.append(other.first_token_s)
        elif shared_tokens(record.segments, (*other.segments, other.answer)) >= tokens:
            times.append(other.end_s)
    return times
