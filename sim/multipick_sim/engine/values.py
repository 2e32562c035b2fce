"""The values that go into an engine and come out of it. (What comes out are tuples: a trace makes a million.)"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

MAX_BLOCKS = 1 << 24
"""Of a pod: a gigabyte of memory before anything is cached. The largest GPUs have a twentieth of them."""


@dataclass(frozen=True, slots=True)
class Limits:
    """An engine's settings, named as vLLM's flags. Raises ValueError for a combination that vLLM refuses too."""

    num_gpu_blocks: int  # with the null block: one less can be used
    block_size: int = 16  # tokens
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 2048
    max_model_len: int = 32_768  # tokens, prompt and answer
    enable_prefix_caching: bool = True  # without, nothing is cached, and nothing told of

    def __post_init__(self) -> None:
        if min(self.block_size, self.max_num_seqs, self.max_model_len) < 1:
            raise ValueError("block size, number of sequences and model length must be at least 1")
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise ValueError(
                f"max_num_batched_tokens ({self.max_num_batched_tokens}) must be at least "
                f"max_num_seqs ({self.max_num_seqs}): each running sequence decodes one token a step"
            )
        if self.blocks_for(self.max_model_len) > self.usable_blocks:
            raise ValueError(
                f"a request of max_model_len ({self.max_model_len}) tokens needs more blocks of {self.block_size} "
                f"than the {self.usable_blocks} usable ones: lower max_model_len or raise num_gpu_blocks"
            )

    @property
    def usable_blocks(self) -> int:
        """Blocks that requests can hold; vLLM keeps block 0 as the null block."""
        return self.num_gpu_blocks - 1

    def blocks_for(self, tokens: int) -> int:
        """Blocks that hold so many tokens."""
        return -(-tokens // self.block_size)


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt and its answer, whose length is known beforehand; tokens appear only as hashes of blocks."""

    request_id: str
    prompt_tokens: int  # at least 1
    output_tokens: int  # at least 1
    block_hashes: Sequence[int]  # chained, of every full block of prompt + answer less its last token, which has no KV
    report_hits: bool = False  # also report the blocks it hit as stored (vLLM: kv_cache_report_mode "full")


class Stored(NamedTuple):
    """Blocks `first`, `first` + 1, … of a request came into the prefix cache."""

    request_id: str
    first: int  # index of the first of these blocks in the request
    hashes: Sequence[int]
    parent: int | None  # hash of the block before; None for the request's first


class Removed(NamedTuple):
    """Cached blocks were handed out again, one copy each, in this order."""

    hashes: Sequence[int]


@dataclass(frozen=True, slots=True)
class Cleared:
    """The whole prefix cache was dropped."""


Event = Stored | Removed | Cleared


class Admission(NamedTuple):
    """A request got its blocks for the first time."""

    request_id: str
    hit_tokens: int


class Step(NamedTuple):
    """One engine step, or a stretch of `steps` steps in which each decoding request got one token and no more."""

    start_s: float
    end_s: float  # when tokens and events go out
    steps: int
    computed_tokens: int  # prompt tokens that were computed
    sampled_tokens: int  # tokens that came out, of all requests
    admitted: Sequence[Admission] = ()
    first_tokens: Sequence[str] = ()  # requests that got their first token
    preempted: Sequence[str] = ()  # in this step or since the one before
    finished: Sequence[str] = ()  # requests that got their last token
    events: Sequence[Event] = ()
