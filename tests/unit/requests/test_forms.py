"""Bodies in all the forms that engines take, and what is charged for those that nobody can read."""

import base64
import json
import random
from typing import Any

import pytest
from multipick_epp.requests import encoding, parse
from multipick_epp.requests.base64_data import CUT, without_media
from multipick_epp.requests.body import Unreadable, count_of
from multipick_epp.requests.chat_fields import MEDIA_TOKENS
from multipick_epp.requests.encoding import without_no_numbers
from multipick_epp.requests.estimate import AUDIO_TOKENS, estimated_tokens
from multipick_epp.requests.prompt import Chat, Prompt, Text, TokenIds, Truncation, Unread

CHAT, COMPLETIONS, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
U = {"role": "user", "content": "grüße 東京"}
JSON = {"content-type": "application/json"}


def read(path: str, body: Any) -> Prompt:
    prompt = parse(path, {}, body if isinstance(body, bytes) else json.dumps(body).encode())
    assert isinstance(prompt, Prompt), prompt
    return prompt


def chat(body: Any) -> Chat:
    source = read(CHAT, body).source
    assert isinstance(source, Chat)
    return source


@pytest.mark.parametrize("named", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le"])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_a_body_is_read_in_every_encoding_of_json(named: str, ascii_only: bool) -> None:
    body = json.dumps({"messages": [U]}, ensure_ascii=ascii_only).encode(named)
    assert chat(body).messages == [U]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_json_lacks_are_read_past(number: str) -> None:
    body = f'{{"temperature": {number}, "messages": [{{"role": "user", "content": "is it NaN or \\" Infinity?"}}]}}'
    assert chat(body.encode()).messages == [{"role": "user", "content": 'is it NaN or " Infinity?'}]


def test_numbers_that_json_lacks_are_not_made_up_where_a_template_may_print_them() -> None:
    body = b'{"messages": [{"role": "user", "content": "hi"}], "chat_template_kwargs": {"x": NaN}}'
    assert parse(CHAT, {}, body) == Unread("not JSON")


def test_each_byte_before_a_number_that_json_lacks_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at = 0

    def counting(characters: bytes, text: bytes) -> int:
        nonlocal looked_at
        looked_at += len(text)
        return count_of(characters, text)

    body = b'{"messages":[],"a":[' + b"1," * 1_000 + b'1],"b":' + b"NaN " * 900 + b"}"
    monkeypatch.setattr(encoding, "count_of", counting)
    without_no_numbers(body)
    assert looked_at < 6 * len(body)


@pytest.mark.parametrize("between", [b" ", b' "" '])
def test_a_body_of_nothing_but_numbers_that_json_lacks_is_not_looked_through(between: bytes) -> None:
    with pytest.raises(Unreadable, match="not JSON"):
        without_no_numbers(b'{"a":' + (b"NaN" + between) * 1_001 + b"}")


@pytest.mark.parametrize("no", [False, 0, 0.0, "false", "False", "0", "off", "no", "n", "f"])
def test_a_switch_may_be_off_in_many_words(no: Any) -> None:
    assert chat({"messages": [U], "add_generation_prompt": no}).add_generation_prompt is False
    assert read(COMPLETIONS, {"prompt": "a", "add_special_tokens": no}).source == Text("a", False)
    assert read(EMBEDDINGS, {"input": "a", "add_special_tokens": no}).source == Text("a", False)


@pytest.mark.parametrize("yes", [True, 1, 1.0, "true", "TRUE", "1", "on", "yes", "y", "t"])
def test_a_switch_may_be_on_in_many_words(yes: Any) -> None:
    source = chat({"messages": [U], "continue_final_message": yes, "add_special_tokens": yes})
    assert source.continue_final_message is True
    assert source.add_special_tokens is True


@pytest.mark.parametrize("neither", ["maybe", 2, None, "", [True]])
def test_what_is_neither_on_nor_off_is_refused_by_engines_and_not_guessed_at(neither: Any) -> None:
    body = json.dumps({"messages": [U], "add_generation_prompt": neither}).encode()
    assert parse(CHAT, {}, body) == Unread("unexpected fields")


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, EMBEDDINGS])
@pytest.mark.parametrize(("value", "tokens"), [("-1", None), (-1, None), (-1.0, None), ("7", 7), (7, 7)])
@pytest.mark.parametrize("side", [None, "left", "right"])
def test_a_prompt_that_engines_cut_is_cut(path: str, value: Any, tokens: int | None, side: str | None) -> None:
    body = {"messages": [U], "prompt": "a", "truncate_prompt_tokens": value, "truncation_side": side} | (
        {"input": "a"} if path == EMBEDDINGS else {}
    )
    outcome = parse(path, {}, json.dumps(body).encode())
    assert isinstance(outcome, Prompt)
    left = side == "left" or (side is None and path != EMBEDDINGS)
    assert isinstance(outcome.source, Text | Chat)
    assert outcome.source.truncation == (None if tokens is None else Truncation(tokens, left, side is not None))
    assert outcome.max_tokens == tokens


