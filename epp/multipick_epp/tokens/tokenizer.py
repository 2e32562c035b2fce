"""Token ids in this process: for the picker's event loop (`encode`), and for programs without one (`encode_now`)."""

import asyncio
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from multipick_epp.requests.body import is_light
from multipick_epp.requests.prompt import Chat, Text, TokenIds, TokenSource
from multipick_epp.tokens.cache import SegmentCache
from multipick_epp.tokens.families import Family
from multipick_epp.tokens.grown import GrownTexts, Split, as_split
from multipick_epp.tokens.model import Model, load_model
from multipick_epp.tokens.outcome import NoText, Untokenised
from multipick_epp.tokens.parts import CHATS, Part
from multipick_epp.tokens.segments import Ids, Segment, text_of
from multipick_epp.tokens.settings import EngineSettings
from multipick_epp.tokens.special import NOTHING, Surround
from multipick_epp.tokens.truncation import kept, truncation_by
from multipick_epp.tokens.worker import Worker

if TYPE_CHECKING:
    from array import array

log = logging.getLogger(__name__)

MAX_CHARS = 8_000_000
"""Longer texts are not tokenised: two million tokens."""

MAX_NEW_CHARS = 2_000_000
"""New text that may wait for the threads, of all requests together: a second of work, or eight if it is all digits and
spaces. What comes beyond it is routed by load."""

INLINE_CHARS = 200_000
INLINE_MESSAGES = 100
"""A chat within both is rendered at once, in about a millisecond; a larger one in a thread, and so is one whose parts,
calls and tools make it heavy to read: templates take longer for each than the parser does."""

INLINE_MESSAGES_OF_MISTRAL = 25
"""The same of a chat that `mistral-common` writes, which makes objects of all messages first, 40 us each."""

_RENDER_SIZE = 20_000
"""Rendering in a thread counts as so much new text: it takes some 10 ms."""

_Found = dict[Segment, Ids]


