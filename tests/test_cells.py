"""A cell's text is what a reader of the sheet sees."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta

import pytest

from lrc.cells import EPOCH_1904, Value, kind_of, show


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (26.0, "26"),
        (-0.0, "0"),
        (1e7, "10000000"),
        (1e22, "10000000000000000000000"),
        (1e-5, "0.00001"),
        (0.1, "0.1"),
        (-2.5, "-2.5"),
        (0.3333333333333333, "0.3333333333333333"),
        (float("inf"), "inf"),
        (True, "TRUE"),
        ("NA", "NA"),
    ],
)
def test_numbers_without_a_format(value: Value, text: str) -> None:
    assert show(value) == text


@pytest.mark.parametrize(
    ("value", "code", "text"),
    [
        (0.1259, "0.00%", "12.59%"),
        (0.15, "0%", "15%"),
        (0.125, "0%", "13%"),
        (0.15, "0.##%", "15%"),
        (0.12590000000000001, "0.00%;[Red]-0.00%", "12.59%"),
        (-0.5, "0%", "-50%"),
        (1e300, "0%", "1" + "0" * 302 + "%"),
        (7, "00000", "00007"),
        (12.5, "General", "12.5"),
        (1234.5, "#,##0.00", "1234.5"),
        (43239, 'm"月"d"日"', "5月19日"),
        (43239, "[$-404]e/m/d", "107/5/19"),
        (43239.5, "yyyy/m/d hh:mm", "2018/5/19 12:00"),
        (date(2018, 5, 19), "yyyy\\-mm\\-dd", "2018-05-19"),
        (date(2018, 5, 19), "d-mmm-yy", "19-May-18"),
        (date(2018, 5, 19), "aaaa", "星期六"),
        (time(16, 17), "h:mm", "16:17"),
        (time(16, 17), "h:mm AM/PM", "4:17 PM"),
        (time(16, 17), '上午/下午hh"時"mm"分"', "下午04時17分"),
        (time(0, 5, 7), "mm:ss", "05:07"),
        (timedelta(hours=30, minutes=5), "[h]:mm:ss", "30:05:00"),
        (datetime(1899, 12, 30, 12, 29, 59, 999900), "h:mm", "12:30"),
        (-1.0, "yyyy/m/d", "-1"),
        (1e9, "yyyy/m/d", "1000000000"),
    ],
)
def test_formats(value: Value, code: str, text: str) -> None:
    assert show(value, code) == text


def test_days_from_1904() -> None:
    assert show(0.0, "yyyy/m/d", EPOCH_1904) == "1904/1/1"


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("General", None),
        ("0.00E+00", None),
        ('0"日"', None),
        ('0.0"%"', None),
        ("[Red]0", None),
        ("@", None),
        ("0.0%", "percent"),
        ("[h]:mm", "date"),
        ("yyyy", "date"),
        ("000", "padded"),
    ],
)
def test_kinds(code: str, kind: str | None) -> None:
    assert kind_of(code) == kind
