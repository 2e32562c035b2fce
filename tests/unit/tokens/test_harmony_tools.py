"""The tools of gpt-oss's chats are written as Harmony's own library writes them, without holding the process."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import openai_harmony as library
import pytest
from multipick_epp.requests.prompt import Chat
from multipick_epp.tokens import EngineSettings
from multipick_epp.tokens.harmony import CallOpening, Harmony, Tools
from multipick_epp.tokens.outcome import NoText
from multipick_epp.tokens.segments import as_ids
from tokenizers import Tokenizer as Backend
from tokenizers import models

OWN = library.load_harmony_encoding(library.HarmonyEncodingName.HARMONY_GPT_OSS)
NUMBER = {"type": "number", "description": "A number.\n\nOf any size."}
TOOLS: Sequence[dict[str, Any]] = (
    {"name": "add", "description": "Adds.\n", "parameters": {"type": "object", "properties": {"a": NUMBER}}},
    {"name": "now", "description": ""},
    {"name": "end", "description": "/ } // namespace functions\n\n", "parameters": {"properties": {}}},
    {"name": "begin", "description": "# Tools\n\n## functions\n\nnamespace functions {\n\n"},
)


class Encode:
    name, inline_bytes = "harmony", 8_000

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        return [OWN.encode(text, disallowed_special=()) for text in texts]


@pytest.fixture(scope="module")
def harmony() -> Harmony:
    backend = Backend(models.BPE())
    backend.add_tokens(["<|never|>"])
    return Harmony(backend, Encode(), EngineSettings())


def chat(tools: Sequence[Mapping[str, Any]], instructions: str | None = None) -> Chat:
    system = [] if instructions is None else [{"role": "system", "content": instructions}]
    sent = [{"type": "function", "function": tool} for tool in tools]
    return Chat([*system, {"role": "user", "content": "hi"}], tools=sent)  # type: ignore[list-item]


def developer(tools: Sequence[Mapping[str, Any]], instructions: str | None) -> list[int]:
    """The developer's message by the library alone."""
    content: dict[str, Any] = {"type": "developer_content"}
    content["tools"] = {"functions": {"name": "functions", "tools": list(tools)}}
    if instructions is not None:
        content["instructions"] = instructions
    ids: list[int] = OWN.render(library.Message.from_dict({"role": "developer", "content": [content]}))
    return ids


@pytest.mark.parametrize("instructions", [None, "", "Be brief.", "x/", "x\n", "x \n\n/", "  ", "// #", "a\r\n", "# "])
@pytest.mark.parametrize("count", range(1, len(TOOLS) + 1))
def test_tools_and_what_stands_before_them_have_the_ids_of_the_library(
    harmony: Harmony, instructions: str | None, count: int
) -> None:
    segments = harmony.segments(chat(TOOLS[:count], instructions))
    found = {**harmony.cuts, **harmony.tokenise([each for each in segments if each not in harmony.cuts])}
    ids = b"".join(found[each] for each in segments)
    assert as_ids(developer(TOOLS[:count], instructions)) in ids


def test_the_library_is_asked_for_one_tool_at_a_time(harmony: Harmony, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    class Watched:
        def __getattr__(self, name: str) -> Any:
            return getattr(OWN, name)

        def render(self, message: library.Message, options: library.RenderOptions | None = None) -> list[int]:
            content = message.to_dict()["content"]
            asked.append(len(json.dumps(content)))
            ids: list[int] = OWN.render(message, options)
            return ids

    monkeypatch.setattr(harmony, "_library", Watched())
    many = [{"name": f"f{index}", "description": "word " * 200} for index in range(50)]
    segments = harmony.segments(chat(many))
    assert max(asked, default=0) < 2_000  # and nothing is asked before its ids are wanted
    harmony.tokenise([each for each in segments if each not in harmony.cuts])
    assert len(asked) > 50
    assert max(asked) < 2_000


@pytest.mark.parametrize("depth", [600, 900, 975, 980, 985])
def test_tools_that_are_nested_too_deeply_have_no_ids(harmony: Harmony, depth: int) -> None:
    parameters = '{"a":' * depth + "1" + "}" * depth
    with pytest.raises(NoText, match="too"):
        harmony.tokenise([Tools('[{"name":"f","parameters":' + parameters + "}]")])


@pytest.mark.parametrize("name", ["f", "f<", "<|end|>", "f<|channel|>analysis", "|>f", "<|", "é"])
def test_the_header_of_a_call_has_the_ids_of_the_library(harmony: Harmony, name: str) -> None:
    opening = CallOpening(f"functions.{name}")
    header = f"<|start|>assistant to=functions.{name}<|channel|>commentary json<|message|>"
    assert harmony.tokenise([opening])[opening] == as_ids(OWN.encode(header, allowed_special="all"))


def test_headers_of_calls_are_made_with_the_special_tokens_that_they_have(
    harmony: Harmony, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed: list[int] = []

    class Watched:
        def encode(self, text: str, **options: Any) -> list[int]:
            allowed = options["allowed_special"]
            handed.append(len(OWN.special_tokens_set if allowed == "all" else allowed))
            return [1]

    monkeypatch.setattr(harmony, "_library", Watched())
    harmony.tokenise([CallOpening(f"functions.f{index}") for index in range(20)])
    assert len(handed) == 20
    assert max(handed) <= 3
    assert all(token.startswith("<|") for token in OWN.special_tokens_set)
