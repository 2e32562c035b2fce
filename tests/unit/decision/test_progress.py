from multipick_epp.blocks import block_keys, root_key
from multipick_epp.decision.progress import Progress
from multipick_epp.types import BlockKey, Endpoint, ReservationId

POD = Endpoint("10.0.0.1:8000")
OTHER = Endpoint("10.0.0.2:8000")
R1, R2, R3 = ReservationId("r1"), ReservationId("r2"), ReservationId("r3")


class Watch:
    """A Progress with a clock that the test moves and the reports it made."""

    def __init__(self) -> None:
        self.now = 0.0
        self.reports: list[tuple[ReservationId, int]] = []
        self.taken: list[tuple[ReservationId, list[BlockKey], int]] = []
        self.progress = Progress(
            lambda reservation, left: self.reports.append((reservation, left)),
            lambda reservation, _endpoint, _size, keys, left: self.taken.append((reservation, [*keys], left)),
            lambda: self.now,
        )

    def go(self, reservation: ReservationId, endpoint: Endpoint = POD) -> None:
        """The request goes before its prefill was seen."""
        keys = self.progress.abandon(reservation)
        assert keys is not None
        self.progress.abandoned(endpoint, keys)


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


def test_of_equal_prompts_decided_at_once_the_first_is_charged() -> None:
    watch, keys = Watch(), chain(160)
    watch.progress.watch(R1, POD, 165, 16, keys, 0)
    watch.progress.watch(R2, POD, 165, 16, keys, 0)
    assert watch.reports == [(R2, 5)]
    watch.progress.stored(POD, keys[:5])
    assert watch.reports[1:] == [(R1, 85)]
    watch.progress.stored(POD, keys)
    assert sorted(watch.reports[2:]) == [(R1, 0), (R2, 0)]


def test_of_prompts_with_a_common_beginning_the_second_is_charged_for_its_own_part() -> None:
    watch, keys = Watch(), chain(160)
    watch.progress.watch(R1, POD, 100, 16, keys[:6], 0)
    watch.progress.watch(R2, POD, 160, 16, keys, 32)
    assert watch.reports == [(R2, 160 - 96)]


def test_what_another_picker_brings_is_not_charged_here() -> None:
    watch, keys = Watch(), chain(160)
    watch.progress.watch(R1, POD, 100, 16, keys[:6], 0)
    watch.progress.watch(R2, POD, 160, 16, keys[:8] + chain(32, start=9000), 0)
    assert watch.reports == [(R2, 64)]
    watch.progress.routed_elsewhere(OTHER, keys)
    watch.progress.routed_elsewhere(POD, keys)
    assert sorted(watch.reports[1:]) == [(R1, 4), (R2, 32)]
    watch.progress.routed_elsewhere(POD, keys)
    watch.progress.stored(POD, keys)
    assert watch.reports[3:] == [(R1, 0)]


def test_the_last_token_is_always_charged() -> None:
    watch, keys = Watch(), chain(160)
    watch.progress.watch(R1, POD, 160, 16, keys, 0)
    watch.progress.watch(R2, POD, 160, 16, keys, 0)
    watch.progress.watch(R3, OTHER, 160, 16, keys, 0)
    assert watch.reports == [(R2, 1)]


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
    watch.progress.watch(R1, POD, 160, 16, keys[:4], 0)
    watch.progress.watch(R2, POD, 160, 16, keys[8:], 128)
    watch.progress.forget(R1)
    watch.progress.forget(R2)
    watch.progress.stored(POD, keys)
    assert watch.reports == []
    assert not any(watch.progress._awaited.values())
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
    watch.progress.watch(R2, POD, 1000, 16, chain(1000), 0)
    watch.progress.estimate(5.0, lambda _: False)
    assert watch.reports == [(R1, 0)]


