"""The fault lab, on request only (`make faults` sets MULTIPICK_FAULTS=1), since it takes twenty minutes.

One test a fault and style of gateway; a module's tests share a pool, which is made anew after a fault that it did not
recover from. The table at the end, and bench/results/faults.json, have what was seen.
"""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from lab import report
from lab.lab import Lab
from lab.report import Row

HERE = Path(__file__).parent
FIGURES = HERE.parents[1] / "bench" / "results" / "faults.json"
ROWS = pytest.StashKey[list[Row]]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(240))
            if not os.environ.get("MULTIPICK_FAULTS"):
                item.add_marker(pytest.mark.skip(reason="takes twenty minutes: make faults"))


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["standalone", "gateway"])
async def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lab]:
    rows = request.config.stash.setdefault(ROWS, [])
    made = Lab(request.param, tmp_path_factory.mktemp(request.param), rows)
    yield made
    await made.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if rows := config.stash.get(ROWS, []):
        terminalreporter.section("faults")
        for line in report.table(rows):
            terminalreporter.write_line(line)
        report.write(rows, FIGURES)
