"""The values that parsing yields. None of them can be part of a cycle, so the collector need not look at them."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple, Required, TypedDict

import msgspec

if TYPE_CHECKING:
    from array import array


class Api(StrEnum):
    """The API that the client speaks; it decides how an error looks."""

    CHAT = "openai-chat"
    COMPLETIONS = "openai-completions"
    RESPONSES = "openai-responses"
    EMBEDDINGS = "openai-embeddings"
    MESSAGES = "anthropic-messages"
    GENERATE = "vllm-generate"
    SGLANG_GENERATE = "sglang-generate"
    POOLING = "vllm-pooling"
    SCORE = "vllm-score"
    AUDIO = "openai-audio"
    BATCH = "vllm-batch"
    OTHER = "other"


class Sent(msgspec.Struct, frozen=True, gc=False, eq=False):
    """A chat's request as the client sent it, for what is only known from there."""

    api: Api
    body: bytes

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sent)  # chats that say the same are equal, however they were written


class ChatMessage(TypedDict, total=False):
    """One message of a chat in OpenAI's form: what every chat-like API is turned into before the template."""

    role: Required[str]
    content: str | list[str | dict[str, Any]] | None
    name: str
    tool_calls: list[dict[str, Any]] | None
    tool_call_id: str | None
    reasoning: str | None
    tools: list[dict[str, Any]] | None  # of a developer message
    task: str | None


class Truncation(NamedTuple):
    """How much of a longer prompt the engine keeps."""

    tokens: int  # at least 1
    left: bool  # it drops the first tokens, and keeps the last ones
    named: bool = False  # the request names the side: then special tokens around a text are cut like all others

    def cut(self, ids: "array[int]") -> "array[int]":
        """What is kept of these ids."""
        return ids[-self.tokens :] if self.left else ids[: self.tokens]


class TokenIds(msgspec.Struct, frozen=True, gc=False):
    """The request brings its token ids; where it has media, only those before the first item."""

    ids: Sequence[int]


class Text(msgspec.Struct, frozen=True, gc=False):
    """A completion's prompt: tokenised as it is."""

    text: str
    add_special_tokens: bool = True
    truncation: Truncation | None = None


class Chat(msgspec.Struct, frozen=True, gc=False):
    """Messages for the model's chat template, before the clean-up that depends on the template (that is `tokens/`)."""

    messages: Sequence[ChatMessage]
    tools: Sequence[Mapping[str, Any]] | None = None
    tool_choice_none: bool = False  # engines can be told to hide the tools then
    documents: Sequence[Mapping[str, Any]] | None = None
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    add_special_tokens: bool = False
    chat_template: str | None = None  # the request's own template, where the engine allows one
    template_kwargs: Mapping[str, Any] = {}
    reasoning_effort: str | None = None
    thinking_off: bool = False  # the effort is the least that the template knows, `reasoning_effort` is not used
    inline_system: bool = False  # later system messages join the first one, where the template insists on that
    multimodal: bool = False  # some message has images, audio or video
    texts: bool = False  # all messages are known to have a role and a text, and nothing else
    truncation: Truncation | None = None
    sent: Sent | None = None

    @property
    def size(self) -> int:
        """Bytes of its body: tells little work from much."""
        return len(self.sent.body) if self.sent else 0


TokenSource = TokenIds | Text | Chat


class Prompt(msgspec.Struct, frozen=True, gc=False):
    """One request's prompt, before tokens."""

    model: str | None  # as the client named it: the base model, an alias or a LoRA adapter; None = the engine's default
    source: TokenSource
    batch: Sequence[TokenSource] = ()  # further prompts of the same request (a completion with a list); often empty
    cache_salt: str | None = None
    guessed_tokens: int = 0  # a guess at the tokens after those of `source`, where media begin; 0 without media
    reads_cache: bool = True  # False: the engine computes all of the prompt, whatever it has cached
    keeps_end: bool = False  # of a prompt that is longer than the model's context, the engine keeps the last tokens
    answer_tokens: int = 0  # of that context, which it then keeps free for its answer
    max_tokens: int | None = None  # that the engine keeps of each, where the request says so
    lora_names: frozenset[str | None] = frozenset()  # of SGLang's `lora_path`; None: the base model, for some prompts


class Unread(msgspec.Struct, frozen=True, gc=False):
    """A body without a prompt that we can read: routed by load, never refused for it.

    `reason` is one of a few fixed texts (fit for a metric's label), never the client's own words.
    """

    reason: str
    prompt_tokens: int | None = None  # where the request tells how many it has at most