@pytest.mark.parametrize(("value", "side"), [(0, None), (5, "middle"), (5, 1)])
def test_what_engines_refuse_to_cut_is_charged_no_further(value: int, side: Any) -> None:
    body = {"prompt": "a", "truncate_prompt_tokens": value, "truncation_side": side}
    assert parse(COMPLETIONS, {}, json.dumps(body).encode()) == Unread("truncated prompt", value)


@pytest.mark.parametrize(
    ("prompt", "side", "kept"),
    [
        ([1, 2, 3, 4], None, [[3, 4]]),
        ([1, 2, 3, 4], "right", [[1, 2]]),
        ([[1, 2, 3], [4], [5, 6, 7]], "left", [[2, 3], [4], [6, 7]]),
    ],
)
def test_token_ids_are_cut_as_the_engine_cuts_them(prompt: Any, side: str | None, kept: list[list[int]]) -> None:
    body = {"prompt": prompt, "truncate_prompt_tokens": 2, "truncation_side": side}
    outcome = parse(COMPLETIONS, {}, json.dumps(body).encode())
    assert isinstance(outcome, Prompt)
    sources = [source for source in (outcome.source, *outcome.batch) if isinstance(source, TokenIds)]
    assert [list(source.ids) for source in sources] == kept


def test_unknown_fields_may_be_anything() -> None:
    assert chat({"messages": [U], "new": {"a": [1, None, {"b": "c"}]}, "stream": "yes", "seed": []}).messages == [U]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/score", "pairs of texts"),
        ("/v1/score", "pairs of texts"),
        ("/rerank", "pairs of texts"),
        ("/v2/rerank", "pairs of texts"),
        ("/v1/audio/transcriptions", "audio"),
        ("/v1/chat/completions/batch", "batch of chats"),
        ("/v1/nothing", "unknown path"),
    ],
)
def test_apis_whose_prompts_do_not_show_are_known_by_name(path: str, reason: str) -> None:
    assert parse(path, {}, b"{}") == Unread(reason)


@pytest.mark.parametrize("path", ["/pooling", "/classify"])
def test_pooling_is_read_as_embeddings_are(path: str) -> None:
    assert read(path, {"input": "a"}).source == Text("a")


@pytest.mark.parametrize(
    ("salts", "salt"),
    [({}, None), ({"cache_salt": "a"}, "a"), ({"extra_key": "b"}, "b"), ({"cache_salt": "a", "extra_key": "b"}, "ab")],
)
def test_sglangs_keys_keep_caches_apart_as_salts_do(salts: dict[str, str], salt: str | None) -> None:
    assert read(CHAT, {"messages": [U], **salts}).cache_salt == salt
    assert read("/generate", {"text": "a", **salts}).cache_salt == salt


def test_a_key_for_each_prompt_is_not_read() -> None:
    body = json.dumps({"text": ["a", "b"], "extra_key": ["x", "y"]}).encode()
    assert parse("/generate", {}, body) == Unread("a name for each prompt")


