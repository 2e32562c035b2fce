"""A model's folder -> all that makes its ids: of texts, what stands around them, and of chats."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from multipick_epp.tokens.chat_text import ChatText
from multipick_epp.tokens.families import Chats, Family, chats_of, own_tokenizer
from multipick_epp.tokens.files import ModelFiles, read_model
from multipick_epp.tokens.segments import Ids, Segment, best_segmenter
from multipick_epp.tokens.settings import EngineSettings
from multipick_epp.tokens.special import Surround, surround_of


class OnlyEngines(Exception):  # noqa: N818  (no error: engines are asked)
    """A tokenizer that can't be had here; the message says why."""


class Texts(Protocol):
    """Makes the ids of texts, segment by segment."""

    cuts: Mapping[Segment, Ids]
    """Segments whose ids are always known."""

    @property
    def library(self) -> str:
        """What makes the ids, for people."""

    @property
    def inline_bytes(self) -> int:
        """See `fast.Encode`."""

    def split(self, text: str, start: int = 0) -> list[Segment]:
        """The text from `start` on, where a segment of it begins, as segments and `cuts`, in order."""

    def tokenise(self, segments: Sequence[Segment]) -> dict[Segment, Ids]:
        """The ids of each segment. In any thread. Raises NoText."""


class Model(NamedTuple):
    """What makes the ids of one model."""

    family: Family
    texts: Texts
    surround: Surround | None  # None: the special tokens around a text depend on it
    templates: ChatText
    chats: Chats | None  # None: its templates write them, or only an engine does


def load_model(folder: Path, settings: EngineSettings, max_chars: int) -> Model:
    """Raises OSError where a file is missing, ValueError for one that doesn't fit, and OnlyEngines."""
    own = own_tokenizer(folder, settings.tokenizer_mode)
    if own is not None:
        return _mistral(own, settings, max_chars)
    files = read_model(folder)
    templates = ChatText(files.templates, files.special_tokens, settings, max_chars)
    texts = best_segmenter(files.backend, _usual_tokens(files, templates))
    chats = chats_of(files.family, files.backend, texts.encode, settings)
    return Model(files.family, texts, surround_of(files.backend), templates, chats)


def _mistral(file: Path, settings: EngineSettings, max_chars: int) -> Model:
    if file.suffix != ".json":
        raise OnlyEngines(f"{file.name}: of Mistral's own tokenizers, only tekken.json is read here")
    try:
        from multipick_epp.tokens.mistral import Mistral  # 150 MB, for these models alone
    except ImportError as error:
        raise OnlyEngines("mistral-common, which reads tekken.json, is not installed") from error
    mistral = Mistral(file, settings)
    return Model(Family.MISTRAL, mistral, mistral.surround, ChatText({}, {}, settings, max_chars), mistral)


def _usual_tokens(files: ModelFiles, text: ChatText) -> set[str]:
    """The added tokens that chats have: the special ones, and those that the templates write."""
    added = (token.content for token in files.backend.get_added_tokens_decoder().values())
    written = {token for token in added if any(token in source for source in text.sources)}
    return written | set(files.special_tokens.values())
