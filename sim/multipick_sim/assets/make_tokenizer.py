"""Writes `model/tokenizer.json` and `model/tokenizer_config.json`: `python -m multipick_sim.assets.make_tokenizer`.

A byte-level BPE with GPT-2's pre-tokeniser and ChatML's special tokens, trained on the word list of `texts` until every
word is one token. The same libraries give the same bytes.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

from multipick_sim.assets import MODEL_DIR
from multipick_sim.texts import OPENING_WORDS, vocabulary

SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
ROLES = ["system", "user", "assistant", "tool"]
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MODEL_MAX_LENGTH = 131_072


def corpus() -> Iterator[str]:
    """Each word often enough to be merged; rarer words come later in the merge order, never not at all."""
    words = vocabulary()
    for word in words:
        yield f" {word} {word}"
    for word in [*ROLES, *words[:OPENING_WORDS]]:
        yield f"{word}\n{word}\n"


def train() -> Tokenizer:
    """Merge until no pair is left that occurs twice: by then each word is one token."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=1 << 20,
        min_frequency=2,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=sorted(ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    return tokenizer


def write(folder: Path) -> None:
    """Write both files into `folder`, which must exist."""
    model = json.loads(train().to_str())
    (folder / "tokenizer.json").write_text(json.dumps(model, ensure_ascii=False, separators=(",", ":")) + "\n")
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "model_max_length": MODEL_MAX_LENGTH,
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else MODEL_DIR)
