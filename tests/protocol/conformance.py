"""`make conformance`: one line a requirement of the protocol, with whether the tests that show it pass.

A pytest plugin. A test says what it shows by `@pytest.mark.requirement("SOURCE: sentence")`; only those run. Sources:
`protocol`, the Endpoint Picker Protocol 1.0 (docs/proposals/004-endpoint-picker-protocol of the Gateway API Inference
Extension); `suite`, what its conformance suite asks of a picker; `ext_proc`, Envoy's own protocol and what Envoy 1.40
does; `gateways`, what other gateways do.
"""

from collections import defaultdict
from collections.abc import Iterator

import pytest

SOURCES = ("protocol", "suite", "ext_proc", "gateways")
_PROPERTY = "requirement"
_RANKS = {"passed": 0, "skipped": 1, "failed": 2}


def requirements_of(item: pytest.Item) -> Iterator[str]:
    """The sentences that a test shows. Raises UsageError for one without its source."""
    for mark in item.iter_markers("requirement"):
        (sentence,) = mark.args
        if not sentence.startswith(tuple(f"{source}: " for source in SOURCES)):
            raise pytest.UsageError(f"{item.nodeid}: a requirement begins with its source: {sentence}")
        yield sentence


class Requirements:
    """What each requirement's tests came to."""

    def __init__(self) -> None:
        self._sentences: dict[str, list[str]] = {}  # of each test
        self._outcomes: dict[str, str] = {}  # the worst of each test's phases

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Keep the tests that show something; their reports say what, also those of other processes."""
        for item in items:
            item.user_properties += [(_PROPERTY, sentence) for sentence in requirements_of(item)]
        config.hook.pytest_deselected(items=[item for item in items if not item.user_properties])
        items[:] = [item for item in items if item.user_properties]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """One phase of a test is over."""
        self._sentences[report.nodeid] = [str(value) for name, value in report.user_properties if name == _PROPERTY]
        before = self._outcomes.get(report.nodeid, "passed")
        self._outcomes[report.nodeid] = max(before, report.outcome, key=_RANKS.__getitem__)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """The list."""
        found: defaultdict[str, list[str]] = defaultdict(list)
        for test, sentences in self._sentences.items():
            for sentence in sentences:
                found[sentence].append(self._outcomes.get(test, "skipped"))
        terminalreporter.section("requirements")
        for source in SOURCES:
            for sentence in sorted(each for each in found if each.startswith(source)):
                outcomes = found[sentence]
                worst = max(outcomes, key=_RANKS.__getitem__)
                terminalreporter.write_line(f"{worst:<7} {len(outcomes):>3} tests  {sentence}")
        terminalreporter.write_line(f"{len(found)} requirements")


def pytest_configure(config: pytest.Config) -> None:
    """In every process: each collects, the first one hears of all."""
    config.pluginmanager.register(Requirements())
