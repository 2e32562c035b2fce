"""A request names its adapter by the model's name."""

import pytest
from multipick_epp.decision.adapters import adapter_of

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