# --- base64


def image(size: int, seed: int = 0) -> str:
    return base64.b64encode(random.Random(seed).randbytes(size)).decode()


def with_images(*sizes: int) -> dict[str, Any]:
    parts = [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image(size)}"}} for size in sizes]
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": "what?"}, *parts]}]}


def test_images_count_by_their_number_not_by_their_bytes() -> None:
    prompt = read(CHAT, with_images(3_000_000, 3_000_000))
    assert prompt.guessed_tokens == 2 * MEDIA_TOKENS + 1


def test_images_are_cut_out_before_a_body_is_decoded() -> None:
    body = json.dumps(with_images(300_000, 200_000)).encode()
    cut = without_media(body)
    assert len(cut) < 500
    assert cut.count(CUT.encode()) == 2
    assert json.loads(cut)["messages"][0]["content"][0] == {"type": "text", "text": "what?"}


def test_base64_that_is_a_text_stays_in_it() -> None:
    text = "see data:image/png;base64," + image(100_000)
    assert chat({"messages": [{"role": "user", "content": text}]}).messages == [{"role": "user", "content": text}]
    parts = [{"type": "text", "text": image(100_000)}]
    assert chat({"messages": [{"role": "user", "content": parts}]}).messages[0]["content"] == parts


def estimated(body: Any, **headers: str) -> int:
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    return estimated_tokens(headers or JSON, sent, len(sent))


def test_a_guess_leaves_base64_out() -> None:
    assert 2 * MEDIA_TOKENS < estimated(with_images(3_000_000, 3_000_000)) < 2 * MEDIA_TOKENS + 100
    assert estimated({"prompt": "some words " * 1000}) == pytest.approx(11_000 / 4, abs=10)
    assert estimated(b"") == 1


def test_uploads_of_speech_count_as_one_window() -> None:
    headers = {"content-type": "multipart/form-data; boundary=x"}
    assert estimated_tokens(headers, None, 3_000_000) == AUDIO_TOKENS
    assert estimated_tokens(headers, b"RIFF" * 750_000, 3_000_000) == AUDIO_TOKENS


def test_a_body_that_was_not_read_counts_by_its_size() -> None:
    assert estimated_tokens(JSON, None, 40_000) == 10_000


@pytest.mark.parametrize("seed", range(20))
def test_bodies_that_were_damaged_anywhere_end_in_a_prompt_or_a_reason(seed: int) -> None:
    rng = random.Random(seed)
    bodies = [
        (CHAT, with_images(6_000)),
        (CHAT, {"messages": [U], "tools": [{"function": {"name": "f", "parameters": {}}}], "temperature": 0.1}),
        ("/v1/messages", {"system": [{"type": "text", "text": "s"}], "messages": [U], "max_tokens": 5}),
        ("/v1/responses", {"input": [{"role": "user", "content": [{"type": "input_text", "text": "a"}]}]}),
        (COMPLETIONS, {"prompt": [[1, 2, 3], [4]], "echo": True}),
        (EMBEDDINGS, {"input": ["a", "b"]}),
        ("/generate", {"input_ids": [1, 2], "extra_key": "x"}),
        ("/inference/v1/generate", {"token_ids": [1, 2], "features": {"mm_placeholders": {"image": [{"offset": 1}]}}}),
    ]
    for _ in range(100):
        path, sent = rng.choice(bodies)
        named = rng.choice(["utf-8", "utf-8", "utf-16", "utf-32-be", "utf-8-sig"])
        body = bytearray(json.dumps(sent).encode(named))
        for _ in range(rng.randint(1, 6)):
            at = rng.randrange(len(body))
            piece = rng.choice([b"", b'"', b"\\", b"NaN", b"[", b"}", b"null", b"\xff", b"\\ud800", b"1e999", b"\x00"])
            body[at : at + rng.randint(0, 4)] = piece
        outcome = parse(path, {}, bytes(body))
        assert isinstance(outcome, Prompt | Unread)
        estimated_tokens(JSON, bytes(body), len(body))
