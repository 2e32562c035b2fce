"""Policies by name: the built-in ones and those that an installed package declares."""

from collections.abc import Callable, Mapping
from importlib.metadata import entry_points

from multipick_epp.policy import ablations, baselines, rivals
from multipick_epp.policy.dualmap import dualmap
from multipick_epp.policy.lmetric import lmetric
from multipick_epp.policy.marginal import marginal
from multipick_epp.policy.snapshot import Rank

GROUP = "multipick.policies"
BUILT_IN: Mapping[str, Rank] = {
    "lmetric": lmetric,
    "marginal": marginal,
    "round-robin": baselines.round_robin,
    "random": baselines.random_order,
    "least-request": baselines.least_request,
    "power-of-two": baselines.power_of_two,
    "vllm-v1": baselines.vllm_v1,
    "vllm-032": baselines.vllm_032,
    "linear": rivals.Linear(),
    "dynamo": rivals.dynamo,
    "aibrix": rivals.aibrix,
    "smg": rivals.smg,
    "llm-d": rivals.llm_d,
    "dualmap": dualmap,
    "preble": rivals.preble,
    "lmetric-seconds": ablations.lmetric_seconds,
    "p-token": ablations.p_token,
    "lmetric-no-queue": ablations.lmetric_no_queue,
    "hit-ratio-batch": ablations.hit_ratio_batch,
    "p-token-total-tokens": ablations.p_token_total_tokens,
}
READ_CONTEXTS: frozenset[Rank] = frozenset({marginal, rivals.dynamo, ablations.p_token_total_tokens})
"""Policies that are better off where the contexts of the requests in flight are accounted for."""
WITH_PARAMETER: Mapping[str, Callable[[float], Rank]] = {"linear": rivals.Linear}
"""Policies that take a number after a colon: `linear:0.7`."""


def names() -> list[str]:
    """Every policy that can be asked for, sorted."""
    return sorted(BUILT_IN.keys() | {entry.name for entry in entry_points(group=GROUP)})


def policy(name: str) -> Rank:
    """The policy of that name; ValueError, with the names there are, where there is none, or it can't be had so."""
    base, colon, parameter = name.partition(":")
    if colon and base in WITH_PARAMETER:
        try:
            return WITH_PARAMETER[base](float(parameter))
        except ValueError as error:
            raise ValueError(f"{name!r}: {error}") from error
    if name in BUILT_IN:
        return BUILT_IN[name]
    for entry in entry_points(group=GROUP, name=name):
        try:
            rank: Rank = entry.load()
        except Exception as error:  # its package is another's code
            raise ValueError(f"{name!r} can't be loaded from {entry.value}: {error}") from error
        if not callable(rank):
            raise ValueError(f"{name!r} is no function: {entry.value}")
        return rank
    takes = ", ".join(f"{each}:NUMBER" for each in WITH_PARAMETER)
    raise ValueError(f"no policy {name!r}; there are: {', '.join(names())}, {takes}")
