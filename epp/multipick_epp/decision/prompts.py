"""One request's body -> block keys: `requests/` parses, `tokens/` tokenises, `blocks` hashes.

What can't be read ends in `Blind` with the reason and a guess of the prompt's length, never in an error: such a request
is routed by load.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from multipick_epp.blocks import Chains, block_keys, encode_extra, root_key
from multipick_epp.extproc.pick import PickRequest
from multipick_epp.requests.parse import parse
from multipick_epp.requests.prompt import Prompt, TokenSource, Unread
from multipick_epp.tokens import Untokenised

BYTES_A_TOKEN = 4
"""A guess for English text and code; only used where tokens can't be had."""


class Encoder(Protocol):
    """What makes token ids of a prompt: the local tokenizer, or the engine's own."""

    async def encode(self, source: TokenSource) -> Sequence[int] | Untokenised:
        """Token ids exactly as the engine will make them, or why that is not possible."""


@dataclass(frozen=True, slots=True)
class Known:
    """A request whose prompts we know as the engine will: one `Chains` a prompt, nearly always one."""

    chains: Sequence[Chains]
    reads_cache: bool = True  # False: the engine computes all of it, whatever it holds

    @property
    def prompt_tokens(self) -> int:
        """Tokens of all its prompts."""
        return sum(chains.prompt_tokens for chains in self.chains)


@dataclass(frozen=True, slots=True)
class Blind:
    """A request whose prompt we don't know; `prompt_tokens` is a guess by its size."""

    prompt_tokens: int
    reason: str


class PromptReader:
    """Reads requests of one pool. `block_sizes` gives the sizes that its endpoints use now."""

    def __init__(
        self,
        encoder: Encoder | None,
        models: Sequence[str],
        secret: bytes,
        block_sizes: Callable[[], Sequence[int]],
        observe: Callable[[str, float], None],
    ) -> None:
        """`observe(stage, seconds)` is told how long parsing, tokenising and hashing took."""
        self._encoder = encoder
        self._models = frozenset(models)
        self._base = models[0] if models else ""
        self._secret = secret
        self._block_sizes = block_sizes
        self._observe = observe

    async def read(self, request: PickRequest) -> Known | Blind:
        """The request's prompt as block keys. Never raises for what a client sent."""
        if request.body is None:
            return guess(request, "too large to read" if request.body_bytes else "no body")
        started = time.perf_counter()
        prompt = parse(request.path, request.headers, request.body)
        self._observe("parse", time.perf_counter() - started)
        if isinstance(prompt, Unread):
            return guess(request, prompt.reason)
        if self._encoder is None:
            return guess(request, "no tokenizer")
        started = time.perf_counter()
        token_lists = []
        for source in (prompt.source, *prompt.batch):
            ids = await self._encoder.encode(source)
            if isinstance(ids, Untokenised):
                return guess(request, ids.reason)
            token_lists.append(ids)
        self._observe("tokens", time.perf_counter() - started)
        started = time.perf_counter()
        try:
            chains = [self._chains(prompt, ids) for ids in token_lists]
        except (OverflowError, TypeError):
            return guess(request, "token ids out of range")
        self._observe("keys", time.perf_counter() - started)
        return Known(chains, prompt.reads_cache)

    def _chains(self, prompt: Prompt, ids: Sequence[int]) -> Chains:
        root = root_key(self._secret, self._base, self._lora(prompt.model))
        extras = {0: encode_extra([prompt.cache_salt])} if prompt.cache_salt else {}
        tokens = len(ids) + prompt.guessed_tokens
        return Chains(tokens, {size: block_keys(root, ids, size, extras) for size in self._block_sizes()})

    def _lora(self, model: str | None) -> str | None:
        """A name that is not the base model's can only be an adapter's: engines refuse any other."""
        return None if model is None or not self._models or model in self._models else model


def guess(request: PickRequest, reason: str) -> Blind:
    """A request that is routed by load alone."""
    return Blind(max(1, request.body_bytes // BYTES_A_TOKEN), reason)
