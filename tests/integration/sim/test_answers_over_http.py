"""What a client of a simulated pod gets: vLLM's shapes, exact lengths, answers that hit in the next turn."""

import asyncio
import gzip
from typing import Any

import pytest
from multipick_sim.texts import fixed_text
from prometheus_client.parser import text_string_to_metric_families

USER = {"role": "user", "content": "tell me" + fixed_text(1, 60)}


async def test_a_stream_says_what_the_whole_answer_says(shared_pod: Any) -> None:
    whole = await shared_pod.chat([USER], max_tokens=12)
    chunks = await shared_pod.stream(
        "/v1/chat/completions", {"messages": [USER], "max_tokens": 12, "stream_options": {"include_usage": True}}
    )
    opening, *deltas, usage = chunks
    assert opening["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    text = "".join(chunk["choices"][0]["delta"]["content"] for chunk in deltas)
    assert text == whole["choices"][0]["message"]["content"]
    assert [chunk["choices"][0]["finish_reason"] for chunk in deltas][-2:] == [None, "length"]
    assert usage["choices"] == []
    prompt = whole["usage"]["prompt_tokens"]
    assert usage["usage"] == {
        "prompt_tokens": prompt,
        "completion_tokens": 12,
        "total_tokens": prompt + 12,
        "prompt_tokens_details": {"cached_tokens": (prompt - 1) // 16 * 16, "created_cache_tokens": 0},
    }


async def test_an_answer_is_exactly_as_long_as_asked_and_the_same_for_the_same_prompt(shared_pod: Any) -> None:
    short, long = [await shared_pod.complete(fixed_text(2, 40), max_tokens=tokens) for tokens in (5, 30)]
    assert long["choices"][0]["text"].startswith(short["choices"][0]["text"])
    _, tokens = await shared_pod.post("/tokenize", {"prompt": long["choices"][0]["text"]})
    assert tokens["count"] == long["usage"]["completion_tokens"] == 30
    other = await shared_pod.complete(fixed_text(3, 40), max_tokens=30)
    assert other["choices"][0]["text"] != long["choices"][0]["text"]


async def test_a_chat_without_a_limit_ends_by_itself(shared_pod: Any) -> None:
    answer = await shared_pod.chat([USER])
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert 48 <= answer["usage"]["completion_tokens"] <= 256


@pytest.mark.parametrize("asked", [{}, {"max_tokens": 40}])
async def test_the_next_turn_hits_the_blocks_of_the_answer(shared_pod: Any, asked: dict[str, int]) -> None:
    question = {"role": "user", "content": f"{asked}" + fixed_text(7, 60)}
    first = await shared_pod.chat([question], **asked)
    answered = {"role": "assistant", "content": first["choices"][0]["message"]["content"]}
    second = await shared_pod.chat([question, answered, {"role": "user", "content": "go on"}], max_tokens=1)
    # The answer's last token was never computed, and only full blocks are cached.
    stored = (first["usage"]["total_tokens"] - 1) // 16 * 16
    assert second["usage"]["prompt_tokens_details"]["cached_tokens"] == stored


async def test_tokens_are_those_that_tokenize_gives(shared_pod: Any) -> None:
    _, chat = await shared_pod.post("/tokenize", {"messages": [USER]})
    assert (
        (await shared_pod.chat([USER], max_tokens=1))["usage"]["prompt_tokens"] == chat["count"] == len(chat["tokens"])
    )
    _, text = await shared_pod.post("/tokenize", {"prompt": fixed_text(4, 33)})
    assert text["count"] == 33
    by_ids = await shared_pod.complete(text["tokens"], max_tokens=3)
    by_text = await shared_pod.complete(fixed_text(4, 33), max_tokens=3)
    assert by_ids["choices"][0]["text"] == by_text["choices"][0]["text"]
    assert by_text["usage"]["prompt_tokens_details"]["cached_tokens"] == 32


async def test_salts_and_adapters_share_no_blocks(start: Any) -> None:
    pod = await start("--served-model-name", "base", "--lora", "ad1", "ad2")
    prompt, hits = fixed_text(5, 40), []
    for fields in ({}, {"cache_salt": "a"}, {"cache_salt": "b"}, {"model": "ad1"}, {"model": "ad2"}):
        for _ in range(2):
            answer = await pod.complete(prompt, **fields)
            hits.append(answer["usage"]["prompt_tokens_details"]["cached_tokens"])
    assert hits == [0, 32] * 5
    _, models = await pod.get("/v1/models")
    assert [(card["id"], card["parent"]) for card in models["data"]] == [
        ("base", None),
        ("ad1", "base"),
        ("ad2", "base"),
    ]


async def test_adapters_come_and_go_while_a_pod_runs(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_ALLOW_RUNTIME_LORA_UPDATING", "1")
    pod = await start("--served-model-name", "base", "--lora", "ad1")

    async def cards() -> dict[str, str]:
        _, models = await pod.get("/v1/models")
        return {card["id"]: card["root"] for card in models["data"] if card["parent"] == "base"}

    wanted = {"lora_name": "ad2", "lora_path": "org/ad2"}
    assert (await pod.post("/v1/completions", {"model": "ad2", "prompt": "a"}))[0] == 404
    assert await pod.post("/v1/load_lora_adapter", wanted) == (200, "Success: LoRA adapter 'ad2' added successfully.")
    assert await cards() == {"ad1": "ad1", "ad2": "org/ad2"}
    assert (await pod.complete("a", model="ad2"))["model"] == "ad2"
    for body, words in (
        (wanted, "has already been loaded"),
        ({"lora_name": "base", "lora_path": "a"}, "conflicts with a served base model"),
        ({"lora_name": "ad3", "lora_path": ""}, "must be provided"),
        ({"lora_name": "ad3"}, "lora_path"),
    ):
        status, answer = await pod.post("/v1/load_lora_adapter", body)
        assert (status, words in answer["error"]["message"]) == (400, True)
    status, words = await pod.post("/v1/unload_lora_adapter", {"lora_name": "ad1"})
    assert (status, words) == (200, "Success: LoRA adapter 'ad1' removed successfully.")
    assert (await pod.post("/v1/unload_lora_adapter", {"lora_name": "ad1"}))[0] == 404
    assert await cards() == {"ad2": "org/ad2"}


async def test_adapters_are_those_of_the_command_line_unless_more_are_allowed(start: Any) -> None:
    pod = await start()
    assert (await pod.post("/v1/load_lora_adapter", {"lora_name": "a", "lora_path": "b"}))[0] == 404


async def test_prompt_tokens_details_can_be_switched_off(start: Any) -> None:
    pod = await start("--no-enable-prompt-tokens-details")
    answer = await pod.complete("hello")
    assert answer["usage"]["prompt_tokens_details"] is None


async def test_stream_interval_puts_that_many_tokens_into_a_chunk_after_the_first(start: Any) -> None:
    pod = await start("--stream-interval", "4", "--speed", "0.5")
    chunks = await pod.stream("/v1/completions", {"prompt": "hello", "max_tokens": 11})
    assert [len(chunk["choices"][0]["text"].split()) for chunk in chunks] == [1, 4, 4, 2]


@pytest.mark.parametrize(
    ("body", "status", "kind", "parameter"),
    [
        ({"model": "nope", "prompt": "x"}, 404, "NotFoundError", "model"),
        ({"prompt": "x", "n": 2}, 400, "BadRequestError", "n"),
        ({"prompt": ["x", "y"]}, 400, "BadRequestError", "prompt"),
        ({"prompt": "x", "logprobs": 1}, 400, "BadRequestError", "logprobs"),
        ({"prompt": "x", "max_tokens": 0}, 400, "BadRequestError", "max_tokens"),
        ({"prompt": "x", "max_tokens": 1 << 20}, 400, "BadRequestError", "max_tokens"),
        ({"prompt": [1] * 512}, 400, "BadRequestError", "input_tokens"),
        ({"prompt": [-1, 1 << 40]}, 400, "BadRequestError", None),
        ({"prompt": ""}, 400, "BadRequestError", None),
        ({}, 400, "BadRequestError", None),
        ([], 400, "BadRequestError", None),
    ],
)
async def test_what_cannot_be_answered_is_refused_in_openais_shape(
    shared_pod: Any, body: Any, status: int, kind: str, parameter: str | None
) -> None:
    got, answer = await shared_pod.post("/v1/completions", body)
    error = answer["error"]
    assert (got, error["code"], error["type"]) == (status, status, kind)
    assert parameter is None or error["param"] == parameter
    assert error["message"]


async def test_answers_are_cut_at_the_models_length(shared_pod: Any) -> None:
    answer = await shared_pod.complete([7] * 500, max_tokens=100)
    assert answer["usage"]["completion_tokens"] == 12
    assert answer["choices"][0]["finish_reason"] == "length"


async def test_more_requests_than_fit_wait_for_each_other(start: Any, tools: Any) -> None:
    pod = await start(*tools.small)
    answers = await asyncio.gather(*(pod.complete(fixed_text(100 + i, 200), max_tokens=40) for i in range(24)))
    assert {answer["usage"]["total_tokens"] for answer in answers} == {240}


async def test_metrics_are_those_of_vllm_and_add_up(start: Any) -> None:
    pod = await start("--served-model-name", "base", "--num-gpu-blocks", "100", "--max-model-len", "256")
    for _ in range(2):
        await pod.complete(fixed_text(6, 40), max_tokens=5)
    _, text = await pod.get("/metrics")
    samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if "le" not in sample.labels:
                samples[sample.name, sample.labels.get("source") or sample.labels.get("finished_reason")] = sample
    plain = {name.removeprefix("vllm:"): found for (name, label), found in samples.items() if label in (None, "length")}
    values = {name: sample.value for name, sample in plain.items()}
    assert (
        values
        | {
            "num_requests_running": 0,
            "num_requests_waiting": 0,
            "kv_cache_usage_perc": 0,
            "prefix_cache_queries_total": 80,
            "prefix_cache_hits_total": 32,
            "prompt_tokens_total": 80,
            "generation_tokens_total": 10,
            "request_success_total": 2,
            "time_to_first_token_seconds_count": 2,
            "inter_token_latency_seconds_count": 8,
            "e2e_request_latency_seconds_count": 2,
            "request_prefill_kv_computed_tokens_sum": 48,
            "iteration_tokens_total_sum": 40 + 8 + 10,
        }
        == values
    )
    assert values["e2e_request_latency_seconds_sum"] > values["time_to_first_token_seconds_sum"] > 0
    assert plain["num_requests_running"].labels == {"engine": "0", "model_name": "base"}
    config = plain["cache_config_info"].labels
    assert (config["block_size"], config["num_gpu_blocks"], config["engine"]) == ("16", "100", "0")


async def test_a_pod_serves_any_byte_level_tokenizer(start: Any, tiny_model: str) -> None:
    pod = await start("--tokenizer", tiny_model)
    _, tokens = await pod.post("/tokenize", {"messages": [{"role": "user", "content": "hello world"}]})
    assert tokens["tokens"][:6] == [1, 87, 415, 201, 289, 78]
    first = await pod.chat([USER], max_tokens=40)
    answered = {"role": "assistant", "content": first["choices"][0]["message"]["content"]}
    second = await pod.chat([USER, answered, USER], max_tokens=1)
    stored = (first["usage"]["total_tokens"] - 1) // 16 * 16
    assert second["usage"]["prompt_tokens_details"]["cached_tokens"] == stored


async def test_small_endpoints_answer(shared_pod: Any) -> None:
    assert await shared_pod.get("/health") == (200, "")
    assert await shared_pod.get("/ping") == (200, "")
    assert await shared_pod.get("/version") == (200, {"version": "0.32.0"})
    assert await shared_pod.get("/load") == (200, {"server_load": 0})


async def test_what_no_endpoint_answers_is_json_as_vllms_framework_writes_it(shared_pod: Any) -> None:
    assert await shared_pod.get("/v1/nothing") == (404, {"detail": "Not Found"})
    assert await shared_pod.get("/v1/completions") == (405, {"detail": "Method Not Allowed"})


@pytest.mark.parametrize("body", [b"{}", gzip.compress(b'{"prompt": "a", "max_tokens": 1}')], ids=["plain", "gzip"])
async def test_a_body_that_is_said_to_be_compressed_is_read_as_it_is(shared_pod: Any, body: bytes) -> None:
    url, headers = f"{shared_pod.url}/v1/completions", {"content-encoding": "gzip"}
    async with shared_pod.session.post(url, data=body, headers=headers) as response:
        assert response.status == 400
        assert (await response.json())["error"]["type"] == "BadRequestError"
