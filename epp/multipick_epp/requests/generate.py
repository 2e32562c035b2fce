"""The engines' own generate calls: vLLM's `/inference/v1/generate` (token ids) and SGLang's `/generate`."""

import msgspec

from multipick_epp.requests.body import Scalar, Unreadable, check_values, flag, is_given, salt
from multipick_epp.requests.prompt import Prompt, TokenIds
from multipick_epp.requests.token_ids import sources, token_ids


class Placeholder(msgspec.Struct):
    """Where a media item's tokens are in the prompt."""

    offset: int


class Features(msgspec.Struct):
    """The media of a prompt, by modality."""

    mm_placeholders: dict[str, list[Placeholder]] = {}


class VllmSampling(msgspec.Struct):
    """Sampling parameters that matter here."""

    prompt_logprobs: Scalar = None
    skip_reading_prefix_cache: Scalar = None

    @property
    def reads_cache(self) -> bool:
        """Whether the engine looks for the prompt in its cache."""
        skips = self.skip_reading_prefix_cache
        return self.prompt_logprobs is None if skips is None else not flag(skips)


class VllmBody(msgspec.Struct):
    """The fields that decide the prompt or its cache use."""

    token_ids: msgspec.Raw
    model: str | None = None
    features: msgspec.Raw = msgspec.Raw()
    content_parts: msgspec.Raw = msgspec.Raw()
    sampling_params: VllmSampling = msgspec.field(default_factory=VllmSampling)
    cache_salt: str | None = None


class SglangBody(msgspec.Struct):
    """The fields that decide the prompt or its cache use. `lora_path` names an adapter."""

    text: msgspec.Raw = msgspec.Raw()
    input_ids: msgspec.Raw = msgspec.Raw()
    input_embeds: msgspec.Raw = msgspec.Raw()
    image_data: msgspec.Raw = msgspec.Raw()
    video_data: msgspec.Raw = msgspec.Raw()
    audio_data: msgspec.Raw = msgspec.Raw()
    lora_path: msgspec.Raw = msgspec.Raw()
    cache_salt: msgspec.Raw = msgspec.Raw()
    extra_key: msgspec.Raw = msgspec.Raw()


_VLLM = msgspec.json.Decoder(VllmBody)
_SGLANG = msgspec.json.Decoder(SglangBody)
_FEATURES = msgspec.json.Decoder(Features)
_NAME = msgspec.json.Decoder(str | None)


def parse_vllm(body: bytes) -> Prompt:
    """Raises Unreadable, msgspec.DecodeError, UnicodeDecodeError or RecursionError."""
    sent = _VLLM.decode(body)
    if is_given(sent.content_parts):
        raise Unreadable("media without positions")
    ids = token_ids(sent.token_ids)
    known = max(0, min(_media_offsets(sent.features), default=len(ids)))
    return Prompt(
        model=sent.model,
        source=TokenIds(ids[:known]),
        cache_salt=sent.cache_salt,
        guessed_tokens=len(ids[known:]),
        reads_cache=sent.sampling_params.reads_cache,
    )


def parse_sglang(body: bytes) -> Prompt:
    """Raises Unreadable, msgspec.DecodeError, UnicodeDecodeError or RecursionError."""
    sent = _SGLANG.decode(body)
    if any(map(is_given, (sent.input_embeds, sent.image_data, sent.video_data, sent.audio_data))):
        raise Unreadable("media without positions")
    first, *batch = sources(sent.input_ids if is_given(sent.input_ids) else sent.text, add_special_tokens=True)
    return Prompt(
        model=_name(sent.lora_path),
        source=first,
        batch=batch,
        cache_salt=salt(_name(sent.cache_salt), _name(sent.extra_key)),
    )


def _name(field: msgspec.Raw) -> str | None:
    """One text for all prompts of the request; a list has one for each. Raises Unreadable."""
    if bytes(memoryview(field)[:1]) == b"[":
        raise Unreadable("a name for each prompt")
    return _NAME.decode(field) if is_given(field) else None


def _media_offsets(features: msgspec.Raw) -> list[int]:
    if not is_given(features):
        return []
    check_values(bytes(features))
    placed = _FEATURES.decode(features).mm_placeholders
    return [item.offset for items in placed.values() for item in items]
