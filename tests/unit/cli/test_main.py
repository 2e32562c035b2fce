import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from multipick_cli.main import main

# A shell gives what it runs in the background a SIGINT that is ignored, and so would these be.
HEEDING = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
RUN = "from multipick_cli.main import main; sys.exit(main())"


def started(*arguments: str, stdout: int = subprocess.PIPE) -> subprocess.Popen[str]:
    """The command as a shell starts it."""
    return subprocess.Popen(
        [sys.executable, "-c", HEEDING + RUN, *arguments],
        stdout=stdout,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        text=True,
    )


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert "epp" in out
    assert "demo" in out


def test_no_command_and_an_unknown_one_fail_with_the_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert main(["frobnicate"]) == 2
    assert "no command 'frobnicate'" in capsys.readouterr().err


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip()


def test_an_interrupt_ends_any_command_without_a_traceback(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    os.mkfifo(trace)  # to be read before anything is shown: the command waits there
    with started("replay", str(trace)) as process, trace.open("w"):  # opens once the command has
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, output, errors) == (130, "", "")


@pytest.mark.parametrize("arguments", [["--help"], ["recording", "check"]])
def test_a_reader_that_leaves_ends_a_command_in_silence(arguments: list[str]) -> None:
    if arguments == ["recording", "check"]:
        arguments = [*arguments, str(Path(__file__).parents[2] / "fixtures" / "A_sha256_bs32_31blocks")]
    reader, writer = os.pipe()
    os.close(reader)
    with started(*arguments, stdout=writer) as process:
        os.close(writer)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (128 + signal.SIGPIPE, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_told_in_one_line() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    with started("--help", stdout=full) as process:
        os.close(full)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (1, "multipick: [Errno 28] No space left on device\n")


@pytest.mark.parametrize("arguments", [["replay"], ["demo", "--trace"], ["demo", "--json"], ["recording", "check"]])
def test_a_path_that_the_system_refuses_is_told_in_one_line(arguments: list[str]) -> None:
    with started(*arguments, "n" * 300) as process:
        output, errors = process.communicate(timeout=60)
    assert (output, errors.count("\n"), "File name too long" in errors) == ("", 1, True)
    assert process.returncode in (1, 2)
