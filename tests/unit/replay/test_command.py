"""The command as its user has it: files, exit status, an interrupt, and the page in a browser."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from multipick_sim.replay.cli import command
from multipick_sim.replay.options import parse

POOL = ["--pods", "2", "--preset", "a10-qwen2.5-7b", "--jobs", "1"]


def trace(folder: Path, requests: int, output_length: int = 20) -> Path:
    path = folder / "own.jsonl"
    common = {"input_length": 700, "output_length": output_length, "block_size": 512}
    lines = [{"timestamp": 50 * n, "hash_ids": [n % 5, 100 + n], **common} for n in range(requests)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_a_trace_becomes_a_table_figures_and_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report, figures = tmp_path / "r.html", tmp_path / "r.json"
    arguments = [str(trace(tmp_path, 40)), "--policies", "lmetric,linear:0.7", "--load", "0.5c,2", "--seeds", "2"]
    assert command([*arguments, *POOL, "--report", str(report), "--json", str(figures)]) == 0
    told = capsys.readouterr().out
    assert "load 0.5 of round-robin's capacity" in told
    assert "load 2 x the trace" in told
    assert f"report: {report}" in told
    found = json.loads(figures.read_text())
    assert {(row["policy"], row["seeds"]) for row in found["rows"]} == {("lmetric", 2), ("linear:0.7", 2)}
    assert len(found["outcomes"]) == 8
    assert found["about"]["requests"] == 40
    page = report.read_text()
    assert "multipick replay" in page
    assert "--policies lmetric,linear:0.7" in page
    assert not re.search(r"(src|href)=|url\(|@import|https?://", page)


@pytest.mark.parametrize("output_length", [0, 1])
def test_answers_without_a_second_token_have_no_tpot(
    output_length: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report, figures = tmp_path / "r.html", tmp_path / "r.json"
    arguments = [str(trace(tmp_path, 20, output_length)), "--policies", "lmetric", "--load", "1,2"]
    assert command([*arguments, *POOL, "--report", str(report), "--json", str(figures)]) == 0
    heads, row, *_ = (re.split(r"  +", line) for line in capsys.readouterr().out.splitlines() if "  " in line)
    assert row[heads.index("TPOT mean ms")] == "-"
    assert {each["tpot_mean"] for each in json.loads(figures.read_text())["rows"]} == {None}
    page = report.read_text()
    assert "TTFT: share of requests within" in page
    assert "TPOT: share of requests within" not in page


def test_the_same_command_gives_the_same_figures(tmp_path: Path) -> None:
    figures = [tmp_path / f"{n}.json" for n in range(2)]
    for n, file in enumerate(figures):
        jobs = ["--jobs", str(n + 1)]
        common = ["api", "--requests", "60", "--policies", "random,lmetric", "--load", "1", *POOL, *jobs]
        assert command([*common, "--json", str(file), "--report", str(tmp_path / "r.html")]) == 0
    one, two = (json.loads(file.read_text()) for file in figures)
    assert one["outcomes"] == two["outcomes"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["nothing-there"],
        ["chat", "--policies", "best"],
        ["chat", "--policies", "lmetric,lmetric"],
        ["chat", "--policies", "linear:7"],
        ["chat", "--load", "0"],
        ["chat", "--load", "fast"],
        ["chat", "--load", "1,2c,1.0"],
        ["chat", "--load", "1e-300"],
        ["chat", "--load", "1e6c"],
        ["chat", "--hits-late", "-1"],
        ["chat", "--pods", "0"],
        ["chat", "--preset", "a10-qwen2.5-7b,abacus"],
        ["chat", "--seeds", "-1"],
        ["chat:9"],
        ["chat", "--report", "/nowhere/r.html"],
    ],
)
def test_a_senseless_command_line_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        parse(arguments)
    assert end.value.code == 2
    assert "error:" in capsys.readouterr().err


@pytest.mark.parametrize("zero", ["0", "0.0"])
def test_nothing_may_be_late(zero: str) -> None:
    assert parse(["chat", "--hits-late", zero]).study.setup.hits_late_s == 0


def test_a_broken_trace_is_told_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "t.jsonl").write_text("{}\n")
    assert command([str(tmp_path / "t.jsonl"), *POOL, "--report", str(tmp_path / "r.html")]) == 1
    assert capsys.readouterr().err.startswith("multipick replay: ")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_report_that_can_not_be_written_costs_no_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = tmp_path / "r.json"
    arguments = [str(trace(tmp_path, 20)), "--policies", "lmetric", "--load", "1", *POOL, "--json", str(figures)]
    with pytest.raises(OSError, match="No space left"):
        command([*arguments, "--report", "/dev/full"])
    assert "TTFT mean ms" in capsys.readouterr().out
    assert json.loads(figures.read_text())["rows"]


def test_nobody_to_read_the_table_costs_no_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def left(*_: object, **__: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("builtins.print", left)
    report = tmp_path / "r.html"
    arguments = [str(trace(tmp_path, 20)), "--policies", "lmetric", "--load", "1", *POOL, "--report", str(report)]
    with pytest.raises(BrokenPipeError):
        command(arguments)
    assert "<svg" in report.read_text()


def test_requests_too_long_for_the_pods_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "t.jsonl"
    long = {"timestamp": 0, "input_length": 70_000, "output_length": 5, "hash_ids": list(range(137))}
    path.write_text("".join(json.dumps(line) + "\n" for line in [long, long | {"input_length": 600, "timestamp": 9}]))
    assert command([str(path), *POOL, "--load", "1", "--report", str(tmp_path / "r.html")]) == 0
    assert "1 requests, 2 pods a10-qwen2.5-7b; 1 requests too long for them left out" in capsys.readouterr().out


def test_an_interrupt_keeps_what_is_done(tmp_path: Path) -> None:
    arguments = [
        "chat",
        "--requests",
        "1500",
        "--policies",
        "round-robin,lmetric",
        "--seeds",
        "100",
        "--load",
        "1",
        *POOL,
    ]
    files = ["--report", str(tmp_path / "r.html"), "--json", str(tmp_path / "r.json")]
    # A shell gives what it runs in the background a SIGINT that is ignored, and so would this be.
    heeding = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code = f"{heeding}from multipick_sim.replay.cli import command; sys.exit(command(sys.argv[1:]))"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments, *files],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment | {"PYTHONUNBUFFERED": "1"},
        start_new_session=True,
        text=True,
    )
    assert process.stderr
    seen = ""
    try:
        while not re.search(r"^[1-9]\d* of 200 runs", seen, re.MULTILINE):
            line = process.stderr.readline()
            assert line, f"ended by itself: {seen}"
            seen += line
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does it, to parent and children
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, err
    done = re.search(r"interrupted: (\d+) of 200 runs were done", err)
    assert done, err
    assert len(json.loads((tmp_path / "r.json").read_text())["outcomes"]) == int(done[1]) > 0
    assert "runs are missing" in (tmp_path / "r.html").read_text()
    assert "report:" in out


@pytest.mark.parametrize("width", [500, 1400])  # headless windows are never narrower than 500
def test_the_page_works_in_a_browser_on_a_phone_and_on_a_desk(width: int, tmp_path: Path) -> None:
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no Chromium here (Debian: apt-get install chromium)")
    report = tmp_path / "r.html"
    assert command(["api", "--requests", "60", "--policies", "lmetric,random", *POOL, "--report", str(report)]) == 0
    # Press the second policy's button once the page is there, and leave a note of what went wrong.
    probe = (
        "<script>onerror = (why) => document.body.dataset.wrong = why; onload = () => {"
        "document.querySelectorAll('nav button')[1].click();"
        "document.body.dataset.hidden = document.querySelectorAll('main .p1.off').length;"
        "document.body.dataset.shown = document.querySelectorAll('main .p0:not(.off)').length;"
        "document.body.dataset.wide = document.documentElement.scrollWidth;}</script>"
    )
    report.write_text(report.read_text().replace("<script>", probe + "<script>", 1))
    folder = tmp_path / "profile"
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}", f"--window-size={width},800"]
    # No network: whatever the page would load would fail.
    command_line = [browser, *options, "--proxy-server=127.0.0.1:9", "--dump-dom", report.as_uri()]
    dom = subprocess.run(command_line, capture_output=True, text=True, timeout=100, check=True).stdout
    assert "data-wrong" not in dom
    charts = int(re.search(r'data-ready="(\d+)"', dom)[1])  # type: ignore[index]
    assert charts == dom.count("<svg") == 6 + 3 * 5
    assert re.search(r'data-hidden="([1-9]\d*)"', dom)
    assert re.search(r'data-shown="([1-9]\d*)"', dom)
    wide = int(re.search(r'data-wide="(\d+)"', dom)[1])  # type: ignore[index]
    assert wide <= width  # nothing has to be scrolled sideways
