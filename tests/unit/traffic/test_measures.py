"""Figures of hand-made records."""

import pytest
from multipick_sim.traffic.measures import Spread, measure, percentile, spread
from multipick_sim.traffic.records import Record, Segment


def record(
    *,
    sent_s: float = 0.0,
    first_token_s: float | None = 1.0,
    end_s: float = 2.0,
    prompt: int = 100,
    cached: int | None = 0,
    output: int = 11,
    endpoint: str | None = "a",
    error: str | None = None,
) -> Record:
    return Record(
        name="r",
        segments=(),
        answer=Segment("r", output),
        sent_s=sent_s,
        first_token_s=first_token_s,
        end_s=end_s,
        prompt_tokens=prompt,
        output_tokens=output,
        cached_tokens=cached,
        counted_tokens=prompt,
        predicted_tokens=cached,
        endpoint=endpoint,
        mode="exact",
        status=200,
        error=error,
    )


def test_percentiles_are_interpolated_between_ranks() -> None:
    values = [10.0, 20.0, 30.0, 40.0]
    assert percentile(values, 0.0) == 10
    assert percentile(values, 0.5) == 25
    assert percentile(values, 0.95) == pytest.approx(38.5)
    assert percentile(values, 1.0) == 40
    assert percentile([7.0], 0.99) == 7


def test_a_spread_skips_what_is_not_there() -> None:
    assert spread([3.0, None, 1.0, 2.0]) == spread([1.0, 2.0, 3.0])
    assert spread([4.0, None]) == Spread(mean=4.0, p50=4.0, p95=4.0, p99=4.0)
    assert spread([None]) is None
    assert spread([]) is None


def test_times_are_taken_from_the_moment_of_sending() -> None:
    figures = measure([record(sent_s=5, first_token_s=5.5, end_s=7.5, output=5)], endpoints=1)
    assert figures.ttft_s == Spread(0.5, 0.5, 0.5, 0.5)
    assert figures.tpot_s == Spread(0.5, 0.5, 0.5, 0.5)
    assert figures.e2e_s == Spread(2.5, 2.5, 2.5, 2.5)
    assert figures.duration_s == 2.5


def test_an_answer_of_one_token_has_no_time_per_output_token() -> None:
    assert measure([record(output=1)], endpoints=1).tpot_s is None


def test_the_hit_rate_weighs_requests_by_their_tokens() -> None:
    figures = measure([record(prompt=900, cached=90), record(prompt=100, cached=80)], endpoints=1)
    assert figures.hit_rate == pytest.approx(0.17)
    assert (figures.prompt_tokens, figures.cached_tokens, figures.output_tokens) == (1000, 170, 22)


def test_failed_requests_are_counted_and_left_out_of_the_figures() -> None:
    figures = measure([record(), record(first_token_s=None, end_s=99, prompt=0, error="cut")], endpoints=1)
    assert (figures.requests, figures.failed) == (2, 1)
    assert figures.e2e_s == Spread(2, 2, 2, 2)
    assert figures.duration_s == 2


def test_nothing_answered_gives_no_figures() -> None:
    figures = measure([record(error="cut")], endpoints=2)
    assert (figures.ttft_s, figures.hit_rate, figures.imbalance, figures.duration_s) == (None, 0, 1, 0)


@pytest.mark.parametrize(
    ("prefilled", "endpoints", "imbalance"),
    [
        ({"a": 100, "b": 100}, 2, 1.0),
        ({"a": 300, "b": 100}, 2, 1.5),
        ({"a": 100}, 4, 4.0),  # pods that got nothing count
    ],
)
def test_imbalance_is_the_busiest_endpoint_over_the_mean(
    prefilled: dict[str, int], endpoints: int, imbalance: float
) -> None:
    nowhere = record(endpoint=None, prompt=700)  # routed by Envoy's own fallback
    records = [nowhere, *(record(endpoint=name, prompt=tokens + 50, cached=50) for name, tokens in prefilled.items())]
    assert measure(records, endpoints).imbalance == pytest.approx(imbalance)
