"""SGLang's `lora_path` is read as it has it, and makes no request unreadable that vLLM would take."""

import json
from typing import Any

import pytest
from multipick_epp.requests.parse import parse
from multipick_epp.requests.prompt import Prompt, Unread

BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "hello"}]},
    "/v1/completions": {"prompt": ["hello", "world"]},
    "/v1/embeddings": {"input": "hello"},
}
every_api = pytest.mark.parametrize("path", BODIES)


def names(path: str, lora_path: str) -> frozenset[str | None]:
    body = json.dumps(BODIES[path])[:-1] + f', "lora_path": {lora_path}}}'
    found = parse(path, {}, body.encode())
    assert isinstance(found, Prompt)
    return found.lora_names


@every_api
@pytest.mark.parametrize(
    ("lora_path", "expected"),
    [
        ('"sql"', {"sql"}),
        ('"a/b:c \\u00e9"', {"a/b:c é"}),
        ('["sql", "sql"]', {"sql"}),
        ('["sql", null]', {"sql", None}),
        ("[null]", {None}),
        ("null", set()),
        ('""', set()),
        ("[]", set()),
    ],
)
def test_it_names_an_adapter_or_several(path: str, lora_path: str, expected: set[str | None]) -> None:
    assert names(path, lora_path) == expected


@every_api
@pytest.mark.parametrize("odd", ["7", "true", "{}", '{"name": "sql"}', "[7]", '[["sql"]]', "[" * 500 + "]" * 500])
def test_what_names_none_leaves_the_rest_as_it_is(path: str, odd: str) -> None:
    assert names(path, odd) == frozenset()


@every_api
def test_a_list_that_nobody_reads_costs_its_own_request(path: str) -> None:
    body = json.dumps(BODIES[path] | {"lora_path": ["sql"] * 30_000}).encode()
    assert isinstance(parse(path, {}, body), Unread)
