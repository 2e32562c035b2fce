"""Request bodies: the prompt that the engine sees has the tokens that the plan says."""

import json
from pathlib import Path
from typing import Any

from multipick_sim.assets import MODEL_DIR
from multipick_sim.traffic.conversation import Conversation, encoder
from multipick_sim.traffic.plan import ANSWER_OPENING_TOKENS, Message, Turn
from tokenizers import Tokenizer

FIRST = Turn(0.0, (Message("system", 1, 30), Message("user", 2, 7)), 5)
SECOND = Turn(1.0, (Message("user", 3, 4),), 6)
ANSWER = 'bad bak bal bam "quoted" \\ bafal'


def encoded_tokens(body: dict[str, Any]) -> int:
    """Tokens of the prompt under the shipped tokenizer, by the ChatML template written out by hand."""
    tokenizer = Tokenizer.from_file(str(Path(MODEL_DIR) / "tokenizer.json"))
    text = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in body["messages"])
    return len(tokenizer.encode(text + "<|im_start|>assistant\n", add_special_tokens=False).ids)


def test_a_prompt_has_the_tokens_that_its_segments_say() -> None:
    _, segments, body = Conversation("s0", "m", encoder()).ask(FIRST)
    assert encoded_tokens(json.loads(body)) == sum(segment.tokens for segment in segments) + ANSWER_OPENING_TOKENS


def test_a_body_asks_for_a_stream_of_a_fixed_length_with_usage() -> None:
    _, _, body = Conversation("s0", 'a "model"', encoder()).ask(FIRST)
    request = json.loads(body)
    assert request.pop("messages")
    assert request == {
        "model": 'a "model"',
        "max_tokens": 5,
        "ignore_eos": True,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_the_next_turn_holds_the_real_answer_before_the_new_message() -> None:
    conversation = Conversation("s0", "m", encoder())
    _, _, first = conversation.ask(FIRST)
    segment = conversation.answer(json.dumps(ANSWER).encode(), 5)
    name, segments, second = conversation.ask(SECOND)
    before, after = json.loads(first)["messages"], json.loads(second)["messages"]
    assert after[: len(before)] == before
    assert after[len(before)] == {"role": "assistant", "content": ANSWER}
    assert [message["role"] for message in after] == ["system", "user", "assistant", "user"]
    assert segments[2] == segment
    assert name == "s0-2"


def test_sessions_share_texts_but_not_answers() -> None:
    encode = encoder()
    talks = [Conversation(name, "m", encode) for name in ("s0", "s1")]
    prompts = [talk.ask(FIRST)[1] for talk in talks]
    answers = [talk.answer(b'"bad"', 1) for talk in talks]
    assert prompts[0] == prompts[1]
    assert answers[0] != answers[1]
