"""Command lines that pages show can be typed so: commands, their flags, and targets of make."""

import io
import re
from collections.abc import Iterator
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path

import pytest
from multipick_cli.main import main

ROOT = Path(__file__).parents[3]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "bench").glob("*.md")]
NESTED = {"sim", "recording"}
"""Commands that have commands of their own."""


def test_commands_and_their_flags_are_there() -> None:
    lines = sorted({line for page in PAGES for line in command_lines(page.read_text())})
    assert len(lines) > 20
    wrong = [line for line in lines if not set(re.findall(r"--[a-z][\w-]*", line)) <= flags(command(line))]
    assert not wrong


def test_targets_of_make_are_there() -> None:
    made = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = re.compile(r"(?:`|^|= )make ([a-z][\w-]*)", re.MULTILINE)
    shown = {name for page in PAGES for name in named.findall(page.read_text())}
    assert shown
    assert shown <= made


def command_lines(text: str) -> Iterator[str]:
    """Of blocks of code and of short ones in the text, without comments; a line goes on behind a backslash."""
    blocks = "\n".join(re.findall(r"^```[a-z]*$(.*?)^```$", text, re.MULTILINE | re.DOTALL)).replace("\\\n", " ")
    blocks = "\n".join([blocks, *re.findall(r"^    (multipick .*)$", text, re.MULTILINE)])
    yield from re.findall(r"^(?:\$ )?(?:\.venv/bin/)?(multipick [a-z]+(?: [^#\n]*)?)(?:#.*)?$", blocks, re.MULTILINE)
    yield from re.findall(r"`(multipick [a-z]+(?: [^`]*)?)`", text)
    yield from (f"multipick demo {said}" for said in re.findall(r"make demo ARGS='([^']*)'", text))


def command(line: str) -> tuple[str, ...]:
    words = line.split()[1:]
    return tuple(words[:2] if words[0] in NESTED and len(words) > 1 else words[:1])


@cache
def flags(names: tuple[str, ...]) -> set[str]:
    """What the command's help lists."""
    said = io.StringIO()
    with pytest.raises(SystemExit) as end, redirect_stdout(said):
        main([*names, "--help"])
    assert end.value.code == 0, names
    return set(re.findall(r"--[a-z][\w-]*", said.getvalue()))
