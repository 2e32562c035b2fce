"""`multipick sim serve`: what it refuses to start with, and why."""

import socket

import pytest
from multipick_sim.cli import command


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--num-gpu-blocks", "4", "--max-model-len", "512"], "max_model_len"),
        (["--max-num-seqs", "64", "--max-num-batched-tokens", "32"], "max_num_batched_tokens"),
        (["--replay-port", "0"], "--events-port"),
        (["--tokenizer", "/nowhere"], "tokenizer.json"),
        (["--data-parallel-size", "100000"], "data_parallel_size"),
        (["--data-parallel-size", "100", "--events-port", "65500"], "65500"),
        (["--lora", "sim"], "called sim"),
        (["--lora", "a", "a"], "called a"),
    ],
)
def test_settings_that_cannot_work_are_named(flags: list[str], reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["serve", "--port", "0", *flags]) == 1
    assert reason in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--port", "--events-port"])
def test_a_port_in_use_is_named(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ports = {"--port": "0", flag: str(taken.getsockname()[1])}
        assert command(["serve", *(word for pair in ports.items() for word in pair)]) == 1
    assert "ddress already in use" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags",
    [
        ["--speed", "0"],
        ["--speed", "inf"],
        ["--speed", "fast"],
        ["--port", "70000"],
        ["--port", "http"],
        ["--block-size", "0"],
        ["--num-gpu-blocks", "1000000000000"],
        ["--num-gpu-blocks", "9" * 5000],
        ["--seed", "-1"],
        ["--shutdown-timeout", "nan"],
        ["--preset", "gameboy"],
    ],
)
def test_flags_out_of_range_are_a_bad_command_line(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        command(["serve", *flags])
    assert exit_.value.code == 2
    assert flags[0] in capsys.readouterr().err
