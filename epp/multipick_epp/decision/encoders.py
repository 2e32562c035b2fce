"""Where token ids come from: the model's tokenizer in this process, else the pool's own engines.

Ids that are not the engines' make every predicted hit wrong. So what most engines turn out to read in another way
(`checks` compares), and what only they can write, is asked of them: slower, and right. The rest is made here.
"""

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random

from multipick_epp.config import Config, Pool
from multipick_epp.engines import EngineClient
from multipick_epp.pods.registry import Registry
from multipick_epp.requests.prompt import TokenSource
from multipick_epp.tokens import (
    ALL_PARTS,
    EngineSettings,
    Part,
    RemoteTokenizer,
    Tokenizer,
    Untokenised,
    Verdict,
    compare,
    touches,
)
from multipick_epp.tokens.model import OnlyEngines
from multipick_epp.types import Endpoint, address_of

log = logging.getLogger(__name__)

PROBE_S = 5.0  # for one answer of an engine, when nothing waits for it


class Encoders:
    """`prompts.Encoder` as configured."""

    def __init__(self, config: Config, registry: Registry, engines: EngineClient) -> None:
        self._config = config
        self._engines = engines
        self._registry = registry
        self._rng = Random()
        self._local: Tokenizer | None = None
        self._settings = EngineSettings()  # of the engines, once the template's file is read
        model = config.pool.models[0] if config.pool.models else ""
        self._remote = RemoteTokenizer(engines, self._choose, model, config.limits.decision_s)
        self._differing: frozenset[Part] = frozenset()  # what most engines read in another way than we do
        self._by_engine = ALL_PARTS  # what engines are asked for: those, and what only they can write
        self._others: frozenset[Endpoint] = frozenset()  # addresses of the engines that do
        self._compared = False  # with any engine

    @property
    def local(self) -> bool:
        """Some ids are made here."""
        return self._by_engine != ALL_PARTS

    @property
    def paths(self) -> Mapping[str, str]:
        """What makes the ids of each kind of prompt, for people."""
        ours = {} if self._local is None else self._local.paths
        return {part: "engine" if part in self._by_engine else ours[part] for part in Part}

    async def start(self) -> None:
        """Load the tokenizer, where there is one. Raises OSError or ValueError for files that don't fit."""
        pool = self._config.pool
        self._settings = await asyncio.to_thread(_settings, pool)
        self._remote.settings = self._settings
        if pool.unread_options:
            log.error(
                "engines have options that may change token ids in ways unknown here: prompts go to them",
                extra={"options": list(pool.unread_options)},
            )
            return
        if pool.tokenizer is None:
            log.warning("no tokenizer is configured: prompts go to the engines, which costs milliseconds")
            return
        try:
            self._local = await asyncio.to_thread(Tokenizer.load, Path(pool.tokenizer), settings=self._settings)
        except OnlyEngines as why:
            log.warning("prompts go to the engines, which costs milliseconds", extra={"why": str(why)})
        else:
            self._by_engine = self._differing | self._local.by_engine
            log.info("tokenizer is loaded", extra={"paths": {str(part): path for part, path in self.paths.items()}})

    async def encode(self, source: TokenSource) -> Sequence[int] | Untokenised:
        """See `prompts.Encoder`."""
        if self._local is None or touches(source, self._by_engine):
            return await self._remote.encode(source)
        ids = await self._local.encode(source)
        if isinstance(ids, Untokenised) and not self._compared:
            return await self._remote.encode(source)  # whether engines can is known soon: until then they are asked
        return ids

    async def compare(self, endpoint: Endpoint, model: str) -> Verdict:
        """Whether the tokenizer here makes the ids that this engine makes for `model`."""
        if self._local is None:
            return Verdict(True, "nothing is tokenised here")
        engine = RemoteTokenizer(self._engines, lambda: endpoint, model, PROBE_S, self._settings)
        return await compare(self._local, engine, self._local.by_engine)

    def learn(self, verdicts: Mapping[Endpoint, Verdict]) -> None:
        """What each engine was found to read in another way: of each kind of prompt, the greater number is followed.

        One engine that differs from the rest is that engine's fault, and asking engines would not mend its hits.
        """
        told = {endpoint: verdict for endpoint, verdict in verdicts.items() if verdict.alike is not None}
        votes = Counter(part for verdict in told.values() for part in verdict.differing)
        differing = frozenset(part for part, count in votes.items() if 2 * count > len(told))
        if differing and differing != self._differing:
            log.error(
                "the tokenizer is not the engines': they are asked instead",
                extra={"engines": len(told), "prompts": sorted(differing)},
            )
        elif self._differing and not differing:
            log.info("the tokenizer is the engines' again", extra={"engines": len(told)})
        self._differing = differing
        if self._local is not None:
            self._by_engine = differing | self._local.by_engine
        self._compared = self._compared or bool(told)
        self._others = frozenset(endpoint for endpoint, verdict in told.items() if verdict.differing & differing)

    async def close(self) -> None:
        """End the threads."""
        if self._local:
            self._local.close()

    def _choose(self) -> Endpoint | None:
        ready = self._registry.ready().endpoints
        endpoints = [endpoint for endpoint in ready if address_of(endpoint) in self._others] or ready
        return self._rng.choice(endpoints) if endpoints else None


def _settings(pool: Pool) -> EngineSettings:
    """Raises OSError for a template's file that can't be read."""
    template = pool.chat_template
    itself = template is not None and any(sign in template for sign in "{}\n")  # as the engine tells them apart
    if template is not None and not itself and (os.sep in template or Path(template).is_file()):
        template = Path(template).read_text(encoding="utf-8")
    content_format, effort = pool.chat_template_content_format, pool.anthropic_disabled_thinking_effort
    return EngineSettings(
        template,
        None if content_format == "auto" else content_format,
        pool.default_chat_template_kwargs,
        pool.exclude_tools_when_tool_choice_none,
        pool.trust_request_chat_template,
        pool.tokenizer_mode,
        None if effort == "auto" else effort,
    )
