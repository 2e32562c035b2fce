import pytest
from multipick_epp.blocks import Chains
from multipick_epp.decision.predictions import Outcome, Predicted, Sample, compare
from multipick_epp.decision.prompts import Blind, Known
from multipick_epp.extproc.usage import Usage
from multipick_epp.types import Mode

KNOWN = Known([Chains(100, {})])


@pytest.mark.parametrize(
    ("usage", "found"),
    [
        (Usage(3, 100, 64), (Outcome.EQUAL, 0)),
        (Usage(3, 100, 80), (Outcome.MORE, 16)),
        (Usage(None, 100, 0), (Outcome.FEWER, 64)),
        (Usage(3, 99, 64), (Outcome.LENGTH, 1)),
        (Usage(3, None, 64), None),
        (Usage(3, 100, None), None),
        (Usage(3), None),
    ],
)
def test_a_prediction_is_held_against_what_the_engine_told(usage: Usage, found: tuple[Outcome, int] | None) -> None:
    assert compare(Predicted(100, 64), usage) == found


def test_one_of_so_many_is_taken() -> None:
    sample = Sample(every=4)
    taken = [sample.take(KNOWN, 64, Mode.EXACT) for _ in range(12)]
    assert taken == [None, None, None, Predicted(100, 64)] * 3


@pytest.mark.parametrize(
    ("prompt", "mode"),
    [
        (KNOWN, Mode.APPROX),
        (KNOWN, Mode.BLIND),
        (Blind(100, "no body"), Mode.EXACT),
        (Known([Chains(100, {})], reads_cache=False), Mode.EXACT),
        (Known([Chains(100, {})], guessed=True), Mode.EXACT),
        (Known([Chains(100, {}), Chains(100, {})]), Mode.EXACT),
    ],
)
def test_what_claims_not_to_be_exact_is_not_compared(prompt: Known | Blind, mode: Mode) -> None:
    assert Sample(every=1).take(prompt, 0, mode) is None
