"""What a picker's own metrics say of a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import aiohttp


@dataclass(frozen=True, slots=True)
class Shadow:
    """What another policy would have done."""

    policy: str
    looked: int  # decisions that it was asked about
    same: int  # of these, it would have chosen the same endpoint
    hit_tokens: int  # prompt tokens that its endpoints hold
    own_hit_tokens: int  # and the chosen ones


@dataclass(frozen=True, slots=True)
class Told:
    """The picker's figures."""

    decision_s: float  # mean of its decisions, in seconds of this machine; 0 where it made none
    kept_out: int = 0  # requests that the hotspot guard kept out of the holders of their prefix
    shadows: Sequence[Shadow] = ()


async def told_by(admin_url: str, shadows: Sequence[str]) -> Told:
    """Ask it. Raises aiohttp.ClientError."""
    async with aiohttp.ClientSession(admin_url) as http, http.get("/metrics") as response:
        return told(await response.text(), shadows)


def told(page: str, shadows: Sequence[str]) -> Told:
    """Read its metrics page."""
    lines = [line for line in page.splitlines() if line and not line.startswith("#")]
    samples = {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}
    count = samples["multipick_decision_seconds_count"]
    return Told(
        samples["multipick_decision_seconds_sum"] / count if count else 0.0,
        int(samples["multipick_hotspot_kept_out_total"]),
        [_shadow(samples, name) for name in shadows],
    )


def _shadow(samples: Mapping[str, float], name: str) -> Shadow:
    def counted(what: str, more: str = "") -> int:
        return int(samples.get(f'multipick_shadow_{what}_total{{{more}policy="{name}"}}', 0))

    same, other = (counted("decisions", f'choice="{choice}",') for choice in ("same", "other"))
    return Shadow(name, same + other, same, counted("hit_tokens"), counted("own_hit_tokens"))
