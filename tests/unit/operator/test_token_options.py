"""What an engine's arguments say of token ids reaches the picker, whose own parser reads it; or is named."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from multipick_epp import config
from multipick_operator.api.pool import Pool
from multipick_operator.children.configuration import configuration
from multipick_operator.children.context import Context

MakePool = Callable[..., Pool]

OPTIONS = [
    "--chat_template-content-format=openai",
    "--default-chat-template-kwargs",
    '{"a": 1, "deep": {"x": 1}}',
    "--default-chat-template-kwargs.enable_thinking",
    "false",
    "--default_chat_template_kwargs.deep.y=two",
    "--exclude-tools-when",
    "--trust-request-chat-template",
    "--no-trust-request-chat-template",
    "--tokenizer-mode",
    "hf",
    "--anthropic-disabled-thinking-effort",
    "low",
    "--chat-template",
    "{{ messages }}",
    "--max-num-seqs",
    "8",
]


def read_configuration(pool: Pool, context: Context, tmp_path: Path) -> config.Pool:
    file = tmp_path / "epp.yaml"
    file.write_text(yaml.safe_dump(configuration(pool, context)))
    return config.load(file).pool


def test_the_picker_has_the_engines_options_that_change_token_ids(
    make_pool: MakePool, context: Context, tmp_path: Path
) -> None:
    read = read_configuration(make_pool(engine={"args": OPTIONS}), context, tmp_path)
    assert read.chat_template == "{{ messages }}"
    assert read.chat_template_content_format == "openai"
    assert read.default_chat_template_kwargs == {"a": 1, "deep": {"x": 1, "y": "two"}, "enable_thinking": False}
    assert read.exclude_tools_when_tool_choice_none
    assert not read.trust_request_chat_template
    assert (read.tokenizer_mode, read.anthropic_disabled_thinking_effort) == ("hf", "low")
    assert read.unread_options == ()


@pytest.mark.parametrize(
    ("engine", "unread"),
    [
        ({"args": ["--chat-template", "/somewhere/t.jinja"]}, ("--chat-template",)),
        ({"args": ["--chat-template", "/somewhere/t.jinja", "--chat-template={{ messages }}"]}, ()),
        ({"args": ["--chat-template={{ messages }}", "--chat-template", "t.jinja"]}, ("--chat-template",)),
        ({"args": ["--tokenizer_mode", "deepseek_v32"]}, ("--tokenizer-mode",)),
        ({"args": ["--tokenizer", "other/model", "--hf-overrides", "{}"]}, ("--tokenizer", "--hf-overrides")),
        ({"args": ["--tokenizer", "org/model", "--tokenizer=org/model"]}, ()),
        ({"args": ["--config=/etc/vllm.yaml"]}, ("--config",)),
        ({"args": ["--default-chat-template-kwargs", "no JSON"]}, ("--default-chat-template-kwargs",)),
        ({"args": ["--default-chat-template-kwargs.a+", "1"]}, ("--default-chat-template-kwargs",)),
        ({"args": ["--chat-template"]}, ("--chat-template",)),
        ({"args": ["--tokenizer-pool-size", "4", "--c", "--", "-tp=2"]}, ()),
        ({"type": "SGLang", "image": "i", "args": ["--chat-template", "llama-2"]}, ("--chat-template",)),
    ],
)
def test_an_option_that_the_picker_can_not_follow_is_named(
    make_pool: MakePool, context: Context, tmp_path: Path, engine: dict[str, Any], unread: tuple[str, ...]
) -> None:
    assert read_configuration(make_pool(engine=engine), context, tmp_path).unread_options == unread


def test_the_pod_templates_arguments_count_too(make_pool: MakePool, context: Context, tmp_path: Path) -> None:
    template = {
        "spec": {"containers": [{"name": "engine", "args": ["serve", "m", "--tokenizer-mode=hf", "--config", "f"]}]}
    }
    read = read_configuration(make_pool(podTemplate=template), context, tmp_path)
    assert (read.tokenizer_mode, read.unread_options) == ("hf", ("--config",))


def test_a_template_beside_the_model_is_read_from_the_pickers_own_volume(
    make_pool: MakePool, context: Context, tmp_path: Path
) -> None:
    args = ["--chat-template", "/mnt/model/m/t.jinja"]
    beside = make_pool(model={"uri": "pvc://claim/m"}, engine={"args": args})
    assert read_configuration(beside, context, tmp_path).chat_template == "/mnt/tokenizer/m/t.jinja"
    other = make_pool(model={"uri": "pvc://claim/m", "tokenizerUri": "pvc://other/m"}, engine={"args": args})
    assert read_configuration(other, context, tmp_path).unread_options == ("--chat-template",)
