"""Where token ids come from: the model's tokenizer in this process, else the pool's own engines."""

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from random import Random

import aiohttp

from multipick_epp.config import Config
from multipick_epp.pods.registry import Registry
from multipick_epp.requests.prompt import TokenSource
from multipick_epp.tokens import RemoteTokenizer, Tokenizer, Untokenised

log = logging.getLogger(__name__)


class Encoders:
    """`prompts.Encoder` as configured."""

    def __init__(self, config: Config, registry: Registry) -> None:
        self._config = config
        self._registry = registry
        self._rng = Random()
        self._local: Tokenizer | None = None
        self._remote: RemoteTokenizer | None = None
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Load the tokenizer, or get ready to ask engines. Raises OSError or ValueError for files that don't fit."""
        pool = self._config.pool
        if pool.tokenizer is not None:
            self._local = await asyncio.to_thread(_load, Path(pool.tokenizer), pool.chat_template)
            return
        log.warning("no tokenizer is configured: prompts are sent to the engines' /tokenize, which costs milliseconds")
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=64))
        model = pool.models[0] if pool.models else ""
        self._remote = RemoteTokenizer(self._session, self._address, model, self._config.limits.decision_s)

    async def encode(self, source: TokenSource) -> Sequence[int] | Untokenised:
        """See `prompts.Encoder`."""
        encoder = self._local or self._remote
        return await encoder.encode(source) if encoder else Untokenised("not started")

    async def close(self) -> None:
        """End threads and connections."""
        if self._local:
            self._local.close()
        if self._session:
            await self._session.close()

    def _address(self) -> str | None:
        endpoints = self._registry.ready().endpoints
        return f"http://{self._rng.choice(endpoints)}" if endpoints else None


def _load(folder: Path, template: str | None) -> Tokenizer:
    return Tokenizer.load(folder, Path(template).read_text() if template else None)
