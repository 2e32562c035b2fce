"""One family's requests: what a picker makes of them, and what an engine does."""

import json
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from multipick_epp.requests import parse
from multipick_epp.requests.prompt import Prompt
from multipick_epp.tokens import Tokenizer, Untokenised

from .cases import COMPLETIONS, RESPONSES, Case

Ids = Sequence[Sequence[int]]
"""Of each prompt of a request."""

AT_ONCE = 4
FUZZ_BATCH = 250


@dataclass
class Row:
    """One kind of requests."""

    equal: int = 0
    engine: int = 0  # left to the engine, by design
    blind: Counter[str] = field(default_factory=Counter)  # reason -> requests
    refused: int = 0  # by the engine; whatever we make of them goes nowhere
    different: list[tuple[Case, Any, Any]] = field(default_factory=list)


def ask(address: str, case: Case) -> Ids | None:
    """The engine's ids; None where it refuses."""
    request = urllib.request.Request(
        f"{address}{case.path}/render", json.dumps(body_of(case)).encode(), {"content-type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=120) as response:
            answer = json.load(response)
    except urllib.error.HTTPError:
        return None
    return [one["token_ids"] for one in (answer if isinstance(answer, list) else [answer])]


def body_of(case: Case) -> dict[str, Any]:
    """The request's body, for the model that the reference serves."""
    model = {"model": "m"} if "model" not in case.body or case.body["model"] else {}
    return ({} if case.path == RESPONSES else {"max_tokens": 8}) | case.body | model


def make(tokenizer: Tokenizer, case: Case) -> Ids | str:
    """A picker's ids, or why it has none."""
    prompt = parse(case.path, {}, json.dumps(body_of(case)).encode())
    if not isinstance(prompt, Prompt):
        return prompt.reason
    lists = []
    for source in (prompt.source, *prompt.batch):
        ids = tokenizer.encode_now(source)
        if isinstance(ids, Untokenised):
            return ids.reason
        lists.append(list(ids))
    return lists


def compare(tokenizer: Tokenizer, address: str, cases: Sequence[Case]) -> Mapping[str, Row]:
    """By kind, in the order of the cases."""
    with ThreadPoolExecutor(AT_ONCE) as threads:
        answers = list(threads.map(lambda case: ask(address, case), cases))
    rows: dict[str, Row] = {}
    for case, theirs in zip(cases, answers, strict=True):
        count(rows.setdefault(case.kind, Row()), case, make(tokenizer, case), theirs)
    return rows


def count(row: Row, case: Case, ours: Ids | str, theirs: Ids | None) -> None:
    """One request."""
    if theirs is None:
        row.refused += 1
    elif ours == "only the engine writes these chats":
        row.engine += 1
    elif isinstance(ours, str):
        row.blind[ours] += 1
    elif [list(ids) for ids in ours] == [list(ids) for ids in theirs]:
        row.equal += 1
    else:
        row.different.append((case, ours, theirs))


def compare_texts(tokenizer: Tokenizer, address: str, texts: Sequence[str]) -> Row:
    """Each text as a completion, many in a request."""
    row = Row()
    batches = [texts[start : start + FUZZ_BATCH] for start in range(0, len(texts), FUZZ_BATCH)]
    for special in (True, False):
        for batch in batches[:: 1 if special else 4]:
            asked = ask(address, Case("fuzz", COMPLETIONS, {"prompt": list(batch), "add_special_tokens": special}))
            for number, text in enumerate(batch):
                case = Case("fuzz", COMPLETIONS, {"prompt": text, "add_special_tokens": special})
                count(row, case, make(tokenizer, case), None if asked is None else [asked[number]])
    return row


def table(family: str, rows: Mapping[str, Row], show: Callable[[str], None], shown: int = 3) -> int:
    """Prints the family's rows; returns how many requests differ."""
    total = Row()
    for kind, row in rows.items():
        blind = ", ".join(f"{number} {reason}" for reason, number in row.blind.most_common())
        show(
            f"{family:18} {kind:26} equal {row.equal:5}  different {len(row.different):4}  engine {row.engine:4}"
            f"  refused {row.refused:4}  blind {row.blind.total():4} {blind}"
        )
        for case, ours, theirs in row.different[:shown]:
            show(f"    {json.dumps(case.body)[:300]}\n    {_first_difference(ours, theirs)}")
        total.equal += row.equal
        total.engine += row.engine
        total.refused += row.refused
        total.blind += row.blind
        total.different += row.different
    show(
        f"{family:18} {'ALL':26} equal {total.equal:5}  different {len(total.different):4}  engine {total.engine:4}"
        f"  refused {total.refused:4}  blind {total.blind.total():4}"
    )
    return len(total.different)


def _first_difference(ours: Ids, theirs: Ids) -> str:
    for one, other in zip(ours, theirs, strict=False):
        for at, (a, b) in enumerate(zip(one, other, strict=False)):
            if a != b:
                return f"token {at}: here {list(one[at : at + 8])}, engine {list(other[at : at + 8])}"
        if len(one) != len(other):
            return f"length: here {len(one)} {list(one[-4:])}, engine {len(other)} {list(other[-4:])}"
    return f"prompts: here {len(ours)}, engine {len(theirs)}"


def load(folder: Path, **settings: Any) -> Tokenizer:
    """As a picker does it."""
    return Tokenizer.load(folder, **settings)


def texts_of(rows: Iterable[Row]) -> int:
    """Requests in all rows."""
    return sum(row.equal + row.engine + row.refused + row.blind.total() + len(row.different) for row in rows)
