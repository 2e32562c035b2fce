"""docs/operator.md names every reason and Event that a pool may show, and fields that pools and charts really have."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import multipick_operator.status
import yaml

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "operator.md").read_text()
SOURCES = [file.read_text() for file in Path(multipick_operator.status.__file__).parent.glob("*.py")]


def test_the_page_names_every_reason_why_a_condition_is_not_true() -> None:
    table = PAGE.split("| condition |")[1].split("\n\n")[0]
    reasons = {
        reason for source in SOURCES for reason in re.findall(r'Verdict\(\s*"(?:False|Unknown)",\s*"(\w+)"', source)
    }
    assert len(reasons) > 20
    assert not [reason for reason in reasons if not re.search(rf"\b{reason}\b", table)]


def test_the_page_names_every_event() -> None:
    told = PAGE.split("Events tell changes, once each: ")[1].split("\n\n")[0]
    transitions = (Path(multipick_operator.status.__file__).parent / "transitions.py").read_text()
    events = {
        *re.findall(r'Note\("Normal", "(\w+)"', transitions),
        *re.findall(r'\("(\w+)", changes\.\w+\)', transitions),
        *re.findall(r'\("\w+", "\w*"\): "(\w+)"', transitions),
    }
    assert set(re.findall(r"\b(?:[A-Z][a-z]+){2,}\b|\bReady\b", told)) == events


def test_fields_that_pages_name_are_the_pools_or_the_charts() -> None:
    pool = yaml.safe_load((ROOT / "manifests/crd/inferencepools.multipick.dev.yaml").read_text())
    schema = pool["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    values = yaml.safe_load((ROOT / "charts/multipick/values.yaml").read_text())
    known = {*paths(schema["properties"]["spec"]), *values_of(values)}
    page = PAGE + (ROOT / "manifests/gateways/README.md").read_text()
    sections = {path.split(".")[0] for path in known}
    named = {
        path
        for path in re.findall(r"`(?:spec\.)?([a-z]\w*(?:\.\w+)+)(?:[: ][^`\n]*)?`", page)
        if path.split(".")[0] in sections and not path.endswith(".py")
    }
    assert len(named) > 20
    assert named <= known


def paths(schema: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """Of all fields below, those of a list's elements too."""
    for name, field in schema.get("properties", {}).items():
        yield f"{above}{name}"
        yield from paths(field, f"{above}{name}.")
        yield from paths(field.get("items", {}), f"{above}{name}.")


def values_of(values: Mapping[str, Any], above: str = "") -> Iterator[str]:
    for name, value in values.items():
        yield f"{above}{name}"
        if isinstance(value, dict):
            yield from values_of(value, f"{above}{name}.")
