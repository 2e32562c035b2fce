"""Requests whose gateway tells no path."""

import json
from typing import Any

import pytest
from multipick_epp.requests.errors import api_of
from multipick_epp.requests.prompt import Api
from multipick_epp.requests.unnamed import path_by_body, path_by_headers

CHAT = [{"role": "user", "content": "hi"}]
BODIES: list[tuple[dict[str, Any], Api]] = [
    ({"model": "m", "messages": CHAT}, Api.CHAT),
    ({"model": "m", "prompt": "hi"}, Api.COMPLETIONS),
    ({"model": "m", "prompt": [1, 2]}, Api.COMPLETIONS),
    ({"model": "m", "input": "hi"}, Api.RESPONSES),
    ({"model": "m", "input": CHAT}, Api.RESPONSES),
    ({"model": "m", "input": []}, Api.RESPONSES),
    ({"model": "m", "input": "hi", "encoding_format": "base64"}, Api.EMBEDDINGS),
    ({"model": "m", "input": "hi", "dimensions": 64}, Api.EMBEDDINGS),
    ({"model": "m", "input": ["hi", "ho"]}, Api.EMBEDDINGS),
    ({"model": "m", "input": [1, 2, 3]}, Api.EMBEDDINGS),
    ({"model": "m", "token_ids": [1, 2], "sampling_params": {}}, Api.GENERATE),
    ({"input_ids": [1, 2], "sampling_params": {}}, Api.SGLANG_GENERATE),
    ({"text": "hi", "sampling_params": {}}, Api.SGLANG_GENERATE),
    ({"model": "m"}, Api.OTHER),
    ({"text": "hi"}, Api.OTHER),
]


@pytest.mark.parametrize(("body", "api"), BODIES)
def test_the_fields_of_a_body_tell_its_api(body: dict[str, Any], api: Api) -> None:
    assert api_of(path_by_body(json.dumps(body).encode())) is api
    assert api_of(path_by_body(json.dumps(body, indent=2).encode())) is api


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"a":' * 5000, b'"messages"'])
def test_what_is_no_request_tells_nothing(body: bytes) -> None:
    assert path_by_body(body) == ""


def test_anthropics_clients_say_so_in_a_header() -> None:
    assert api_of(path_by_headers({"anthropic-version": "2023-06-01"})) is Api.MESSAGES
    assert path_by_headers({"content-type": "application/json"}) == ""
