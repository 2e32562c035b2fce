"""The command line: defaults, and what is refused before anything is started."""

from pathlib import Path

import pytest
from multipick_sim.demo.options import parse


def test_no_argument_is_a_run_of_lmetric_against_round_robin() -> None:
    options = parse([])
    assert options.policies == ("lmetric", "round-robin")
    assert options.trace is None
    assert options.json is None
    assert (options.traffic, options.load) == ("mixed", 0.6)
    assert (options.report, options.capture) == (Path("demo.html"), None)


def test_arguments_are_read(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    trace.touch()
    line = f"--trace {trace} --requests 60 --pods 3 --policies vllm-v1,lmetric --speed 2.5 --seed 9 --json {tmp_path}/o"
    options = parse(line.split())
    assert (options.trace, options.requests, options.pods) == (trace, 60, 3)
    assert (options.policies, options.speed, options.seed) == (("vllm-v1", "lmetric"), 2.5, 9)
    assert options.json == tmp_path / "o"


@pytest.mark.parametrize(
    "line",
    [
        "--requests 0",
        "--requests many",
        "--requests 100001",
        "--pods 0",
        "--pods 65",
        "--speed 0",
        "--speed -1",
        "--speed nan",
        "--speed fast",
        "--policies lmetric,nonsense",
        "--policies lmetric,lmetric",
        "--policies ,",
        "--preset gameboy",
        "--trace missing/trace.jsonl",
        "--json missing/folder/out.json",
        "--report missing/folder/out.html",
        "--capture .",
        "--traffic rumours",
        "--traffic chat:9",
        "--load 0",
        "--load 11",
    ],
)
def test_nonsense_is_refused(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        parse(line.split())
    assert refused.value.code == 2
    assert f"argument {line.split()[0]}" in capsys.readouterr().err
