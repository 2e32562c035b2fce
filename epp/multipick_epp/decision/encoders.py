"""Where token ids come from: the model's tokenizer in this process, else the pool's own engines.

Ids that are not the engines' make every predicted hit wrong. So where most engines turn out to make others (`checks`
compares), they are asked instead, as if no tokenizer were configured: slower, and right.
"""

import asyncio
import logging
from collections.abc import Collection, Sequence
from pathlib import Path
from random import Random

from multipick_epp.config import Config
from multipick_epp.engines import EngineClient
from multipick_epp.pods.registry import Registry
from multipick_epp.requests.prompt import TokenSource
from multipick_epp.tokens import RemoteTokenizer, Tokenizer, Untokenised, Verdict, compare
from multipick_epp.types import Endpoint

log = logging.getLogger(__name__)

PROBE_S = 5.0  # for one answer of an engine, when nothing waits for it


class Encoders:
    """`prompts.Encoder` as configured. Invariant: `_others` is empty while the tokenizer here is trusted."""

    def __init__(self, config: Config, registry: Registry, engines: EngineClient) -> None:
        self._config = config
        self._engines = engines
        self._registry = registry
        self._rng = Random()
        self._local: Tokenizer | None = None
        model = config.pool.models[0] if config.pool.models else ""
        self._remote = RemoteTokenizer(engines, self._choose, model, config.limits.decision_s)
        self._others: frozenset[Endpoint] = frozenset()  # whose engines make other ids than the tokenizer here

    @property
    def local(self) -> bool:
        """Ids are made here."""
        return self._local is not None and not self._others

    async def start(self) -> None:
        """Load the tokenizer, where there is one. Raises OSError or ValueError for files that don't fit."""
        pool = self._config.pool
        if pool.tokenizer is not None:
            self._local = await asyncio.to_thread(_load, Path(pool.tokenizer), pool.chat_template)
        else:
            log.warning("no tokenizer is configured: prompts go to the engines' /tokenize, which costs milliseconds")

    async def encode(self, source: TokenSource) -> Sequence[int] | Untokenised:
        """See `prompts.Encoder`."""
        if self._local is not None and not self._others:
            return await self._local.encode(source)
        return await self._remote.encode(source)

    async def compare(self, endpoint: Endpoint, model: str) -> Verdict:
        """Whether the tokenizer here makes the ids that this engine makes for `model`."""
        assert self._local is not None
        return await compare(self._local, RemoteTokenizer(self._engines, lambda: endpoint, model, PROBE_S))

    def learn(self, alike: int, others: Collection[Endpoint]) -> None:
        """So many engines make the ids that are made here, and these make others: the greater number is followed.

        One engine that differs from the rest is that engine's fault, and asking engines would not mend its hits.
        """
        followed = others if len(others) > alike else ()
        if followed and not self._others:
            log.error(
                "the tokenizer is not the engines': prompts go to their /tokenize", extra={"engines": len(others)}
            )
        elif self._others and not followed:
            log.info("the tokenizer is the engines' again", extra={"engines": alike})
        self._others = frozenset(followed)

    async def close(self) -> None:
        """End the threads."""
        if self._local:
            self._local.close()

    def _choose(self) -> Endpoint | None:
        ready = self._registry.ready().endpoints
        endpoints = [endpoint for endpoint in ready if endpoint in self._others] or ready
        return self._rng.choice(endpoints) if endpoints else None


def _load(folder: Path, template: str | None) -> Tokenizer:
    return Tokenizer.load(folder, Path(template).read_text() if template else None)
