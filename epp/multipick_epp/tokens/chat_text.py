"""A chat -> the text that the engine tokenises: which template, with which variables (the rules of vLLM 0.32)."""

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2.defaults import DEFAULT_NAMESPACE

from multipick_epp.requests.prompt import Chat, ChatMessage
from multipick_epp.tokens.conversation import MEDIA_MARK, conversation, inline_system_first
from multipick_epp.tokens.efforts import least_effort
from multipick_epp.tokens.outcome import NoText
from multipick_epp.tokens.settings import EngineSettings
from multipick_epp.tokens.template import ChatTemplate

NOT_VARIABLES = frozenset({"chat_template", "conversation", "messages"})
"""The engine refuses a request that gives these as template variables."""

_OWN = frozenset(DEFAULT_NAMESPACE)
"""What every template has, such as `range`: the engine gives it no variable of that name."""


class ChatText:
    """Renders the chats of one model."""

    def __init__(
        self, templates: Mapping[str, str], special_tokens: Mapping[str, str], settings: EngineSettings, max_chars: int
    ) -> None:
        """`templates` by name. Raises ValueError for what is no template."""
        self._settings = settings
        self._given = {"documents": None, **special_tokens, **_taken(settings.default_chat_template_kwargs)}
        self._max_chars = max_chars
        if settings.chat_template is not None:
            templates = {"default": templates.get(settings.chat_template, settings.chat_template)}
        self._templates = {name: ChatTemplate(source) for name, source in templates.items()}
        default = self._templates.get("default")
        self._without_tools = self._templates.get("processor") or default
        self._with_tools = self._templates.get("tool_use") or default
        insisting = (template.insists_on_system_first() for template in self._templates.values())
        self._system_first = not self._templates or any(insisting)
        self._least_effort = settings.disabled_thinking_effort or least_effort(self._try_effort)

    @property
    def sources(self) -> Sequence[str]:
        """The texts of the templates."""
        return [template.source for template in self._templates.values()]

    def in_order(self, chat: Chat) -> Sequence[ChatMessage]:
        """The messages as the engine has them: it moves later system messages of an Anthropic request to the front,
        unless the template is one that takes them where they are.
        """
        return inline_system_first(chat.messages) if chat.inline_system and self._system_first else chat.messages

    def render(self, chat: Chat) -> str:
        """The chat's text; of a chat with media, only what stands before the first of them. Raises NoText."""
        if chat.chat_template is not None:
            raise NoText("template in the request")
        if chat.continue_final_message and chat.add_generation_prompt:
            raise NoText("no message to continue")
        hide_tools = chat.tool_choice_none and self._settings.exclude_tools_when_tool_choice_none
        variables = self._variables(chat, None if hide_tools else chat.tools)
        template = self._without_tools if variables["tools"] is None else self._with_tools
        if template is None:
            raise NoText("no chat template")
        messages = conversation(
            self.in_order(chat),
            self._settings.chat_template_content_format or template.content_format,
            template.knows_developers,
            texts=chat.texts,
        )
        if chat.continue_final_message:
            text = template.render_open(messages, variables, self._max_chars)
        else:
            text = template.render({**variables, "messages": messages}, self._max_chars)
        if not chat.multimodal:
            return text
        before, mark, _ = text.partition(MEDIA_MARK)
        if not mark:
            raise NoText("media not in the text")
        return before

    def _variables(self, chat: Chat, tools: Sequence[Mapping[str, Any]] | None) -> dict[str, Any]:
        """All but the messages. The engine takes null and "auto" in a request's own variables as not given."""
        given = chat.template_kwargs
        variables: dict[str, Any] = {**self._given, "tools": tools}
        if given:
            if not NOT_VARIABLES.isdisjoint(given):
                raise NoText("not a template variable")
            variables |= {name: it for name, it in _taken(given).items() if it is not None and it != "auto"}
        effort = self._least_effort if chat.thinking_off else chat.reasoning_effort
        if effort is not None:
            variables["reasoning_effort"] = effort
            if "enable_thinking" not in given:
                variables["enable_thinking"] = effort != "none"
        if chat.documents is not None:
            variables["documents"] = chat.documents
        variables["add_generation_prompt"] = chat.add_generation_prompt
        return variables

    def _try_effort(self, effort: str) -> str | None:
        try:
            return self.render(Chat([{"role": "user", "content": "Hi"}], reasoning_effort=effort))
        except NoText:
            return None


def _taken(given: Mapping[str, Any]) -> dict[str, Any]:
    """Those that the engine gives to the template."""
    return {name: value for name, value in given.items() if name not in _OWN}
