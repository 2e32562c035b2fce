"""A model's folder is read in all the forms in which models come."""

import json
from pathlib import Path
from typing import Any

import pytest
from multipick_epp.requests.prompt import Chat, Text
from multipick_epp.tokens import EngineSettings, Tokenizer, Untokenised
from multipick_epp.tokens.files import read_model

from .backends import byte_level

U: Any = {"role": "user", "content": "hi"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    backend = byte_level()
    backend.enable_truncation(4)
    backend.enable_padding(length=8)
    backend.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def write(folder: Path, **files: Any) -> None:
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))


def template(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


def rendered(folder: Path, chat: Chat, **settings: Any) -> str | Untokenised:
    tokenizer = Tokenizer.load(folder, settings=EngineSettings(**settings))
    ids = tokenizer.encode_now(chat)
    tokenizer.close()
    if isinstance(ids, Untokenised):
        return ids
    text: str = read_model(folder).backend.decode(list(ids), skip_special_tokens=False)
    return text.replace(" ", "")


def test_only_the_tokenizer_is_needed(folder: Path) -> None:
    files = read_model(folder)
    assert files.templates == {}
    assert files.special_tokens == {}


def test_a_tokenizer_file_neither_cuts_nor_fills_prompts(folder: Path) -> None:
    assert len(read_model(folder).backend.encode("the quick brown fox jumps over the lazy dog").ids) > 8
    assert len(read_model(folder).backend.encode("dog").ids) < 4


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("tokenizer", "{}", ValueError),
        ("tokenizer", "not json", ValueError),
        ("tokenizer_config", "[]", ValueError),
        ("tokenizer_config", "{", ValueError),
        ("config", "7", ValueError),
    ],
)
def test_a_broken_file_is_named(folder: Path, name: str, content: str, error: type[Exception]) -> None:
    (folder / f"{name}.json").write_text(content)
    with pytest.raises(error):
        Tokenizer.load(folder)


def test_a_missing_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json is missing"):
        Tokenizer.load(tmp_path)


def test_a_broken_template_is_named(folder: Path) -> None:
    write(folder, tokenizer_config={"chat_template": "{% for"})
    with pytest.raises(ValueError, match="line 1 of the chat template"):
        Tokenizer.load(folder)


def test_a_template_file_wins_over_the_config(folder: Path) -> None:
    write(folder, tokenizer_config={"chat_template": "config"})
    assert rendered(folder, Chat([U])) == "config"
    template(folder, "chat_template.jinja", "file")
    assert rendered(folder, Chat([U])) == "file"


def test_named_templates_are_chosen_as_the_engine_does(folder: Path) -> None:
    named = [{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "tools"}]
    write(folder, tokenizer_config={"chat_template": named})
    assert rendered(folder, Chat([U])) == "plain"
    assert rendered(folder, Chat([U], tools=[{}])) == "tools"
    assert rendered(folder, Chat([U], tools=[{}]), chat_template="default") == "plain"
    assert rendered(folder, Chat([U]), chat_template="tool_use") == "tools"


def test_named_templates_come_in_files_too(folder: Path) -> None:
    template(folder, "chat_template.jinja", "plain")
    template(folder, "additional_chat_templates/tool_use.jinja", "tools")
    assert rendered(folder, Chat([U])) == "plain"
    assert rendered(folder, Chat([U], tools=[{}])) == "tools"


def test_the_template_of_a_media_processor_is_preferred_but_for_tools(folder: Path) -> None:
    write(folder, tokenizer_config={"chat_template": "tokenizer"}, chat_template={"chat_template": "processor"})
    assert rendered(folder, Chat([U])) == "processor"
    assert rendered(folder, Chat([U], tools=[{}])) == "tokenizer"


def test_special_tokens_are_variables_of_the_template(folder: Path) -> None:
    tokens = {"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": False}, "pad_token": None}
    write(folder, tokenizer_config={**tokens, "image_token": "[INST]", "chat_template": "unused"})
    source = "{{ bos_token }}{{ eos_token }}{{ pad_token }}{{ image_token }}"
    assert rendered(folder, Chat([U]), chat_template=source) == "<s></s>[INST]"


def test_special_tokens_may_stand_in_a_file_of_their_own(folder: Path) -> None:
    write(folder, special_tokens_map={"bos_token": {"content": "<s>"}, "eos_token": "</s>"})
    assert read_model(folder).special_tokens == {"bos_token": "<s>", "eos_token": "</s>"}


def test_special_tokens_that_only_the_config_knows_are_split_off_too(folder: Path) -> None:
    write(folder, tokenizer_config={"eos_token": "<|end|>", "additional_special_tokens": ["<|more|>"]})
    tokenizer = Tokenizer.load(folder)
    ids = tokenizer.encode_now(Text("dog<|end|>dog<|more|>", False))
    dog = tokenizer.encode_now(Text("dog", False))
    assert not isinstance(ids, Untokenised)
    assert not isinstance(dog, Untokenised)
    size = byte_level().get_vocab_size()
    assert list(ids) == [*dog, size, *dog, size + 1]
    tokenizer.close()


