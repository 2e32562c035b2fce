"""Each request of recorded/render.json becomes the ids that vLLM 0.32 made of it, with three templates.

Two of the templates print all that they are given, so that every rule of the conversion shows in the ids.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from multipick_epp.requests import parse
from multipick_epp.requests.prompt import Prompt, Unread
from multipick_epp.tokens import Tokenizer, Untokenised

RECORDED = Path(__file__).parent / "recorded"
TEMPLATES = ("string", "parts", "chat")
CASES: list[dict[str, Any]] = json.loads((RECORDED / "render.json").read_text())

READ_ALTHOUGH_REFUSED = {
    "chat messages: tool msg content null",
    "chat messages: user content null",
    "chat: effort bogus",
    "chat: salt empty",
    "chat: tools empty",  # versions before 0.32 take it
    "completions: empty",
    "completions: idss empty",
    "messages: image",  # the recorded model takes no images
    "responses: asst list no type",
    "responses: image",
}
"""Where we read a prompt that the engine refuses. That costs nothing: the request goes to some pod and is refused."""


@pytest.fixture(scope="module", params=TEMPLATES)
def engine(request: pytest.FixtureRequest, tiny_model: Path) -> Iterator[tuple[str, Tokenizer]]:
    template = (RECORDED / f"{request.param}.jinja").read_text()
    tokenizer = Tokenizer.load(tiny_model, chat_template=template)
    yield request.param, tokenizer
    tokenizer.close()


def made(tokenizer: Tokenizer, case: dict[str, Any]) -> list[list[int]] | Unread | Untokenised:
    prompt = parse(case["path"], {}, json.dumps(case["body"]).encode())
    if not isinstance(prompt, Prompt):
        return prompt
    lists = []
    for source in (prompt.source, *prompt.batch):
        ids = tokenizer.encode_now(source)
        if isinstance(ids, Untokenised):
            return ids
        lists.append(list(ids))
    return lists


@pytest.mark.parametrize("case", [pytest.param(case, id=case["name"]) for case in CASES])
def test_a_request_becomes_the_engines_ids(engine: tuple[str, Tokenizer], case: dict[str, Any]) -> None:
    template, tokenizer = engine
    recorded = case["ids"][template]
    ids = made(tokenizer, case)
    if recorded is not None:
        assert ids == recorded
    elif case["name"] not in READ_ALTHOUGH_REFUSED:
        assert isinstance(ids, Unread | Untokenised)


def test_most_recorded_requests_were_answered() -> None:
    answered = [case for case in CASES if all(case["ids"][template] is not None for template in TEMPLATES)]
    assert len(CASES) == 239
    assert len(answered) > 170
