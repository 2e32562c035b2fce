"""A picker makes the ids that a real vLLM made of the same requests, family by family (`make parity` records them).

The tokenizers are downloaded into a cache; without the registries these tests are skipped.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from multipick_epp.tokens import Tokenizer, harmony, template

from .cases import cases, truncated
from .compare import make
from .models import FAMILIES, Family, Unreachable
from .models import make as make_folder
from .recorded import digest, file_of, standing_still

CASES = [*cases()]
CUT = [*truncated()]
RECORDED = [family for family in FAMILIES if file_of(family.name).is_file()]


@pytest.fixture(scope="module", params=RECORDED, ids=lambda family: family.name)
def family(request: pytest.FixtureRequest) -> Family:
    found: Family = request.param
    return found


@pytest.fixture(scope="module")
def recorded(family: Family) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file_of(family.name).read_text())
    return found


@pytest.fixture(scope="module")
def tokenizer(
    family: Family, recorded: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Tokenizer]:
    try:
        folder = make_folder(family, tmp_path_factory.mktemp("model"))
    except Unreachable as away:
        pytest.skip(str(away))
    tokenizer = Tokenizer.load(folder)
    with pytest.MonkeyPatch.context() as patch:
        clock = standing_still(recorded["day"])
        patch.setattr(template, "datetime", clock)
        patch.setattr(harmony, "datetime", clock)
        yield tokenizer
    tokenizer.close()


@pytest.mark.timeout(300)
def test_no_request_has_other_ids_than_in_the_engine(tokenizer: Tokenizer, recorded: dict[str, Any]) -> None:
    equal = 0
    answered = [*zip(CASES, recorded["answers"], strict=True)]
    if "cut" in recorded:
        answered += zip(CUT, recorded["cut"], strict=True)
    for case, theirs in answered:
        ours = make(tokenizer, case)
        if theirs is not None and not isinstance(ours, str):
            assert digest(ours) == theirs, f"{case.kind}: {json.dumps(case.body)[:300]}"
            equal += 1
    assert equal >= 30, "completions at least: chats of some families are left to engines"
