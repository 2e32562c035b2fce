"""The options of the engine's command line that change the tokens of a chat."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from multipick_epp.tokens.efforts import Effort

ContentFormat = Literal["string", "openai"]
"""Whether a template takes a message's content as one string, or as the list of parts of the OpenAI API."""


TokenizerMode = Literal["auto", "hf", "mistral"]
"""Whether Mistral's own tokenizer is used where a model has one; "auto": as the model's files are."""


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """As the pool's engines were started; each field is named after vLLM's option."""

    chat_template: str | None = None  # the template itself, or the name of one of the model's
    chat_template_content_format: ContentFormat | None = None  # None: found out from the template ("auto")
    default_chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    exclude_tools_when_tool_choice_none: bool = False
    trust_request_chat_template: bool = False
    tokenizer_mode: TokenizerMode = "auto"
    disabled_thinking_effort: Effort | None = None  # `anthropic_disabled_thinking_effort`; None: found out ("auto")
