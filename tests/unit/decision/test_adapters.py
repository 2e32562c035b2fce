"""A request names its adapter by the model's name, or, where SGLang serves it, by its `lora_path`."""

import pytest
from multipick_epp.decision.adapters import adapter_of, by_lora_path
from multipick_epp.requests.prompt import Prompt, Text, Unread

MODELS = ("meta-llama/Llama-3.1-8B", "llama3:8b")


@pytest.mark.parametrize("model", [None, *MODELS])
def test_the_base_model_is_no_adapter(model: str | None) -> None:
    assert adapter_of(model, MODELS) is None


@pytest.mark.parametrize("model", ["sql", "other/base:sql", "meta-llama/Llama-3.1-8B:", ":", ""])
def test_any_other_name_is_an_adapters(model: str) -> None:
    assert adapter_of(model, MODELS) == model


@pytest.mark.parametrize("base", MODELS)
def test_sglang_has_an_adapters_name_behind_the_base_models(base: str) -> None:
    assert adapter_of(f"{base}:sql", MODELS) == "sql"
    assert adapter_of(f"{base}:sql:v2", MODELS) == "sql:v2"


def named(model: str | None, *names: str | None) -> str | None:
    found = by_lora_path(Prompt(model=model, source=Text("hello"), lora_names=frozenset(names)), MODELS)
    assert isinstance(found, Prompt)
    return adapter_of(found.model, MODELS)


@pytest.mark.parametrize("model", [None, *MODELS, "gpt-4"])
def test_sglang_goes_by_lora_path_whatever_the_model_is_called(model: str | None) -> None:
    assert named(model, "sql") == "sql"
    assert named(model, None) is None


def test_an_adapter_behind_the_base_models_name_comes_before_lora_path() -> None:
    assert named(f"{MODELS[1]}:sql", "python") == "sql"


@pytest.mark.parametrize("model", [None, *MODELS, "sql", f"{MODELS[0]}:sql"])
def test_without_a_lora_path_the_model_decides(model: str | None) -> None:
    assert named(model) == adapter_of(model, MODELS)


def test_prompts_with_different_adapters_are_not_read() -> None:
    several = Prompt(model=None, source=Text("hello"), lora_names=frozenset({"sql", None}))
    assert by_lora_path(several, MODELS) == Unread("an adapter for each prompt")
