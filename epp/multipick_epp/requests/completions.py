"""OpenAI completions: `/v1/completions`."""

from typing import Any

import msgspec

from multipick_epp.requests.body import Unreadable, lenient_bool, lenient_int
from multipick_epp.requests.chat_fields import check_truncation
from multipick_epp.requests.prompt import Api, Prompt
from multipick_epp.requests.token_ids import Prompts, sources


class Body(msgspec.Struct):
    """The fields that decide the prompt, its cache use or its length."""

    prompt: Prompts = None
    prompt_embeds: Any = None
    suffix: str | None = None
    model: str | None = None
    add_special_tokens: bool = True
    truncate_prompt_tokens: int | None = None
    prompt_logprobs: Any = None
    logprobs: Any = None
    echo: Any = False
    cache_salt: str | None = None
    max_tokens: Any = 16
    stream: Any = False


_DECODER = msgspec.json.Decoder(Body)


def parse(body: bytes) -> Prompt:
    """Raises Unreadable, msgspec.DecodeError, UnicodeDecodeError or RecursionError."""
    sent = _DECODER.decode(body)
    check_truncation(sent.truncate_prompt_tokens)
    if sent.prompt_embeds is not None:
        raise Unreadable("prompt embeddings")
    if sent.suffix is not None:
        raise Unreadable("suffix")
    first, *batch = sources(sent.prompt, sent.add_special_tokens)
    return Prompt(
        api=Api.COMPLETIONS,
        model=sent.model,
        source=first,
        batch=batch,
        cache_salt=sent.cache_salt,
        reads_cache=sent.prompt_logprobs is None and not (lenient_bool(sent.echo) and sent.logprobs is not None),
        max_tokens=lenient_int(sent.max_tokens),
        stream=lenient_bool(sent.stream),
    )