@pytest.mark.parametrize(
    "model",
    [{"architectures": ["DeepseekV4ForCausalLM"]}, {"architectures": ["Other", "DeepseekV32ForCausalLM"]}],
)
def test_chats_that_only_the_engine_can_write_are_left_to_it(folder: Path, model: dict[str, Any]) -> None:
    write(folder, config=model, tokenizer_config={"chat_template": "template"})
    assert rendered(folder, Chat([U])) == Untokenised("only the engine writes these chats")


@pytest.mark.parametrize("model", [{"model_type": "gpt_oss"}, {"architectures": ["GptOssForCausalLM"]}])
def test_a_gpt_oss_of_another_tokenizer_is_told(folder: Path, model: dict[str, Any]) -> None:
    write(folder, config=model)
    with pytest.raises(ValueError, match="not that of gpt-oss"):
        Tokenizer.load(folder)


@pytest.mark.parametrize(
    ("model_type", "tokenizer_class", "digits_apart"),
    [
        ("qwen2", "PreTrainedTokenizerFast", True),
        ("qwen2", "LlamaTokenizerFast", True),
        ("qwen2", "Qwen2TokenizerFast", True),
        ("qwen3_5", "Qwen2Tokenizer", True),
        ("qwen2", None, True),
        ("llama", "PreTrainedTokenizerFast", False),
    ],
)
def test_a_qwen2_model_has_the_split_of_its_class_whatever_its_files_say(
    folder: Path, model_type: str, tokenizer_class: str | None, digits_apart: bool
) -> None:
    write(folder, config={"model_type": model_type}, tokenizer_config={"tokenizer_class": tokenizer_class})
    assert (len(read_model(folder).backend.encode("2024").ids) == 4) is digits_apart


def test_the_engines_default_variables_hold_unless_the_request_says_otherwise(folder: Path) -> None:
    source = "{{ a }}|{{ b }}|{{ c }}"
    given = Chat([U], template_kwargs={"b": "B2", "c": "auto"})
    assert (
        rendered(folder, given, chat_template=source, default_chat_template_kwargs={"a": 1, "b": 2, "c": 3}) == "1|B2|3"
    )


@pytest.mark.parametrize("name", ["range", "namespace", "dict", "joiner", "cycler", "lipsum"])
def test_no_variable_stands_for_what_every_template_has(folder: Path, name: str) -> None:
    source = f"{{{{ {name} is string }}}}|{{{{ b }}}}"
    given = Chat([U], template_kwargs={name: "x", "b": 1})
    assert rendered(folder, given, chat_template=source) == "False|1"
    assert rendered(folder, Chat([U]), chat_template=source, default_chat_template_kwargs={name: "x"}) == "False|"


def test_engines_can_be_told_to_hide_unused_tools(folder: Path) -> None:
    unused = Chat([U], tools=[{"a": 1}], tool_choice_none=True)
    source = "{{ tools is none }}"
    assert rendered(folder, unused, chat_template=source) == "False"
    assert rendered(folder, unused, chat_template=source, exclude_tools_when_tool_choice_none=True) == "True"


def test_the_content_format_can_be_set(folder: Path) -> None:
    parts = Chat([{"role": "user", "content": [{"type": "text", "text": "a"}]}])
    source = "{{ messages[0].content is string }}"
    assert rendered(folder, parts, chat_template=source) == "True"
    assert rendered(folder, parts, chat_template=source, chat_template_content_format="openai") == "False"


LATE_SYSTEM = Chat(
    [{"role": "system", "content": "a"}, U, {"role": "system", "content": "b"}],
    inline_system=True,
)


def test_late_system_messages_move_to_the_front_where_the_template_insists(folder: Path) -> None:
    tolerant = "{% for m in messages %}{{ m.role[0] }}{{ m.content }}{% endfor %}"
    strict = "{% if messages[2] and messages[2].role == 'system' %}{{ raise_exception('late') }}{% endif %}" + tolerant
    assert rendered(folder, LATE_SYSTEM, chat_template=tolerant) == "sauhisb"
    assert rendered(folder, LATE_SYSTEM, chat_template=strict) == "sabuhi"


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ reasoning_effort }}|{{ enable_thinking }}", "none|False"),
        ("{% if reasoning_effort == 'none' %}{{ raise_exception('!') }}{% endif %}{{ reasoning_effort }}", "low"),
        ("{{ 'low' if reasoning_effort == 'low' else 'max' }}", "low"),  # "none" means "max" here
    ],
)
def test_no_thinking_is_the_least_effort_that_the_template_knows(folder: Path, source: str, text: str) -> None:
    assert rendered(folder, Chat([U], thinking_off=True), chat_template=source) == text
