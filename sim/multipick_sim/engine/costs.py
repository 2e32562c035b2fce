"""How long a step takes: a roofline of matrix products against weights, plus attention, plus a fixed part.

    t = fixed
      + max(weights / bandwidth, 2 · params · tokens / flops) + exchange · tokens    weights are read once a step
      + 4 · layers · heads · head_dim · pairs / flops                                attention of prefills
      + kv_bytes_per_token · context / bandwidth                                     attention of decodes

`tokens` are all tokens of the step, `pairs` the (query, key) pairs of its prefills, `context` the tokens that its
decodes attend to. In a stretch of pure decoding only `context` changes, by one token a request and step, so that the
time of many steps has a closed form.
"""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Costs:
    """The model above with its coefficients multiplied out: seconds, and seconds per unit of work."""

    fixed_s: float
    weights_s: float  # to read all weights once
    token_s: float  # matrix products of one token
    exchange_s: float  # all-reduces of one token between the GPUs of a tensor-parallel group
    pair_s: float  # attention of one query token to one key token, all layers
    context_s: float  # to read the keys and values of one token

    def step_s(self, computed_tokens: int, pairs: int, decodes: int, context: int) -> float:
        """One step that computes `computed_tokens` prompt tokens and decodes one token for `decodes` requests each."""
        tokens = computed_tokens + decodes
        return (
            self.fixed_s
            + max(self.weights_s, self.token_s * tokens)
            + self.exchange_s * tokens
            + self.pair_s * pairs
            + self.context_s * context
        )

    def decoding_s(self, decodes: int, context: int) -> Callable[[int], float]:
        """Steps of pure decoding in a row -> how long so many of them take; `context` is the first one's."""
        first_s, token_s = self.step_s(0, 0, decodes, context), self.context_s
        return lambda steps: steps * first_s + token_s * (decodes * steps * (steps - 1) // 2)
