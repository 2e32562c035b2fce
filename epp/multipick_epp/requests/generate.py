"""The engines' own generate calls: vLLM's `/inference/v1/generate` (token ids) and SGLang's `/generate`."""

from typing import Any

import msgspec

from multipick_epp.requests.body import Unreadable, lenient_bool, lenient_int
from multipick_epp.requests.prompt import Api, Prompt
from multipick_epp.requests.token_ids import Prompts, sources, token_ids


class Placeholder(msgspec.Struct):
    """Where a media item's tokens are in the prompt."""

    offset: int


class Features(msgspec.Struct):
    """The media of a prompt, by modality."""

    mm_placeholders: dict[str, list[Placeholder]] = {}


class VllmSampling(msgspec.Struct):
    """Sampling parameters that matter here."""

    max_tokens: Any = None
    prompt_logprobs: Any = None


class VllmBody(msgspec.Struct):
    """The fields that decide the prompt, its cache use or its length."""

    token_ids: list[int]
    model: str | None = None
    features: Features | None = None
    content_parts: list[Any] | None = None
    sampling_params: VllmSampling = msgspec.field(default_factory=VllmSampling)
    cache_salt: str | None = None
    stream: Any = False


class SglangSampling(msgspec.Struct):
    """Sampling parameters that matter here."""

    max_new_tokens: Any = None


class SglangBody(msgspec.Struct):
    """The fields that decide the prompt, its cache use or its length. `lora_path` names an adapter."""

    text: str | list[str] | None = None
    input_ids: list[int | list[int]] | None = None
    input_embeds: Any = None
    image_data: Any = None
    video_data: Any = None
    audio_data: Any = None
    sampling_params: SglangSampling | list[SglangSampling] | None = None
    lora_path: str | list[str | None] | None = None
    stream: Any = False


_VLLM = msgspec.json.Decoder(VllmBody)
_SGLANG = msgspec.json.Decoder(SglangBody)


def parse_vllm(body: bytes) -> Prompt:
    """Raises Unreadable, msgspec.DecodeError, UnicodeDecodeError or RecursionError."""
    sent = _VLLM.decode(body)
    if sent.content_parts:
        raise Unreadable("media without positions")
    placeholders = sent.features.mm_placeholders.values() if sent.features else ()
    offsets = [item.offset for items in placeholders for item in items]
    known = max(0, min(offsets, default=len(sent.token_ids)))
    return Prompt(
        api=Api.GENERATE,
        model=sent.model,
        source=token_ids(sent.token_ids[:known]),
        cache_salt=sent.cache_salt,
        multimodal=bool(offsets),
        guessed_tokens=len(sent.token_ids[known:]),
        reads_cache=sent.sampling_params.prompt_logprobs is None,
        max_tokens=lenient_int(sent.sampling_params.max_tokens),
        stream=lenient_bool(sent.stream),
    )


def parse_sglang(body: bytes) -> Prompt:
    """Raises Unreadable, msgspec.DecodeError, UnicodeDecodeError or RecursionError."""
    sent = _SGLANG.decode(body)
    if any((sent.input_embeds, sent.image_data, sent.video_data, sent.audio_data)):
        raise Unreadable("media without positions")
    if isinstance(sent.lora_path, list):
        raise Unreadable("an adapter for each prompt")
    prompts: Prompts = [*sent.text] if isinstance(sent.text, list) else sent.text
    if sent.input_ids is not None:
        prompts = [*sent.input_ids]
    first, *batch = sources(prompts, add_special_tokens=True)
    sampling = sent.sampling_params
    return Prompt(
        api=Api.SGLANG_GENERATE,
        model=sent.lora_path,
        source=first,
        batch=batch,
        max_tokens=lenient_int(sampling.max_new_tokens) if isinstance(sampling, SglangSampling) else None,
        stream=lenient_bool(sent.stream),
    )
