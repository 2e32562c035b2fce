"""What tokenises texts: `fastokens` where its ids prove equal to those of `tokenizers`, else `tokenizers` itself.

Both read the same tokenizer; `fastokens` takes a tenth to a hundredth of the time for text that it has not seen
(docs/prompts.md). It proves itself on this model's own probes whenever a model is loaded: there is no list of models.
"""

import logging
import random
from collections.abc import Iterable, Sequence
from typing import Protocol

from tokenizers import Tokenizer as Backend

from multipick_epp.tokens.outcome import NoText

log = logging.getLogger(__name__)

_PROBES = 400

_FEW = 8
"""So many texts `fastokens` is given one by one: for several at once it wakes threads of its own, which takes 70 us."""
_WORDS = (
    "the quick brown fox def return class import 12 345 6789 0.5 1,000 Don't I'LL we've ( ) [ ] { } : ; == != -> // # "
    "naïve Grüße Привет мир 東京タワー 汉字 測試 한국어 العربية עברית हिन्दी "
    "\u0301 \u200b \ufeff \u00a0 \U0001f469\u200d\U0001f467 \U0001d518 ﬁ ½ "
    "https://a.b/c?d=e_f <s> </s> <unk> <|im_end|> <|end|> [INST] <0x0A> ▁ Ġ \x00 \x7f"
)
_GAPS = ("", "", " ", " ", " ", "  ", "    ", "\n", "\n\n", "\t", "\r\n", " \n ")


class Encode(Protocol):
    """Texts -> ids, without special tokens around them."""

    name: str
    inline_bytes: int
    """Text in UTF-8 that it makes the ids of in about a millisecond, whatever it is: a hand-over to a thread and back
    takes 0.2 ms of two processors."""

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """In any thread; releases the GIL for most of the time. Raises NoText."""


class _Tokenizers:
    name = "tokenizers"
    inline_bytes = 2_000

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        try:
            return [encoding.ids for encoding in self._backend.encode_batch_fast(texts, add_special_tokens=False)]
        except Exception as error:  # the library raises many, and none that it names
            raise NoText("not a text") from error


class _Fastokens:
    name = "fastokens"
    inline_bytes = 8_000  # of any letters in no order; text that means something takes a tenth of it and less

    def __init__(self, backend: Backend) -> None:
        """Raises ImportError where the library is not there, and whatever it raises for what it can't load."""
        import fastokens

        self._tokenizer = fastokens.Tokenizer.from_json_str(backend.to_str())

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        try:
            if len(texts) <= _FEW:
                return [self._tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
            encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        except Exception as error:
            raise NoText("not a text") from error
        return [encoding.ids for encoding in encodings]


def encode_of(backend: Backend) -> Encode:
    """The faster of the two that makes the right ids."""
    usual = _Tokenizers(backend)
    if backend.encode_special_tokens:
        return usual  # not a part of tokenizer.json, so the other library doesn't know
    try:
        fast = _Fastokens(backend)
    except ImportError:
        return usual
    except Exception as error:
        log.info("fastokens can't load this tokenizer", extra={"why": str(error)[:200]})
        return usual
    added = (token.content for token in backend.get_added_tokens_decoder().values())
    probes = [*_probes(added)]
    try:
        alike = usual(probes) == fast(probes) == [fast([probe])[0] for probe in probes]
    except NoText:
        alike = False
    if not alike:
        log.warning("fastokens makes other ids of this tokenizer's probes, and is not used")
    return fast if alike else usual


def _probes(added: Iterable[str]) -> Iterable[str]:
    """The same for the same tokenizer."""
    rng = random.Random(0)
    some_added = list(added)
    rng.shuffle(some_added)
    words = [*_WORDS.split(" "), *some_added[:40]]
    for _ in range(_PROBES):
        yield "".join(rng.choice(words) + rng.choice(_GAPS) for _ in range(rng.randint(1, 60)))
