"""Tokenizers of kinds that the fixtures lack, trained on a few words."""

from collections.abc import Sequence

from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

CORPUS = [
    "the quick brown fox jumps over the lazy dog while the other dog sleeps in the warm brown grass",
    "user system assistant 2024 1,000\n\n def f(x): return x",
]
SPECIALS = ("<s>", "</s>", "[INST]", "[/INST]")


def trained(
    pre_tokenizer: pre_tokenizers.PreTokenizer,
    normalizer: normalizers.Normalizer | None = None,
    specials: Sequence[str | AddedToken] = SPECIALS,
    dropout: float | None = None,
) -> Tokenizer:
    """A BPE tokenizer of 400 tokens."""
    tokenizer = Tokenizer(models.BPE(unk_token=None, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    alphabet = [*pre_tokenizers.ByteLevel.alphabet(), "▁"]
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_special_tokens([*specials])
    tokenizer.model.dropout = dropout
    return tokenizer


def byte_level(specials: Sequence[str | AddedToken] = SPECIALS, dropout: float | None = None) -> Tokenizer:
    return trained(pre_tokenizers.ByteLevel(add_prefix_space=False), specials=specials, dropout=dropout)


def metaspace(scheme: str) -> Tokenizer:
    return trained(pre_tokenizers.Metaspace(prepend_scheme=scheme))


def prepending() -> Tokenizer:
    """Puts a space before each piece of text in its normaliser, as Llama 2's does."""
    steps = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    return trained(pre_tokenizers.Split("\0", "isolated"), normalizers.Sequence(steps))


def prepending_words() -> Tokenizer:
    """The same with a vocabulary of words, which is what Llama 2 has."""
    tokenizer = metaspace("always")
    tokenizer.pre_tokenizer = pre_tokenizers.Split("\0", "isolated")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return tokenizer


def with_bos(tokenizer: Tokenizer) -> Tokenizer:
    ids = [(token, tokenizer.token_to_id(token)) for token in ("<s>", "</s>")]
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=ids)
    return tokenizer
