"""OpenAI embeddings: `/v1/embeddings`, with texts, token ids, or (vLLM's own) a chat."""

from typing import Any

import msgspec

from multipick_epp.requests.body import Scalar, Unreadable, check_values, flag, is_given, salt
from multipick_epp.requests.chat import SentMessage, message
from multipick_epp.requests.chat_fields import find_media, keeps_end, truncation_of
from multipick_epp.requests.lora_path import lora_names
from multipick_epp.requests.prompt import Api, Chat, Prompt, Sent, Truncation
from multipick_epp.requests.token_ids import sources


class Body(msgspec.Struct):
    """The fields that decide the prompt or its cache use."""

    input: msgspec.Raw = msgspec.Raw()
    messages: msgspec.Raw = msgspec.Raw()
    model: str | None = None
    add_special_tokens: Scalar = None  # absent: true for texts, false for a chat
    add_generation_prompt: Scalar = False
    continue_final_message: Scalar = False
    chat_template: str | None = None
    chat_template_kwargs: msgspec.Raw = msgspec.Raw()
    truncate_prompt_tokens: Scalar = None
    truncation_side: Scalar = None
    padding: str | None = None
    task: msgspec.Raw = msgspec.Raw()
    cache_salt: str | None = None
    extra_key: Scalar = None
    lora_path: msgspec.Raw = msgspec.Raw()


_OF_ALL_TOKENS = frozenset({b'"token_embed"', b'"token_classify"'})
"""Tasks of `/pooling` whose answers have something for each token of the prompt: the engine computes all of it."""

_DECODER = msgspec.json.Decoder(Body)
_MESSAGES = msgspec.json.Decoder(list[SentMessage])
_VARIABLES = msgspec.json.Decoder(dict[str, Any])


def parse(body: bytes) -> Prompt:
    """Raises Unreadable, msgspec.DecodeError, UnicodeDecodeError or RecursionError."""
    sent = _DECODER.decode(body)
    truncation = truncation_of(sent.truncate_prompt_tokens, sent.truncation_side, left=False)
    if sent.padding == "max_length":
        raise Unreadable("padded prompt")
    if bytes(sent.messages) not in (b"", b"null"):
        check_values(body)
        return _parse_chat(sent, _MESSAGES.decode(sent.messages), truncation, body)
    special = sent.add_special_tokens is None or flag(sent.add_special_tokens)
    first, *batch = sources(sent.input, special, truncation)
    return Prompt(
        model=sent.model,
        source=first,
        batch=batch,
        cache_salt=salt(sent.cache_salt, sent.extra_key),
        reads_cache=_reads_cache(sent),
        keeps_end=keeps_end(sent.truncate_prompt_tokens, sent.truncation_side, left=False),
        max_tokens=truncation and truncation.tokens,
        lora_names=lora_names(sent.lora_path),
    )


def _parse_chat(sent: Body, sent_messages: list[SentMessage], truncation: Truncation | None, body: bytes) -> Prompt:
    messages = [message(m) for m in sent_messages]
    media = find_media(messages)
    return Prompt(
        model=sent.model,
        source=Chat(
            messages=messages,
            add_generation_prompt=flag(sent.add_generation_prompt),
            continue_final_message=flag(sent.continue_final_message),
            add_special_tokens=sent.add_special_tokens is not None and flag(sent.add_special_tokens),
            chat_template=sent.chat_template,
            template_kwargs=_VARIABLES.decode(sent.chat_template_kwargs) if is_given(sent.chat_template_kwargs) else {},
            multimodal=media is not None,
            truncation=truncation,
            sent=Sent(Api.EMBEDDINGS, body),
        ),
        cache_salt=salt(sent.cache_salt, sent.extra_key),
        guessed_tokens=media or 0,
        reads_cache=_reads_cache(sent),
        keeps_end=keeps_end(sent.truncate_prompt_tokens, sent.truncation_side, left=False),
        max_tokens=truncation and truncation.tokens,
        lora_names=lora_names(sent.lora_path),
    )


def _reads_cache(sent: Body) -> bool:
    return bytes(memoryview(sent.task)[:20]) not in _OF_ALL_TOKENS
