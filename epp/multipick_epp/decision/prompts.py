"""One request's body -> block keys: `requests/` parses, `tokens/` tokenises, `blocks` hashes.

What can't be read ends in `Blind` with the reason and a guess of the prompt's length, never in an error: such a request
is routed by load.

Nobody's prompt holds the event loop, which all requests share: what takes more than about a millisecond is done in a
thread, one request after the other, in pieces that are short enough for the loop to come in between.
"""

import asyncio
import time
from array import array
from collections.abc import Callable, Sequence
from typing import Protocol, final

import msgspec
from msgspec.structs import replace

from multipick_epp.blocks import Chains, encode_extra, root_key
from multipick_epp.decision.adapters import adapter_of, by_lora_path
from multipick_epp.decision.grown_keys import Begun, GrownKeys
from multipick_epp.extproc.pick import PickRequest
from multipick_epp.requests.body import is_light
from multipick_epp.requests.estimate import estimated_tokens
from multipick_epp.requests.parse import parse
from multipick_epp.requests.prompt import Chat, Prompt, Text, TokenIds, TokenSource, Unread
from multipick_epp.requests.stored import Stored, stored
from multipick_epp.requests.token_ids import MAX_TOKENS
from multipick_epp.requests.unnamed import path_by_body
from multipick_epp.tasks.cohort import stage
from multipick_epp.tasks.eager import in_task
from multipick_epp.telemetry.tallies import Spreads
from multipick_epp.tokens import Untokenised
from multipick_epp.tokens.outcome import NoText
from multipick_epp.tokens.worker import Worker
from multipick_epp.types import BlockKey

BYTES_A_TOKEN = 4
"""A guess for English text and code; only used where tokens can't be had."""

MAX_KNOWN_PROMPTS = 32
"""Prompts of one request (a completion with a list) that are looked up, 50 us each; the rest counts as new."""

INLINE_TOKENS = 65_536
"""Tokens that are hashed at once, in less than a millisecond; more are hashed in the thread. Those of a beginning that
is known are not hashed at all."""

MAX_WAITING_BYTES = 64 << 20
"""Bodies and token ids that may wait for the thread; what comes beyond them is routed by load."""

KNOWN_KEYS_BYTES = 64 << 20
"""Memory for the block keys of prompts that may grow: of ten million tokens."""

_Begun = Sequence[tuple[int, Sequence[Begun]]]  # of each prompt its tokens, and what is known of its keys of each size


class Encoder(Protocol):
    """What makes token ids of a prompt: the local tokenizer, or the engine's own."""

    async def encode(self, source: TokenSource) -> Sequence[int] | Untokenised:
        """Token ids exactly as the engine will make them, or why that is not possible."""


@final
class Known(msgspec.Struct, frozen=True, gc=False):
    """A request whose prompts we know as the engine will: one `Chains` a prompt, nearly always one."""

    chains: Sequence[Chains]
    reads_cache: bool = True  # False: the engine computes all of it, whatever it holds
    model: str | None = None  # as the client named it
    stored: Stored | None = None
    guessed: bool = False  # the prompt's length is: it has media
    turn: int | None = None  # of a chat: how many answers of the model the prompt has in it, where that is counted

    @property
    def prompt_tokens(self) -> int:
        """Tokens of all its prompts."""
        return sum([chains.prompt_tokens for chains in self.chains])

    @property
    def alone(self) -> Chains | None:
        """Its prompt, where it has one alone that may hit."""
        return self.chains[0] if self.reads_cache and len(self.chains) == 1 else None


@final
class Blind(msgspec.Struct, frozen=True, gc=False):
    """A request whose prompt we don't know; `prompt_tokens` is a guess by its size."""

    prompt_tokens: int
    reason: str
    model: str | None = None  # as the client named it, where that much was read
    read: bool = False  # as far as the model: it is a request of an API that we know
    stored: Stored | None = None

    @property
    def alone(self) -> None:
        """As `Known.alone`."""


