"""Whatever a page leads to is there: files, headings, tests, pages that code and charts name."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
OURS = ("bench", "charts", "cli", "docker", "docs", "epp", "manifests", "operator", "proto", "sim", "tests")
PAGES = sorted([*ROOT.glob("*.md"), *(page for folder in OURS for page in (ROOT / folder).rglob("*.md"))])
KINDS = {".html", ".md", ".py", ".tpl", ".txt", ".yaml"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_to_a_heading_of_it(page: Path) -> None:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_path_that_a_page_names_is_there(page: Path) -> None:
    named = re.findall(rf"`((?:{'|'.join(OURS)}|results)/[\w./-]*)(?:::\w+)?`", page.read_text())
    assert not [path for path in named if not any((above / path).exists() for above in (ROOT, page.parent))]


def test_every_test_that_a_page_names_is_there() -> None:
    files = [*(ROOT / "tests").rglob("test_*.py")]
    defined = re.compile(r"^ *(?:async )?def (test_\w+)", re.MULTILINE)
    there = {name for file in files for name in defined.findall(file.read_text())}
    named = {name for page in PAGES for name in re.findall(r"\btest_\w+", page.read_text())}
    assert named
    assert not named - there - {file.stem for file in files}


def test_every_page_that_a_file_of_ours_names_is_there() -> None:
    files = [
        ROOT / "Makefile",
        ROOT / "pyproject.toml",
        *(file for folder in OURS for file in (ROOT / folder).rglob("*")),
    ]
    named = {
        page
        for file in files
        if file.is_file() and (file.suffix in KINDS or file.parent == ROOT)
        for page in re.findall(r"(?<![\w/])(?:docs|bench)/[\w-]+\.md\b", file.read_text())
    }
    assert named
    assert not [page for page in named if not (ROOT / page).exists()]


def anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub makes them."""
    return {
        re.sub(r"[^\w\- ]", "", re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()).replace(" ", "-")
        for heading in headings(page.read_text())
    }


def headings(text: str) -> Iterator[str]:
    """Without what only looks like one, in a block of code."""
    yield from re.findall(
        r"^#+ (.+?) *$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE
    )
