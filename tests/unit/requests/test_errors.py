"""Our own errors look like those of the API that the client called."""

import json

import pytest
from multipick_epp.requests.errors import api_of, error_body, retry_after
from multipick_epp.requests.prompt import Api


@pytest.mark.parametrize(
    ("path", "api"),
    [
        ("/v1/chat/completions", Api.CHAT),
        ("/v1/completions", Api.COMPLETIONS),
        ("/v1/responses", Api.RESPONSES),
        ("/v1/embeddings", Api.EMBEDDINGS),
        ("/v1/messages", Api.MESSAGES),
        ("/inference/v1/generate", Api.GENERATE),
        ("/generate", Api.SGLANG_GENERATE),
        ("/v1/chat/completions?a=/v1/messages", Api.CHAT),
        ("/v1/completions/", Api.COMPLETIONS),
        ("/tenants/a/openai/v1/chat/completions", Api.CHAT),
        ("/anthropic/v1/messages?beta=true", Api.MESSAGES),
        ("/x/inference/v1/generate", Api.GENERATE),
        ("/somebody/generate", Api.OTHER),
        ("/v1/messages/count_tokens", Api.OTHER),
        ("/v1/chat/completions/render", Api.OTHER),
        ("/xv1/completions", Api.OTHER),
        ("/v2/completions", Api.OTHER),
        ("", Api.OTHER),
        ("?", Api.OTHER),
    ],
)
def test_the_path_tells_the_api(path: str, api: Api) -> None:
    assert api_of(path) is api


@pytest.mark.parametrize(
    ("status", "openai", "anthropic"),
    [
        (400, "invalid_request_error", "invalid_request_error"),
        (404, "not_found_error", "not_found_error"),
        (413, "invalid_request_error", "request_too_large"),
        (429, "rate_limit_error", "rate_limit_error"),
        (500, "server_error", "api_error"),
        (503, "service_unavailable_error", "overloaded_error"),
        (504, "server_error", "api_error"),
    ],
)
def test_each_status_has_its_type(status: int, openai: str, anthropic: str) -> None:
    for api in Api:
        body = json.loads(error_body(api, status, 'no "pod"'))
        if api is Api.MESSAGES:
            assert body == {"type": "error", "error": {"type": anthropic, "message": 'no "pod"'}}
        else:
            assert body == {"error": {"message": 'no "pod"', "type": openai, "param": None, "code": status}}


@pytest.mark.parametrize(("seconds", "header"), [(0, "1"), (0.2, "1"), (1, "1"), (1.01, "2"), (30, "30")])
def test_retry_after_is_in_whole_seconds(seconds: float, header: str) -> None:
    assert retry_after(seconds) == {"retry-after": header}
