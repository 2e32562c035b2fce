"""OpenAI completions: `/v1/completions`."""

import msgspec

from multipick_epp.requests.body import Scalar, Unreadable, flag, is_given, lenient_bool, salt
from multipick_epp.requests.chat_fields import answer_tokens, keeps_end, truncation_of
from multipick_epp.requests.lora_path import lora_names
from multipick_epp.requests.prompt import Prompt
from multipick_epp.requests.token_ids import sources


class Body(msgspec.Struct):
    """The fields that decide the prompt or its cache use."""

    prompt: msgspec.Raw = msgspec.Raw()
    prompt_embeds: msgspec.Raw = msgspec.Raw()
    suffix: str | None = None
    model: str | None = None
    add_special_tokens: Scalar = True
    truncate_prompt_tokens: Scalar = None
    truncation_side: Scalar = None
    max_tokens: Scalar = 16  # the engine's default
    prompt_logprobs: Scalar = None
    logprobs: Scalar = None
    echo: Scalar = False
    cache_salt: str | None = None
    extra_key: Scalar = None
    lora_path: msgspec.Raw = msgspec.Raw()


_DECODER = msgspec.json.Decoder(Body)


def parse(body: bytes) -> Prompt:
    """Raises Unreadable, msgspec.DecodeError, UnicodeDecodeError or RecursionError."""
    sent = _DECODER.decode(body)
    truncation = truncation_of(sent.truncate_prompt_tokens, sent.truncation_side)
    if is_given(sent.prompt_embeds):
        raise Unreadable("prompt embeddings")
    if sent.suffix is not None:
        raise Unreadable("suffix")
    first, *batch = sources(sent.prompt, flag(sent.add_special_tokens), truncation)
    return Prompt(
        model=sent.model,
        source=first,
        batch=batch,
        cache_salt=salt(sent.cache_salt, sent.extra_key),
        reads_cache=sent.prompt_logprobs is None and not (lenient_bool(sent.echo) and sent.logprobs is not None),
        keeps_end=keeps_end(sent.truncate_prompt_tokens, sent.truncation_side),
        answer_tokens=answer_tokens(sent.max_tokens),
        max_tokens=truncation and truncation.tokens,
        lora_names=lora_names(sent.lora_path),
    )
