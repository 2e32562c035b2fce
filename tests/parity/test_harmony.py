"""What gpt-oss's own library would take long for is not given to it, whatever names it."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from multipick_epp.requests import parse
from multipick_epp.requests.prompt import Prompt
from multipick_epp.tokens import Tokenizer, Untokenised

from .models import FAMILIES, Unreachable, make

WORD = "a" * 3_000
U = {"role": "user", "content": "hi"}


def calling(name: str) -> dict[str, Any]:
    call = {"id": "c", "type": "function", "function": {"name": name, "arguments": "{}"}}
    return {"role": "assistant", "tool_calls": [call]}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tokenizer]:
    family = next(family for family in FAMILIES if family.name == "gpt-oss")
    try:
        folder = make(family, tmp_path_factory.mktemp("model"))
    except Unreachable as away:
        pytest.skip(str(away))
    tokenizer = Tokenizer.load(folder)
    yield tokenizer
    tokenizer.close()


def ids(tokenizer: Tokenizer, path: str, **body: Any) -> Any:
    prompt = parse(path, {}, json.dumps(body).encode())
    assert isinstance(prompt, Prompt)
    return tokenizer.encode_now(prompt.source)


def function(**fields: Any) -> list[dict[str, Any]]:
    return [{"type": "function", "function": {"name": "f"} | fields}]


def test_a_long_word_outside_of_texts_ends_as_too_long(tokenizer: Tokenizer) -> None:
    chat = "/v1/chat/completions"
    long = [
        {"messages": [U, calling(WORD)]},
        {"messages": [U, calling(WORD), {"role": "tool", "tool_call_id": "c", "content": "x"}]},
        {"messages": [U], "tools": function(name=WORD)},
        {"messages": [U], "tools": function(description=WORD)},
        {"messages": [U], "tools": function(parameters={"type": "object", "description": "\n" * 3_000})},
    ]
    assert {ids(tokenizer, chat, **body) for body in long} == {Untokenised("too long")}
    assert len(ids(tokenizer, chat, messages=[U, calling("f"), {"role": "user", "content": WORD}])) > 100


def test_tools_that_are_nested_too_deeply_have_no_ids(tokenizer: Tokenizer) -> None:
    for depth in (600, 980, 985, 990):  # of the deepest that are read, some can't be written any more
        parameters = '{"a":' * depth + "1" + "}" * depth
        tools = '[{"type":"function","function":{"name":"f","parameters":' + parameters + "}}]"
        body = '{"messages":[{"role":"user","content":"x"}],"tools":' + tools + "}"
        prompt = parse("/v1/chat/completions", {}, body.encode())
        found = tokenizer.encode_now(prompt.source) if isinstance(prompt, Prompt) else Untokenised(prompt.reason)
        assert found in (Untokenised("nested too deeply"), Untokenised("too long"))
