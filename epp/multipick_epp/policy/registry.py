"""Policies by name: the built-in ones and those that an installed package declares."""

from importlib.metadata import entry_points

from multipick_epp.policy.baselines import round_robin, vllm_v1
from multipick_epp.policy.lmetric import lmetric
from multipick_epp.policy.snapshot import Rank

GROUP = "multipick.policies"
BUILT_IN: dict[str, Rank] = {"lmetric": lmetric, "round-robin": round_robin, "vllm-v1": vllm_v1}


def names() -> list[str]:
    """Every policy that can be asked for, sorted."""
    return sorted(BUILT_IN.keys() | {entry.name for entry in entry_points(group=GROUP)})


def policy(name: str) -> Rank:
    """The policy of that name; ValueError, with the names there are, where there is none."""
    if name in BUILT_IN:
        return BUILT_IN[name]
    for entry in entry_points(group=GROUP, name=name):
        rank: Rank = entry.load()
        return rank
    raise ValueError(f"no policy {name!r}; there are: {', '.join(names())}")
