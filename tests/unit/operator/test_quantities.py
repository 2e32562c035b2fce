"""Kubernetes quantities, multiplied."""

import pytest
from multipick_operator.api.fields import Quantity
from multipick_operator.quantities import times


@pytest.mark.parametrize(
    ("quantity", "wanted"),
    [(1, 3), ("1", "3"), ("500m", "1500m"), ("8Gi", "24Gi"), ("1.5G", "4.5G"), (".5", "1.5"), ("1e3", "3e3")],
)
def test_three_times_as_much_in_the_same_unit(quantity: Quantity, wanted: Quantity) -> None:
    assert times(quantity, 3) == wanted


@pytest.mark.parametrize("quantity", [0, "2E", "12E-2", ".5", "2."])
def test_once_is_the_same_to_the_letter(quantity: Quantity) -> None:
    assert times(quantity, 1) == quantity


@pytest.mark.parametrize(
    ("quantity", "wanted"), [("2E", "4E"), ("12E-2", "24E-2"), ("2.", "4"), ("0.0000001G", "0.0000002G")]
)
def test_exponents_and_bare_points(quantity: Quantity, wanted: Quantity) -> None:
    assert times(quantity, 2) == wanted