class PromptReader:
    """Reads requests of one pool, on one event loop. `block_sizes` gives the sizes that its endpoints use now."""

    def __init__(
        self,
        encoder: Encoder | None,
        models: Sequence[str],
        secret: bytes,
        block_sizes: Callable[[], Sequence[int]],
        stages: Spreads,
        max_model_len: Callable[[], int | None] = lambda: None,
        *,
        counts_turns: bool = False,
        lora_paths: Callable[[], bool] = lambda: False,
    ) -> None:
        """`stages` are told how many seconds parsing, tokenising and hashing took. `counts_turns`: somebody wants to
        know `Known.turn`.

        `max_model_len` is the longest prompt that the engines take, in tokens; None: they did not say, and it is
        `MAX_TOKENS`. What is longer they refuse, so it is charged and hashed as far as that only. `lora_paths`: the
        engines are SGLang's, and go by the field `lora_path`.
        """
        self._encoder = encoder
        self._models = frozenset(models)
        self._base = models[0] if models else ""
        self._secret = secret
        self._root = root_key(secret, self._base)
        self._block_sizes = block_sizes
        self._parse_seconds, self._tokens_seconds, self._keys_seconds = map(stages.labels, ("parse", "tokens", "keys"))
        self._max_model_len = max_model_len
        self._counts_turns = counts_turns
        self._lora_paths = lora_paths
        self._worker = Worker(threads=1, max_waiting=MAX_WAITING_BYTES)
        self._grown = GrownKeys(KNOWN_KEYS_BYTES)

    def close(self) -> None:
        """End the thread. Requests that wait for it are routed by load."""
        self._worker.close()

    async def read(self, request: PickRequest) -> Known | Blind:
        """The request's prompt as block keys. Never raises for what a client sent."""
        longest = min(self._max_model_len() or MAX_TOKENS, MAX_TOKENS)
        body = request.body
        if body is None:
            unread = guess(request, "too large to read" if request.body_bytes else "no body", longest)
            return replace(unread, stored=stored(request.method, request.path, None))
        started = time.perf_counter()
        try:
            if is_light(body):
                prompt, kept = _parse(request, body)
            else:
                prompt, kept = await self._worker.run(len(body), lambda: _parse(request, body))
            self._parse_seconds.observe(time.perf_counter() - started)
            await stage()
            found = await self._keys(request, prompt, longest)
        except NoText:
            return guess(request, "too much to read", longest)
        return found if kept is None else replace(found, stored=kept)

    async def _keys(self, request: PickRequest, prompt: Prompt | Unread, longest: int) -> Known | Blind:
        started = time.perf_counter()
        if isinstance(prompt, Prompt) and prompt.lora_names and self._lora_paths():
            prompt = by_lora_path(prompt, self._models)
        if isinstance(prompt, Unread):
            told = longest if prompt.prompt_tokens is None else min(prompt.prompt_tokens, longest)
            return guess(request, prompt.reason, told)
        if self._encoder is None:
            return guess(request, "no tokenizer", longest, prompt)
        if prompt.batch:
            await in_task()
        token_lists = []
        for source in (prompt.source, *prompt.batch[: MAX_KNOWN_PROMPTS - 1]):
            ids = await self._encoder.encode(source)
            if isinstance(ids, Untokenised):
                return guess(request, ids.reason, min(longest, prompt.max_tokens or longest), prompt)
            if prompt.keeps_end and len(ids) + prompt.guessed_tokens + prompt.answer_tokens >= longest:
                return guess(request, "truncated prompt", longest, prompt)  # which tokens are left, depends on more
            token_lists.append(ids)
            if prompt.batch:
                await asyncio.sleep(0)  # each may have held the loop for a millisecond
        self._tokens_seconds.observe(time.perf_counter() - started)
        await stage()
        started = time.perf_counter()
        try:
            chains = await self._chains(prompt, token_lists, longest)
        except (OverflowError, TypeError):
            return guess(request, "token ids out of range", longest, prompt)
        self._keys_seconds.observe(time.perf_counter() - started)
        await stage()
        turn = _turn(prompt.source) if self._counts_turns else None
        return Known(chains, prompt.reads_cache, prompt.model, guessed=prompt.guessed_tokens > 0, turn=turn)

    async def _chains(self, prompt: Prompt, token_lists: Sequence[Sequence[int]], longest: int) -> list[Chains]:
        """Raises OverflowError or TypeError for what is no token id, NoText where too much waits for the thread."""
        tokens = sum(map(len, token_lists))
        if tokens <= INLINE_TOKENS or all(isinstance(ids, array) for ids in token_lists):  # of others, each is read
            begun = self._begin(prompt, token_lists, longest)
        else:
            begun = await self._worker.run(4 * tokens, lambda: self._begin(prompt, token_lists, longest))
        left = sum([each.left for _, sizes in begun for each in sizes])
        made = _hash(begun) if left <= INLINE_TOKENS else await self._worker.run(4 * left, lambda: _hash(begun))
        chains = []
        for (prompt_tokens, sizes), keys in zip(begun, made, strict=True):
            for each in sizes:
                self._grown.keep(each, keys[each.block_size])
            chains.append(Chains(prompt_tokens, keys))
        if rest := prompt.batch[MAX_KNOWN_PROMPTS - 1 :]:
            chains.append(Chains(min(sum(map(_guess_tokens, rest)), longest)))
        return chains

    def _begin(self, prompt: Prompt, token_lists: Sequence[Sequence[int]], longest: int) -> _Begun:
        """Of all prompts together, as many tokens are hashed as of one at most: the rest counts as new everywhere."""
        adapter = adapter_of(prompt.model, self._models) if self._models else None
        root = self._root if adapter is None else root_key(self._secret, self._base, adapter)
        extras = {0: encode_extra([prompt.cache_salt])} if prompt.cache_salt else {}
        sizes = self._block_sizes()
        begun, left = [], longest
        for ids in token_lists:
            hashed = ids if len(ids) <= left else ids[:left]  # a slice of all would be a copy
            left -= len(hashed)
            tokens = min(len(ids) + prompt.guessed_tokens, longest)
            begun.append((tokens, [self._grown.begin(root, hashed, size, extras) for size in sizes]))
        return begun


def _parse(request: PickRequest, body: bytes) -> tuple[Prompt | Unread, Stored | None]:
    # What has a body and no path came by a gateway that tells no method either.
    method, path = (request.method, request.path) if request.path else ("POST", path_by_body(body))
    return parse(path, request.headers, body), stored(method, path, body)


def guess(request: PickRequest, reason: str, longest: int = MAX_TOKENS, prompt: Prompt | None = None) -> Blind:
    """A request that is routed by load alone; charged with `longest` tokens at most. `prompt`: what was read of it."""
    estimated = estimated_tokens(request.headers, request.body, request.body_bytes)
    return Blind(min(estimated, max(1, longest)), reason, prompt.model if prompt else None, prompt is not None)


def _turn(source: TokenSource) -> int | None:
    return sum(each["role"] == "assistant" for each in source.messages) if isinstance(source, Chat) else None


def _hash(begun: _Begun) -> list[dict[int, list[BlockKey]]]:
    return [{each.block_size: each.keys() for each in sizes} for _, sizes in begun]


def _guess_tokens(source: TokenSource) -> int:
    match source:
        case TokenIds(ids):
            return len(ids)
        case Text(text):
            return len(text) // BYTES_A_TOKEN
        case _:
            return source.size // BYTES_A_TOKEN
