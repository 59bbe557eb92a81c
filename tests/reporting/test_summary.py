"""What the summary of a run, its report and a sweep take for the best evaluation."""

from __future__ import annotations

from math import nan

import pytest

from lrc.metrics.training_log import Point
from lrc.reporting.summary import best_point


@pytest.mark.parametrize(
    ("values", "best"),
    [([0.2, 0.5, 0.4], 2), ([0.5, 0.2, 0.5], 1), ([nan, 0.5, 0.4], 2), ([0.5, nan], 1), ([nan, nan], 1)],
    ids=["highest", "first of several", "after NaN", "before NaN", "all NaN"],
)
def test_the_best_point_is_the_highest_number(values: list[float], best: int) -> None:
    found = best_point(tuple(Point(step, value) for step, value in enumerate(values, start=1)))
    assert found is not None and found.step == best


def test_an_empty_curve_has_no_best_point() -> None:
    assert best_point(()) is None
