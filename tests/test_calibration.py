"""Reliability bins and calibration error against a calculation by hand."""

from __future__ import annotations

import pytest

from lrc.calibration import calibration_error, reliability


def test_calibration_by_hand() -> None:
    bins = reliability([0.91, 0.99, 1.0, 0.35], [True, False, True, False])
    assert [(one.low, one.n) for one in bins] == [(0.3, 1), (0.9, 3)]
    assert bins[1].accuracy == pytest.approx(2 / 3) and bins[1].confidence == pytest.approx(2.9 / 3)
    assert calibration_error(bins) == pytest.approx((0.35 + abs(2.9 - 2)) / 4)
    assert calibration_error([]) == 0
