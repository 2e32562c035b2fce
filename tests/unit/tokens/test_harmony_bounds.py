"""No word is given to Harmony's own encoder that would hold the process; what tools say in any language is."""

import json
from typing import Any

import pytest
from multipick_epp.tokens.harmony_bounds import NAME_CHARS, TOOLS_CHARS, check_name, check_tools
from multipick_epp.tokens.outcome import NoText

TEXTS = (
    "Reads a file.\n\n    - of text\n    - or not\n" + "-" * 80 + "\n" * 20 + "| a | b |\n",
    "https://example.com/a/b?c=d_e&f=" * 20,
    "读取一个文件，并返回它的内容；如果文件不存在，则返回错误。" * 40,
    "ファイルを読み込みます。存在しない場合は、エラーを返します。" * 40,
    "อ่านไฟล์และส่งคืนเนื้อหา " * 40,
    json.dumps({"a": [{"b": [1, 2, {}]}] * 50}),
)
WORDS = (
    "a" * 600,
    "\n" * 600,
    " " * 600,
    "-" * 600,
    "\u0001" * 600,
    "々" * 600,
    "e\u0301" * 600,
    "_-" * 600,
    "\n/" * 600,
)


def tool(text: str, place: str) -> dict[str, Any]:
    described = {"type": "string", place: [text] if place == "enum" else text}
    return {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {"a": described}}}


@pytest.mark.parametrize("text", TEXTS)
def test_what_tools_say_is_within_bounds(text: str) -> None:
    check_tools([tool(text, "description")])


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("place", ["description", "title", "default", "enum"])
def test_a_long_word_is_refused_wherever_it_stands(word: str, place: str) -> None:
    with pytest.raises(NoText, match="too long"):
        check_tools([tool("text " * 100 + word, place)])


@pytest.mark.parametrize(
    "parameters",
    [{"properties": {"a" * 600: {}}}, {"default": [""] * 300}, {"default": [{}] * 300}],
)
def test_names_and_what_is_written_as_json_are_words_too(parameters: dict[str, Any]) -> None:
    with pytest.raises(NoText, match="too long"):
        check_tools([{"name": "f", "parameters": parameters}])


def test_tools_and_names_are_bounded_in_all() -> None:
    check_tools([tool("word " * 1_000, "description")] * 40)
    with pytest.raises(NoText, match="too long"):
        check_tools([tool("word " * (TOOLS_CHARS // 5), "description")])
    check_name(None)
    check_name("f" * NAME_CHARS)
    with pytest.raises(NoText, match="too long"):
        check_name("f" * (NAME_CHARS + 1))