class Tokenizer:
    """One model's tokenizer and templates, with the ids of the beginnings and the segments seen lately.

    `encode` belongs to one event loop; `encode_now` to the same thread.
    """

    def __init__(self, model: Model, cache_bytes: int, threads: int) -> None:
        """See `load`."""
        self._family, self._texts, self._surround, self._templates, self._chats = model
        self._cuts = {**self._texts.cuts, **(self._chats.cuts if self._chats else {})}
        self._grown = GrownTexts(self._texts, cache_bytes // 2)
        self._cache = SegmentCache(cache_bytes // 2)
        self._worker = Worker(threads, MAX_NEW_CHARS)
        self._jobs: dict[Segment, asyncio.Future[_Found]] = {}  # the segments that a thread tokenises now, or will

    @classmethod
    def load(
        cls,
        folder: Path,
        chat_template: str | None = None,
        settings: EngineSettings | None = None,
        cache_bytes: int = 256_000_000,
        threads: int = 2,
    ) -> "Tokenizer":
        """Reads tokenizer.json, and tokenizer_config.json and chat templates where there are any; or tekken.json.

        `chat_template` is short for the setting of that name. Raises OSError or ValueError for files that don't fit,
        and `OnlyEngines` for a tokenizer that can't be had here.
        """
        # The library would pass each text, however short, to threads of its own: a wait for the scheduler each time.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        settings = settings or EngineSettings(chat_template)
        return cls(load_model(folder, settings, MAX_CHARS), cache_bytes, threads)

    @property
    def by_engine(self) -> frozenset[Part]:
        """The prompts that only the engine can write."""
        match self._family:
            case Family.ENGINE:
                return CHATS
            case Family.TEMPLATE:
                return frozenset({Part.TEMPLATE})  # a template of a client's is never rendered here
            case Family.HARMONY | Family.MISTRAL:
                return frozenset()

    @property
    def paths(self) -> Mapping[Part, str]:
        """What makes the ids of each kind of prompt, for people."""
        made_here = {part: str(self._family) if part in CHATS else self._texts.library for part in Part}
        return made_here | dict.fromkeys(self.by_engine, "engine")

    def close(self) -> None:
        """Ends the threads. Prompts that wait for them come out as Untokenised."""
        self._worker.close()

    async def encode(self, source: TokenSource) -> Sequence[int] | Untokenised:
        """The prompt's token ids; of one with media, those before them. May be cancelled at any time.

        Holds the loop for about a millisecond at most: larger work is done in threads, where one text is tokenised
        once, however many requests wait for it.
        """
        if isinstance(source, TokenIds):
            return source.ids
        try:
            if self._is_small(source):
                split = self._split(source)
            else:
                split = await self._worker.run(_RENDER_SIZE, lambda: self._split(source))
            found = {**self._cuts}
            if missing := self._cache.find(split.segments, found):
                if _bytes(missing) <= self._texts.inline_bytes:
                    found |= self._tokenise(missing)
                else:
                    found |= await self._tokenise_in_thread(missing)
            return self._join(source, split, found)
        except NoText as none:
            return Untokenised(none.reason)

    def encode_now(self, source: TokenSource) -> Sequence[int] | Untokenised:
        """The same, at once, however long it takes."""
        if isinstance(source, TokenIds):
            return source.ids
        try:
            split = self._split(source)
            found = {**self._cuts}
            if missing := self._cache.find(split.segments, found):
                found |= self._tokenise(missing)
            return self._join(source, split, found)
        except NoText as none:
            return Untokenised(none.reason)

    def _split(self, source: Text | Chat) -> Split:
        """In any thread. Raises NoText."""
        if isinstance(source, Chat) and self._family is Family.ENGINE:
            raise NoText("only the engine writes these chats")
        written = source.text if isinstance(source, Text) else self._written(source)
        return as_split(written) if isinstance(written, list) else self._as_text(written)

    def _written(self, chat: Chat) -> str | list[Segment]:
        """The chat as a text, or as the segments of a family's own code. Raises NoText, whatever is wrong with it."""
        try:
            if self._chats:
                return self._chats.segments(replace(chat, messages=self._templates.in_order(chat)))
            return self._templates.render(chat)
        except NoText:
            raise
        except RecursionError as error:
            raise NoText("nested too deeply") from error
        except Exception as error:  # any: of a client's values, in more shapes than engines take
            log.debug("a chat can't be written", exc_info=True)
            raise NoText("unexpected fields") from error

    def _as_text(self, text: str) -> Split:
        if len(text) > MAX_CHARS:
            raise NoText("too long")
        return self._grown.split(text)

    def _is_small(self, source: Text | Chat) -> bool:
        if isinstance(source, Text):
            return len(source.text) <= INLINE_CHARS
        most = INLINE_MESSAGES_OF_MISTRAL if self._family is Family.MISTRAL else INLINE_MESSAGES
        if source.size > INLINE_CHARS or len(source.messages) > most:
            return False
        only_texts = source.texts and not (source.tools or source.documents or source.template_kwargs)
        return only_texts or source.sent is None or is_light(source.sent.body)

    def _tokenise(self, segments: Sequence[Segment]) -> _Found:
        found = self._make(segments)
        self._keep(found)
        return found

    def _make(self, segments: Sequence[Segment]) -> _Found:
        """In any thread. Raises NoText."""
        if self._chats is None:
            return self._texts.tokenise(segments)
        theirs = [segment for segment in segments if self._chats.owns(segment)]
        ours = [segment for segment in segments if not self._chats.owns(segment)]
        found = self._chats.tokenise(theirs) if theirs else {}
        return found | self._texts.tokenise(ours) if ours else found

    def _keep(self, found: _Found) -> None:
        for segment, ids in found.items():
            self._cache.put(segment, ids)

    async def _tokenise_in_thread(self, segments: Sequence[Segment]) -> _Found:
        own = None
        new = [segment for segment in segments if segment not in self._jobs]
        if new:
            own = self._worker.start(_chars(new), lambda: self._make(new))
            self._jobs |= dict.fromkeys(new, own)
            own.add_done_callback(lambda done: self._finish(new, done))
        jobs = {self._jobs[segment] for segment in segments}
        await asyncio.wait(jobs)  # a request that is cancelled here leaves the jobs alone: others may wait for them
        found: _Found = {}
        for done in jobs:
            if done.cancelled():
                raise NoText("closed")
            if done is own or done.exception() is None:  # what is wrong in another's request is wrong in that alone
                found |= done.result()
        left = [segment for segment in segments if segment not in found]
        return found | await self._tokenise_in_thread(left) if left else found

    def _finish(self, segments: Sequence[Segment], job: asyncio.Future[_Found]) -> None:
        for segment in segments:
            del self._jobs[segment]
        if not job.cancelled() and job.exception() is None:
            self._keep(job.result())

    def _join(self, source: Text | Chat, split: Split, found: _Found) -> "array[int]":
        around = NOTHING
        if source.add_special_tokens and not (isinstance(source, Chat) and self._chats):
            if self._surround is None:
                raise NoText("special tokens depend on the text")
            around = self._surround
        if isinstance(source, Chat) and source.multimodal:
            if source.truncation is not None:
                raise NoText("truncated prompt")
            around = Surround(around.before, b"")
        ids = self._grown.join(split, found)
        return kept(ids, around, truncation_by(self._family, source)) if source.truncation else around.with_(ids)


def _chars(segments: Sequence[Segment]) -> int:
    return sum(map(len, map(text_of, segments)))


def _bytes(segments: Sequence[Segment]) -> int:
    texts = map(text_of, segments)
    return sum([len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass")) for text in texts])
