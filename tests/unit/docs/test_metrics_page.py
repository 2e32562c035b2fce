"""docs/metrics.md and docs/operator.md name the metrics that there are, with their labels and values, and no other."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec
import multipick_operator.metrics
from multipick_epp.admin.status import PickerStatus
from multipick_epp.app.app import App
from multipick_epp.app.front import Front
from multipick_epp.checks.mismatch import Kind
from multipick_epp.config import Config, Events, Pool
from multipick_epp.decision.predictions import Outcome
from multipick_epp.extproc.effects import Undecided
from multipick_epp.extproc.http2.protocol import Refusal
from multipick_epp.extproc.interfaces import Failure, Stage
from multipick_epp.extproc.reserved import Checked
from multipick_epp.state.redis import malformed
from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "metrics.md").read_text()
ROWS = [row for row in PAGE.splitlines() if row.startswith("| `multipick_")]

Labels = Mapping[str, tuple[str, ...]]


def test_the_page_names_every_metric_with_its_labels_and_no_other() -> None:
    app = App(Config(Pool("pool"), events=Events(enabled=False)))
    front = Front(Config(Pool("pool"), state="redis://nowhere", workers=2))
    told = {
        **labels(app.metrics.registry, vars(app.metrics).values()),
        **labels(front.metrics.registry, vars(front.metrics).values()),
    }
    assert dict(documented()) == told


def test_the_operators_page_names_every_metric_with_its_labels_and_no_other() -> None:
    page = (DOCS / "operator.md").read_text()
    named = {
        name: tuple(labels.split(",")) if labels else ()
        for name, labels in re.findall(r"`(multipick_operator_\w+)(?:\{([\w,]+)\})?`", page)
    }
    metrics = multipick_operator.metrics.Metrics()
    assert named == labels(metrics.registry, vars(metrics).values())


def test_rows_name_every_value_of_a_label_that_has_few() -> None:
    for metric, values in {
        "multipick_ext_proc_errors_total": Failure,
        "multipick_ext_proc_seconds": Stage,
        "multipick_ext_proc_undecided_total": Undecided,
        "multipick_ext_proc_refused_connections_total": Refusal,
        "multipick_reserved_fields_total": Checked,
        "multipick_predictions_compared_total": Outcome,
        "multipick_endpoint_mismatch": Kind,
    }.items():
        row = next(row for row in ROWS if row.startswith(f"| `{metric}`"))
        assert not [value for value in values if not re.search(rf"\b{value}\b", row)], metric
    skipped = next(row for row in ROWS if row.startswith("| `multipick_state_malformed_total`"))
    sources = [source.read_text() for source in Path(malformed.__file__).parent.glob("*.py")]
    kinds = {kind for source in sources for kind in re.findall(r'(?:skip|_readable)\("(\w+)"', source)}
    kinds -= {"notes"}  # read by the ingest process alone, whose log tells
    assert kinds
    assert not [kind for kind in kinds if f"`{kind}`" not in skipped]


def test_the_page_shows_and_explains_every_field_of_the_status() -> None:
    shown = PAGE.split("```json")[1].split("```")[0]
    fields = {field.name for field in msgspec.structs.fields(PickerStatus)}
    assert msgspec.json.decode(shown).keys() == fields
    assert msgspec.json.decode(shown, type=PickerStatus)
    table = PAGE.split("| field |")[1].split("| kind |")[0]
    assert {*re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE), "replica"} == fields


def test_the_page_explains_every_kind_of_mismatch() -> None:
    assert set(re.findall(r"^\| `([a-z-]+)` \|", PAGE.split("| kind |")[1], re.MULTILINE)) == set(Kind)


def documented() -> Iterable[tuple[str, tuple[str, ...]]]:
    """Names and labels by the rows of the page."""
    for row in ROWS:
        names, types, _ = row.strip("| ").split(" | ", 2)
        told = types.partition(":")[2].strip()
        for name in re.findall(r"`(\w+)`", names):
            yield name, tuple(told.split(", ")) if told else ()


def labels(registry: CollectorRegistry, kept: Iterable[object]) -> Labels:
    """Names, as a scrape has them, and labels of all that is registered; of the library's own kinds by `kept`."""
    own: dict[str, Iterable[str]] = {
        family.name: metric._labelnames
        for metric in kept
        if isinstance(metric, MetricWrapperBase)
        for family in metric.collect()
    }
    found = {}
    for family in registry.collect():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        found[name] = tuple(own.get(family.name, getattr(family, "_labelnames", ())))
    return found
