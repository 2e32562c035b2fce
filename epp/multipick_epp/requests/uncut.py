"""Whether all that was cut out of a body was media: looked at once a chat is read, before all else is done with it.

Templates and libraries write values in ways that would hide the mark: escaped, in capitals, by its length alone. Then
prompts that differ would look alike. So no chat with a mark in it is let through.
"""

from collections.abc import Iterable
from typing import Any

from multipick_epp.requests.base64_data import CUT_NAME
from multipick_epp.requests.body import Unreadable
from multipick_epp.requests.chat_fields import MEDIA_PARTS, media_of
from multipick_epp.requests.nested_texts import texts_in
from multipick_epp.requests.prompt import Chat, ChatMessage


def check_uncut(chat: Chat) -> None:
    """Raises Unreadable where something was cut out of what the engine may show the model as text."""
    shown = [chat.tools, chat.documents, chat.template_kwargs, *_fields(chat.messages)]
    if any(CUT_NAME in text for text in texts_in(shown)):
        raise Unreadable("base64 in a text")


def _fields(messages: Iterable[ChatMessage]) -> Iterable[Any]:
    """What the messages hold, but for their media."""
    for message in messages:
        for name, value in message.items():
            if name != "content" or not isinstance(value, list):
                yield value
                continue
            for part in value:
                is_media = isinstance(part, dict) and media_of(part) is not None
                yield {key: it for key, it in part.items() if key not in MEDIA_PARTS} if is_media else part
