"""Pieces of a pod against the recordings: event bodies, metrics; and answers, hashes, histograms."""

import json
from array import array
from pathlib import Path

import msgspec
import pytest
from multipick_epp.tokens.files import read_model
from multipick_sim.assets import MODEL_DIR
from multipick_sim.engine.engine import Engine
from multipick_sim.engine.presets import DEFAULT_PRESET, PRESETS
from multipick_sim.engine.values import Cleared, Event, Limits, Removed, Stored
from multipick_sim.pod.adapters import Adapters
from multipick_sim.pod.answers import Answers
from multipick_sim.pod.clock import Clock
from multipick_sim.pod.hashes import block_hashes
from multipick_sim.pod.kv_events import Content, bodies
from multipick_sim.pod.metrics import RankMetrics
from multipick_sim.pod.rank import Rank
from multipick_sim.pod.scrape import PodMetrics
from multipick_sim.pod.settings import EventFormat
from multipick_sim.pod.tally import Tally
from prometheus_client.parser import text_string_to_metric_families

FIXTURES = Path(__file__).parents[2] / "fixtures"


@pytest.mark.parametrize(("release", "format_"), [("vllm-0.24.0", EventFormat.MAP), ("vllm-0.23.0", EventFormat.ARRAY)])
def test_event_bodies_are_those_of_the_release_they_imitate(release: str, format_: EventFormat) -> None:
    recorded = json.loads((FIXTURES / "encodings" / "encodings.json").read_text())
    payload = next(entry["payload_hex"] for entry in recorded if release in entry.values())
    contents = {
        "first": Content(array("I", range(11, 19)), salt="saltA"),
        "second": Content(array("I", [0] * 8 + [1, 2, 3, 4]), lora="ad1", lora_id=7),
    }
    events: list[Event] = [
        Stored("first", 0, [18446744073709551611, 102], None),
        Stored("second", 2, [103], 102),
        Removed([102]),
        Cleared(),
    ]
    ours = msgspec.msgpack.encode(bodies(events, contents.__getitem__, 4, format_))
    assert ours in bytes.fromhex(payload)


def test_metrics_have_the_names_labels_and_bounds_of_the_recorded_ones() -> None:
    recorded: dict[str, list[dict[str, str]]] = {}
    for family in text_string_to_metric_families((FIXTURES / "A_sha256_bs32_31blocks/metrics_99_end.txt").read_text()):
        for sample in family.samples:
            recorded.setdefault(sample.name, []).append(sample.labels)
    limits = Limits(32, 32, max_num_seqs=8, max_num_batched_tokens=2048, max_model_len=960)
    clock = Clock(1.0)
    engine = Engine(limits, PRESETS[DEFAULT_PRESET].costs())
    rank = Rank(0, engine, clock, RankMetrics(limits, clock), None, EventFormat.MAP)
    checked = 0
    for family in text_string_to_metric_families(PodMetrics("tiny", Adapters([], []), [rank]).text().decode()):
        for sample in family.samples:
            if not sample.name.startswith("vllm:"):
                continue
            theirs = recorded[sample.name]
            if sample.name == "vllm:cache_config_info":
                assert sample.labels.items() <= theirs[0].items() | {("cache_dtype", "auto")}
            else:
                assert sample.labels in theirs, (sample.name, sample.labels)
            checked += 1
    assert checked > 200


@pytest.fixture(scope="module")
def answers() -> Answers:
    return Answers(read_model(MODEL_DIR), seed=3)


def test_an_answer_follows_from_prompt_and_seed(answers: Answers) -> None:
    answer = answers.write([1, 2, 3], 20, chat=True, ends=False)
    assert answer == answers.write([1, 2, 3], 20, chat=True, ends=False)
    assert answer != answers.write([1, 2, 4], 20, chat=True, ends=False)
    assert answer != Answers(read_model(MODEL_DIR), seed=4).write([1, 2, 3], 20, chat=True, ends=False)


@pytest.mark.parametrize("chat", [True, False])
def test_a_shorter_answer_begins_a_longer_one(answers: Answers, chat: bool) -> None:
    assert answers.write([5], 30, chat=chat, ends=False)[:7] == answers.write([5], 7, chat=chat, ends=False)


@pytest.mark.parametrize("folder", [MODEL_DIR, FIXTURES / "tiny-model"])
def test_an_answers_text_tokenises_to_the_answer(folder: Path) -> None:
    files = read_model(folder)
    writer = Answers(files, seed=0)
    for seed in range(50):
        answer = writer.write([seed], 100, chat=bool(seed % 2), ends=False)
        assert files.backend.encode(writer.text(answer), add_special_tokens=False).ids == answer


def test_an_answer_that_ends_closes_its_turn_without_text(answers: Answers) -> None:
    answer = answers.write([1], 5, chat=True, ends=True)
    assert answer[-1] == read_model(MODEL_DIR).backend.token_to_id("<|im_end|>")
    assert len(answers.text(answer).split(" ")) == 4
    assert json.loads(b'"' + answers.json_text(answer) + b'"') == answers.text(answer)


def test_block_hashes_depend_on_all_before_them_and_on_adapter_and_salt() -> None:
    ids = list(range(10))
    hashes = block_hashes(ids, 4, None, None)
    assert len(hashes) == 2
    assert block_hashes([9, *ids[1:]], 4, None, None)[1] != hashes[1]
    assert block_hashes(ids[:9], 4, None, None) == hashes
    others = [block_hashes(ids, 4, lora, salt) for lora, salt in (("a", None), (None, "a"), ("a", "a"))]
    assert len({tuple(chain) for chain in [hashes, *others]}) == 4


def test_a_histogram_counts_many_at_once() -> None:
    tally = Tally([1, 2.5])
    tally.observe(1.0)
    tally.observe(2.0, times=3)
    tally.observe(7.0)
    assert tally.buckets() == [("1.0", 1.0), ("2.5", 4.0), ("+Inf", 5.0)]
    assert tally.sum == 14.0
