"""Texts of an exact token count under the shipped tokenizer, which makes one token of " " + any of `vocabulary()`.

Its pre-tokeniser splits before each space, so such words stay the same tokens beside one another, at the start of a
message and before a special token: texts may be concatenated, and an answer sent back as history yields the ids that
the engine generated.
"""

from random import Random

VOCABULARY_WORDS = 4096
OPENING_WORDS = 512  # words that are one token without the leading space too: an answer to a chat starts with one

_CONSONANTS = "bdfgklmnprstv"
_VOWELS = "aeiou"
_CODAS = "klm"
_STRIDE = 4001  # has no factor in common with the number of possible words, so that the walk below repeats none


def vocabulary() -> list[str]:
    """`VOCABULARY_WORDS` distinct pronounceable words of five letters, the same on every machine."""
    syllables = [consonant + vowel for consonant in _CONSONANTS for vowel in _VOWELS]
    words = [first + second + coda for first in syllables for second in syllables for coda in _CODAS]
    return [words[index * _STRIDE % len(words)] for index in range(VOCABULARY_WORDS)]


def fixed_text(seed: int, tokens: int) -> str:
    """`tokens` tokens of text, a function of its arguments alone; starts with a space (the empty text for 0 tokens).

    Texts of different seeds share no prefix but by chance (1 in 4096 a word). Raises ValueError for a negative count.
    """
    if tokens < 0:
        raise ValueError(f"a text can't have {tokens} tokens")
    return "".join(" " + word for word in Random(seed).choices(_WORDS, k=tokens))


_WORDS = tuple(vocabulary())
