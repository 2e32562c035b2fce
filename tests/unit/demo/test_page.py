from dataclasses import replace

from multipick_sim.demo.options import Options, parse
from multipick_sim.demo.page import replay_command, report_page
from multipick_sim.demo.report import Outcome
from multipick_sim.demo.told import Told
from multipick_sim.replay.options import parse as parse_replay
from multipick_sim.traffic.causes import agreement
from multipick_sim.traffic.measures import measure
from multipick_sim.traffic.records import Record, Segment

OPTIONS = parse(["--pods", "2", "--speed", "2"])


def record(number: int, endpoint: str | None, error: str | None = None) -> Record:
    at_s = 0.5 * number
    return Record(
        name=f"r{number}",
        segments=(),
        answer=Segment("a", 10),
        sent_s=at_s,
        first_token_s=None if error else at_s + 0.125,
        end_s=at_s + 1.0,
        prompt_tokens=1000,
        output_tokens=11,
        cached_tokens=400,
        counted_tokens=1000,
        predicted_tokens=400,
        endpoint=endpoint,
        mode="exact",
        status=200,
        error=error,
    )


def outcome(policy: str, records: list[Record]) -> Outcome:
    return Outcome(policy, measure(records, 2), agreement(records, 2.0), Told(0.001), 2.0, ["a:1", "b:1"], records)


def test_the_page_has_what_clients_saw_under_each_policy() -> None:
    records = [record(number, "ab"[number % 2] + ":1") for number in range(6)]
    page = report_page(OPTIONS, "multipick demo --pods 2", [outcome("lmetric", records), outcome("random", records)])
    assert "demo: mixed" in page
    assert "6 requests" in page
    assert "2 pods h100-llama-3.3-70b-tp8" in page
    assert "<pre>multipick demo --pods 2</pre>" in page
    assert page.count("<th><i></i>lmetric</th>") == page.count("<th><i></i>random</th>") == 1
    assert page.count("pod 0: 3 requests, 1,800 prefilled tokens") == 2


def test_what_failed_or_went_past_the_picker_is_left_out_and_nothing_at_all_is_a_page_too() -> None:
    records = [record(0, "a:1"), record(1, "a:1", "HTTP 500"), record(2, None)]
    assert "pod 0: 1 requests, 600 prefilled tokens" in report_page(OPTIONS, "x", [outcome("lmetric", records)])
    assert "demo: mixed" in report_page(OPTIONS, "x", [outcome("lmetric", records[1:])])


def test_the_command_that_replays_a_capture_is_one(tmp_path: object) -> None:
    options: Options = replace(OPTIONS, capture=parse(["--capture", f"{tmp_path}/c"]).capture)
    line = replay_command(options).split()
    assert line[:2] == ["multipick", "replay"]
    assert options.capture
    (options.capture / "lmetric").mkdir(parents=True)
    study = parse_replay(line[2:]).study
    assert (study.setup.pods, study.setup.preset) == (1, OPTIONS.preset)
    assert study.policies == ("lmetric", "round-robin", "llm-d")
    assert [level.factor for level in study.levels] == [0.5]  # a clock that runs twice as fast
