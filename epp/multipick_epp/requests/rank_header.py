"""Which requests an engine serves by the data-parallel rank that a header names; others go to a rank of its choice.

vLLM 0.32, entrypoints/generate/base/serving.py and its callers; measured. The number is the server's own count, from 0.
"""

from typing import Final

from multipick_epp.requests.errors import api_of
from multipick_epp.requests.prompt import Api

RANK_HEADER: Final = "x-data-parallel-rank"

_HEEDING = frozenset({Api.COMPLETIONS, Api.CHAT, Api.MESSAGES, Api.GENERATE})


def heeds_rank(path: str) -> bool:
    """Whether the header counts on this path. Not on responses, embeddings, and whatever has no body."""
    return api_of(path) in _HEEDING
