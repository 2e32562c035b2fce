"""Which LoRA adapter a request asks for, by its model's name."""

from collections.abc import Collection


def adapter_of(model: str | None, models: Collection[str]) -> str | None:
    """The adapter; None for the base model, whose names `models` are.

    Engines refuse names that they don't know, so any other is an adapter's: by itself, or, as in SGLang's OpenAI API,
    behind the base model's name and a colon.
    """
    if model is None or model in models:
        return None
    behind = (model.removeprefix(f"{base}:") for base in models)
    return next((name for name in behind if name and name != model), model)
