"""Which LoRA adapter a request asks for."""

from collections.abc import Collection

from msgspec.structs import replace

from multipick_epp.requests.prompt import Prompt, Unread


def adapter_of(model: str | None, models: Collection[str]) -> str | None:
    """The adapter that the model's name is of; None for the base model, whose names `models` are.

    Engines refuse names that they don't know, so any other is an adapter's: by itself, or, as in SGLang's OpenAI API,
    behind the base model's name and a colon.
    """
    if model is None or model in models:
        return None
    return _behind_base(model, models) or model


def by_lora_path(prompt: Prompt, models: Collection[str]) -> Prompt | Unread:
    """The request as SGLang takes it, where it has a `lora_path`: that names the adapter, whatever the model is called.

    Only `base:adapter` comes before it.
    """
    if not prompt.lora_names or (prompt.model and _behind_base(prompt.model, models)):
        return prompt
    if len(prompt.lora_names) > 1:
        return Unread("an adapter for each prompt")
    (name,) = prompt.lora_names
    return replace(prompt, model=name)


def _behind_base(model: str, models: Collection[str]) -> str | None:
    names = (model.removeprefix(f"{base}:") for base in models)
    return next((name for name in names if name and name != model), None)
