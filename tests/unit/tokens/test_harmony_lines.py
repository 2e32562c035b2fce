"""A chat's messages as lines of Harmony; the ids that they become are compared in tests/parity."""

import json
from typing import Any

import pytest
from multipick_epp.requests.prompt import Chat
from multipick_epp.tokens.harmony_lines import Line, chat_lines, response_lines, without_old_thoughts
from multipick_epp.tokens.outcome import NoText

U: Any = {"role": "user", "content": "hi"}
CALL: Any = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def lines(*messages: Any) -> list[Line]:
    return list(chat_lines(Chat(messages), hide_tools=False, least_effort="low").lines)


def test_a_leading_system_text_is_the_developers_and_a_later_one_a_message() -> None:
    preamble = chat_lines(
        Chat([{"role": "system", "content": "S"}, U, {"role": "system", "content": "T"}]), False, "low"
    )
    assert preamble.instructions == "S"
    assert preamble.lines == [Line("user", ("hi",)), Line("developer", ("T",))]


def test_an_answer_is_final_and_its_reasoning_analysis() -> None:
    found = lines(U, {"role": "assistant", "content": "a", "reasoning": "r"})
    assert found[1:] == [Line("assistant", ("r",), channel="analysis"), Line("assistant", ("a",), channel="final")]


def test_a_call_names_its_function_and_its_result_comes_from_there() -> None:
    called = {"role": "assistant", "content": "so", "tool_calls": [CALL]}
    found = lines(U, called, {"role": "tool", "tool_call_id": "c", "content": "7"})
    assert found[1:] == [
        Line("assistant", ("so",), channel="commentary"),
        Line("assistant", ("{}",), None, "commentary", "functions.f", "json"),
        Line("tool", ("7",), "functions.f", "commentary", "assistant"),
    ]
    assert [line.calls for line in found] == [False, False, True, False]


def test_tools_can_be_hidden() -> None:
    chat = Chat([U], tools=[{"type": "function", "function": {"name": "f"}}])
    assert [tool["name"] for tool in chat_lines(chat, hide_tools=False, least_effort="low").tools] == ["f"]
    assert chat_lines(chat, hide_tools=True, least_effort="low").tools == ()


def test_reasoning_before_the_last_answer_is_dropped() -> None:
    thought, final = Line("assistant", ("r",), channel="analysis"), Line("assistant", ("a",), channel="final")
    assert without_old_thoughts([thought, final, thought]) == [final, thought]
    assert without_old_thoughts([thought, thought]) == [thought, thought]


def test_items_of_responses_keep_their_order() -> None:
    items = [
        {"role": "developer", "content": "D"},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a"}]},
        {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "r"}]},
        {"type": "reasoning", "summary": []},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "7"},
    ]
    preamble = response_lines(json.dumps({"input": items, "reasoning": {"effort": "low"}}).encode())
    assert (preamble.effort, preamble.instructions) == ("low", "D")
    assert [(line.role, line.channel, line.texts) for line in preamble.lines] == [
        ("user", None, ("a",)),
        ("assistant", "analysis", ("r",)),
        ("assistant", "commentary", ("{}",)),
        ("tool", "commentary", ("7",)),
    ]


@pytest.mark.parametrize(
    "body",
    [
        {"input": [{"type": "function_call_output", "call_id": "nobody's", "output": "7"}]},
        {"input": [{"type": "item_reference", "id": "x"}]},
        {"input": "a", "tools": [{"type": "custom", "name": "c"}]},
        {"input": [{"role": "robot", "content": "x"}]},
        {"input": [{"role": "user", "content": 7}]},
        {"input": [{"type": "reasoning", "content": "r"}]},
        {"input": 7},
    ],
)
def test_what_the_engine_refuses_has_no_lines(body: Any) -> None:
    with pytest.raises(NoText):
        response_lines(json.dumps(body).encode())
