"""Answers: pseudo-words that depend on the prompt alone, and that come back as the same tokens in the next turn.

A word is a token that is a space and lower-case letters, so that each stays one token beside any other. An answer to a
chat begins with a word that needs no space: chat templates may strip what they quote, and then nothing is lost.
"""

import re
from collections.abc import Sequence
from random import Random

import msgspec
from multipick_epp.blocks import token_bytes
from multipick_epp.tokens.files import ModelFiles
from tokenizers import Tokenizer
from xxhash import xxh3_64_intdigest

MOST_WORDS = 4096
FEWEST_WORDS = 64
UNASKED_TOKENS = (48, 256)  # length of an answer to a chat that sets no limit, drawn from the prompt

_WORD = re.compile(r"[Ġ▁]([a-z]{3,})")
_OPENING = re.compile(r"([a-z]{3,})")


class Answers:
    """Writes answers in one model's tokens."""

    def __init__(self, files: ModelFiles, seed: int) -> None:
        """Raises ValueError for a tokenizer without enough stable words."""
        tokenizer, end = files.backend, files.special_tokens.get("eos_token")
        self._seed = seed
        self._end = None if end is None else tokenizer.token_to_id(end)
        words, openings = _stable(tokenizer, _WORD, " "), _stable(tokenizer, _OPENING, "")
        self._word_ids, self._opening_ids = list(words), list(openings)
        self._texts = words | openings
        if min(len(words), len(openings)) < FEWEST_WORDS or not self._concatenates(tokenizer):
            raise ValueError("the tokenizer has too few words that stay one token beside others")
        self._json = {id_: msgspec.json.encode(text)[1:-1] for id_, text in self._texts.items()}

    def write(self, prompt: Sequence[int], tokens: int, *, chat: bool, ends: bool) -> list[int]:
        """The answer to a prompt: `tokens` ids, of which the last closes the turn if it `ends`.

        A shorter answer to the same prompt is the beginning of a longer one.
        """
        random = Random(xxh3_64_intdigest(token_bytes(prompt), self._seed))
        opening = random.choice(self._opening_ids)
        answer = random.choices(self._word_ids, k=tokens)
        if chat:
            answer[0] = opening
        if ends and self._end is not None:
            answer[-1] = self._end
        return answer

    def unasked_length(self, prompt: Sequence[int]) -> int:
        """How long the answer to a chat is that sets no limit."""
        return Random(xxh3_64_intdigest(token_bytes(prompt), self._seed + 1)).randint(*UNASKED_TOKENS)

    def text(self, ids: Sequence[int]) -> str:
        """Ids of an answer as text; the end of the turn has none."""
        return "".join([self._texts.get(id_, "") for id_ in ids])

    def json_text(self, ids: Sequence[int]) -> bytes:
        """The same as the inside of a JSON string."""
        return b"".join([self._json.get(id_, b"") for id_ in ids])

    def _concatenates(self, tokenizer: Tokenizer) -> bool:
        ids = [self._opening_ids[0], *self._word_ids]
        encoded: list[int] = tokenizer.encode(self.text(ids), add_special_tokens=False).ids
        return encoded == ids


def _stable(tokenizer: Tokenizer, pattern: re.Pattern[str], before: str) -> dict[int, str]:
    """Words, by id, that are one token: `before` and what `pattern` finds in the vocabulary's spelling."""
    found = sorted((id_, match) for token, id_ in tokenizer.get_vocab().items() if (match := pattern.fullmatch(token)))
    texts = [(id_, before + match[1]) for id_, match in found]
    encoded = tokenizer.encode_batch([text for _, text in texts], add_special_tokens=False)
    stable = [(id_, text) for (id_, text), encoding in zip(texts, encoded, strict=True) if encoding.ids == [id_]]
    return dict(stable[-MOST_WORDS:])
