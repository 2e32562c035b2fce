"""What an engine may say at most. Engines are input: whatever lies outside is as if it had not been said."""

from typing import Final

METRICS_BYTES: Final = 4 << 20  # a vLLM with many adapters and histograms: 0.3 MB
METRICS_S: Final = 2.0
METRICS_LINE_BYTES: Final = 16 << 10
METRICS_SAMPLES: Final = 1024
"""Of one name: an engine process behind the port has one each."""
INLINE_BYTES: Final = 256 << 10
"""A page up to this size is read at once, in 0.1 ms; a longer one in a thread."""
AROUND_BODY_BYTES: Final = 64 << 10
"""What of an answer is not its body: headers, sizes of chunks, trailers, interim answers. Engines send 0.2 KB of it."""

REQUESTS: Final = 1_000_000
"""Requests that one engine may say are waiting, or running."""
COUNTED_TOKENS: Final = 1e18
"""Tokens that a counter may have reached: more than an engine computes in a thousand years."""
BLOCK_TOKENS: Final = 1 << 16
"""Tokens of one block. The largest that engines use is a few thousand (Mamba states)."""

MODELS_BYTES: Final = 4 << 20
MODELS: Final = 10_000
NAME_CHARS: Final = 512
MODEL_TOKENS: Final = 1 << 27
"""The longest context that an engine may claim, tokens."""
MODELS_S: Final = 5.0

EVENT_SOURCES_BYTES: Final = 1 << 20
RANKS: Final = 1024
EVENT_SOURCES_S: Final = 3.0

VERSION_BYTES: Final = 4 << 10
VERSION_S: Final = 3.0

TEMPLATE_TOKENS: Final = 1 << 16
"""Tokens that a chat template may add to what it was given: system texts of tools are the longest."""
TOKEN_ID_BYTES: Final = 12
"""Of one token id in JSON, with its separator; more where an answer is indented."""
ANSWER_EXTRA_BYTES: Final = 64 << 10
"""Of a `/tokenize` answer besides its ids."""


def tokens_of(question_bytes: int) -> int:
    """Tokens that `/tokenize` can make of a question: no tokenizer makes more than one of a byte of text."""
    return question_bytes + TEMPLATE_TOKENS


def answer_bytes_of(question_bytes: int) -> int:
    """Size of the answer with so many tokens."""
    return tokens_of(question_bytes) * TOKEN_ID_BYTES + ANSWER_EXTRA_BYTES