def test_a_prompt_without_blocks_advances_by_estimate_even_where_events_come() -> None:
    watch = Watch()
    watch.progress.watch(R1, POD, 1000, 0, (), 0)
    watch.now = 1.0
    watch.progress.first_byte(R1)  # 1,000 tokens in one second
    watch.progress.watch(R1, POD, 160, 16, chain(160), 0)
    watch.progress.watch(R2, POD, 5000, 0, (), 0)  # not read: no block of it is known
    watch.progress.estimate(1.0, lambda _: False)
    assert watch.reports[1:] == [(R2, 5000 - (1000 - 160))]  # the older prompt is computed first


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
    assert not any(watch.progress._awaited.values())


def test_when_the_paying_one_goes_the_next_of_equal_prompts_pays() -> None:
    watch, keys = Watch(), chain(4096)
    for each in (R1, R2, R3):
        watch.progress.watch(each, POD, 4096, 16, keys, 0)
    assert watch.reports == [(R2, 1), (R3, 1)]
    watch.go(R1)
    assert watch.taken == [(R2, keys, 4096)]
    watch.go(R3)  # it brought nothing
    watch.progress.stored(POD, keys[:128])
    assert watch.reports[2:] == [(R2, 2048)]
    watch.progress.stored(POD, keys)
    assert watch.reports[3:] == [(R2, 0)]
    assert not any(watch.progress._awaited.values())


def test_a_prompt_that_came_later_and_hit_what_was_only_expected_pays_when_the_paying_one_goes() -> None:
    watch, keys = Watch(), chain(4096)
    watch.progress.watch(R1, POD, 4096, 16, keys, 0)
    watch.progress.watch(R2, POD, 4096, 16, keys, 4080)
    assert watch.reports == [(R2, 1)]
    watch.go(R1)
    assert watch.taken == [(R2, keys, 4096)]
    watch.progress.stored(POD, keys[:255])
    assert watch.reports[1:] == [(R2, 16)]


def test_only_what_was_not_stored_is_taken_over() -> None:
    watch, keys = Watch(), chain(4096)
    watch.progress.watch(R1, POD, 4096, 16, keys, 0)
    watch.progress.watch(R2, POD, 4096, 16, keys, 4080)
    watch.progress.stored(POD, keys[:128])
    watch.go(R1)
    assert watch.taken == [(R2, keys[128:], 2048)]


def test_each_takes_over_what_it_relied_on_and_none_twice() -> None:
    watch, common, own = Watch(), chain(160), chain(64, start=9000)
    watch.progress.watch(R1, POD, 224, 16, common + own, 0)
    watch.progress.watch(R2, POD, 160, 16, common[:4] + chain(96, start=5000), 64)
    watch.progress.watch(R3, POD, 165, 16, common, 160)
    watch.go(R1)
    assert watch.taken == [(R2, common[:4], 160), (R3, common[4:], 101)]


def test_whoever_pays_already_and_whoever_is_elsewhere_takes_nothing_over() -> None:
    watch, keys = Watch(), chain(160)
    watch.progress.watch(R1, POD, 160, 16, keys, 0)
    watch.progress.watch(R2, OTHER, 160, 16, keys, 0)
    watch.progress.abandoned(POD, keys)  # another picker's prompt went
    watch.progress.abandoned(POD, chain(160, start=7000))
    assert watch.taken == []


def test_what_another_picker_gave_up_is_brought_here() -> None:
    watch, keys = Watch(), chain(160)
    watch.progress.watch(R1, POD, 165, 16, keys, 0)
    watch.progress.routed_elsewhere(POD, keys)
    assert watch.reports == [(R1, 5)]
    watch.progress.abandoned(POD, keys)
    assert watch.taken == [(R1, keys, 165)]


def test_a_prefill_that_is_over_was_not_abandoned() -> None:
    watch, keys = Watch(), chain(160)
    watch.progress.watch(R1, POD, 160, 16, keys, 0)
    watch.progress.watch(R2, POD, 160, 16, keys, 0)
    watch.progress.first_byte(R1)
    assert watch.progress.abandon(R1) is None
    assert watch.taken == []
