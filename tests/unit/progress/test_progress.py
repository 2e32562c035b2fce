from multipick_epp.blocks import block_keys, root_key
from multipick_epp.progress import Progress
from multipick_epp.types import BlockKey, Endpoint, ReservationId

POD = Endpoint("10.0.0.1:8000")
OTHER = Endpoint("10.0.0.2:8000")
R1, R2 = ReservationId("r1"), ReservationId("r2")


class Watch:
    """A Progress with a clock that the test moves and the reports it made."""

    def __init__(self) -> None:
        self.now = 0.0
        self.reports: list[tuple[ReservationId, int]] = []
        self.progress = Progress(lambda reservation, left: self.reports.append((reservation, left)), lambda: self.now)


def chain(tokens: int, start: int = 0, block_size: int = 16) -> list[BlockKey]:
    return block_keys(root_key(b"", "m"), range(start, start + tokens), block_size)


def test_each_stored_chunk_takes_its_tokens_out_of_the_queue() -> None:
    watch, keys = Watch(), chain(20_000)
    watch.progress.watch(R1, POD, 20_000, 16, keys, 0)
    for chunk in range(0, len(keys), 512):  # 8,192 tokens an engine step
        watch.progress.stored(POD, keys[chunk : chunk + 512])
    assert watch.reports == [(R1, 20_000 - 8192), (R1, 20_000 - 16_384), (R1, 0)]


def test_the_tail_after_the_last_full_block_is_done_with_it() -> None:
    watch, keys = Watch(), chain(100)
    watch.progress.watch(R1, POD, 100, 16, keys, 0)
    watch.progress.stored(POD, keys)
    assert watch.reports == [(R1, 0)]


def test_a_hit_is_not_waited_for() -> None:
    watch, keys = Watch(), chain(160)
    watch.progress.watch(R1, POD, 160, 16, keys, 128)
    watch.progress.stored(POD, keys[:8])
    assert watch.reports == []
    watch.progress.stored(POD, keys[8:9])
    assert watch.reports == [(R1, 16)]


def test_equal_prompts_on_one_endpoint_advance_together() -> None:
    watch, keys = Watch(), chain(160)
    watch.progress.watch(R1, POD, 160, 16, keys, 0)
    watch.progress.watch(R2, POD, 160, 16, keys, 0)
    watch.progress.stored(POD, keys[:5])
    assert sorted(watch.reports) == [(R1, 80), (R2, 80)]


def test_blocks_of_another_endpoint_mean_nothing() -> None:
    watch, keys = Watch(), chain(160)
    watch.progress.watch(R1, POD, 160, 16, keys, 0)
    watch.progress.stored(OTHER, keys)
    assert watch.reports == []


def test_the_first_byte_ends_the_queue() -> None:
    watch, keys = Watch(), chain(160)
    watch.progress.watch(R1, POD, 160, 16, keys, 0)
    watch.progress.first_byte(R1)
    watch.progress.first_byte(R1)
    watch.progress.stored(POD, keys)
    assert watch.reports == [(R1, 0)]


def test_a_forgotten_reservation_leaves_nothing_behind() -> None:
    watch, keys = Watch(), chain(160)
    watch.progress.watch(R1, POD, 160, 16, keys, 0)
    watch.progress.watch(R2, POD, 160, 16, keys[:4], 0)
    watch.progress.forget(R1)
    watch.progress.forget(R2)
    watch.progress.stored(POD, keys)
    assert watch.reports == []
    assert not watch.progress._waiting
    assert not watch.progress._prefills


def test_an_endpoint_without_events_advances_at_its_measured_rate_oldest_first() -> None:
    watch = Watch()
    watch.progress.watch(R1, POD, 1000, 0, (), 0)
    watch.now = 1.0
    watch.progress.first_byte(R1)  # 1,000 tokens in one second
    watch.progress.watch(R1, POD, 1000, 0, (), 0)
    watch.progress.watch(R2, POD, 1000, 0, (), 0)
    watch.progress.estimate(1.5, lambda _: True)
    assert watch.reports[1:] == [(R1, 0), (R2, 500)]


def test_nothing_is_estimated_where_events_come_or_no_rate_is_known() -> None:
    watch = Watch()
    watch.progress.watch(R1, POD, 1000, 0, (), 0)
    watch.progress.estimate(5.0, lambda _: True)
    assert watch.reports == []
    assert watch.progress.prefill_seconds(POD, 1000) is None
    watch.now = 2.0
    watch.progress.first_byte(R1)
    assert watch.progress.prefill_seconds(POD, 1000) == 2.0
    watch.progress.watch(R2, POD, 1000, 0, (), 0)
    watch.progress.estimate(5.0, lambda _: False)
    assert watch.reports == [(R1, 0)]


def test_time_without_prompts_does_not_lower_the_rate() -> None:
    watch = Watch()
    for start in (0.0, 100.0):
        watch.now = start
        watch.progress.watch(R1, POD, 1000, 0, (), 0)
        watch.now = start + 1.0
        watch.progress.first_byte(R1)
    assert watch.progress.prefill_seconds(POD, 1000) == 1.0


def test_dropping_an_endpoint_forgets_its_prompts() -> None:
    watch, keys = Watch(), chain(160)
    watch.progress.watch(R1, POD, 160, 16, keys, 0)
    watch.progress.drop(POD)
    watch.progress.forget(R1)
    assert not watch.progress._waiting
