"""A cell's text is what a reader of the sheet sees."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta

import pytest

from lrc.data.tables.cell_text import BUILT_IN, EPOCH_1904, Value, kind_of, show_cell, show_value


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
        (0.3333333333333333, "0.333333333333333"),  # a sheet has 15 digits
        (0.1 + 0.2, "0.3"),
        (1e15, "1000000000000000"),
        (1234567890123456.0, "1234567890123456"),
        (1.2345678901234568e18, "1234567890123456800"),
        (float("inf"), "inf"),
        (True, "TRUE"),
        ("NA", "NA"),
    ],
)
def test_numbers_without_a_format(value: Value, text: str) -> None:
    assert show_value(value) == text


@pytest.mark.parametrize(
    ("value", "code", "text"),
    [
        (0.1259, "0.00%", "12.59%"),
        (0.15, "0%", "15%"),
        (0.125, "0%", "13%"),
        (0.15, "0.##%", "15.%"),
        (0.12590000000000001, "0.00%;[Red]-0.00%", "12.59%"),
        (-0.5, "0%", "-50%"),
        (1e300, "0%", "1" + "0" * 302 + "%"),
        (7, "00000", "00007"),
        (12.5, "General", "12.5"),
        (1234.5, "#,##0.00", "1,234.50"),
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
    assert show_value(value, code) == text


def test_days_from_1904() -> None:
    assert show_value(0.0, "yyyy/m/d", EPOCH_1904) == "1904/1/1"


# Worked out by hand from the rules of ECMA-376 part 1, 18.8.31.
BY_HAND = [
    ('0"元"', {5: "5元", -5: "-5元", 2.5: "3元"}),
    ('0.0"℃"', {36.5: "36.5℃", 36: "36.0℃", -0.04: "0.0℃"}),
    ("#,##0.00", {1234567.891: "1,234,567.89", 0: "0.00", -1234.5: "-1,234.50"}),
    ("0.00", {3: "3.00", 2.345: "2.35"}),
    ("0,000", {7: "0,007"}),
    ("#.##", {0.5: ".5", 12: "12."}),
    ("# ?/?", {0.5: "1/2", 1.25: "1 1/4", -0.5: "-1/2", 3: "3", 0: "0"}),
    ("# ??/??", {0.333333333333333: "1/3", 5.15: "5 3/20"}),
    ("?/?", {1.5: "3/2"}),
    ("# ?/4", {0.5: "2/4", 3.75: "3 3/4"}),
    ("[$NT$-404]#,##0", {1234: "NT$1,234", -5: "-NT$5"}),
    ("[$¥-411]#,##0.0", {1234: "¥1,234.0"}),
    ("0_);(0)", {5: "5", -5: "(5)"}),
    ("#,##0;[Red](#,##0)", {-1234: "(1,234)"}),
    ('"正"0;"負"0;"零"', {5: "正5", -5: "負5", 0: "零"}),
    ('[>=60]"及格";"不及格"', {60: "及格", 59.9: "不及格"}),
    ('[=1]"是";[=0]"否";0', {1: "是", 0: "否", 7: "7"}),
    ('[<100]0"公分";[>=100]0.00,"公里"', {99: "99公分", 1500: "1.50公里"}),
    ("0%", {0.256: "26%"}),
    ("0.00E+00", {12345: "1.23E+04", 0.00012: "1.20E-04", 0: "0.00E+00"}),
    ("##0.0E+0", {12345: "12.3E+3", 999960: "1.0E+6"}),
    ("0,", {1234567: "1235"}),
    ('0.0,,"百萬"', {1234567: "1.2百萬"}),
    ('0\\.0,"萬"', {23456: "2.3萬"}),
    ("0000-000-000", {912345678: "0912-345-678"}),
    ("(00) 0000-0000", {223456789: "(02) 2345-6789"}),
    ('General"人"', {12: "12人", -3: "-3人"}),
    ("[DBNum1]0", {123: "一二三"}),
    ("[DBNum1][$-404]General", {123: "一百二十三", 10203: "一萬〇二百〇三"}),
    ("[DBNum2][$-404]General", {1005: "壹仟零伍", 120: "壹佰貳拾"}),
    ("[DBNum1][$-804]General", {23106: "二万三千一百〇六"}),
    ("[DBNum2][$-804]General", {23106: "贰万叁仟壹佰零陆"}),
    ('[DBNum2][$-404]General"元"', {23106: "貳萬參仟壹佰零陸元"}),
    ("[DBNum3]0", {123: "１２３"}),
    ('_-"$"* #,##0_-', {5: "$5"}),
    ('@"先生"', {"王": "王先生"}),
    ('0;0;0;"姓名："@', {"王": "姓名：王", 5: "5"}),
    ('[$-404]e"年"m"月"d"日"', {43239: "107年5月19日"}),
    ('[$-404]ggge"年"', {43239: "民國107年"}),
    ("[$-404]aaaa", {43239: "星期六"}),
    ("[$-404]AM/PM h:mm", {0.75: "下午 6:00"}),
    ("yyyy/m/d 上午/下午h:mm", {43239.25: "2018/5/19 上午6:00"}),
    ('[DBNum1][$-404]m"月"d"日"', {43239: "五月十九日"}),
    ("[h]:mm", {1.5: "36:00"}),
    ("[mm]:ss", {0.0625: "90:00"}),
    ("h:mm", {0.999988426: "23:59"}),
    ("yyyy/m/d", {1: "1900/1/1", 59: "1900/2/28", 61: "1900/3/1"}),
]


@pytest.mark.parametrize(("code", "value", "text"), [(code, *one) for code, many in BY_HAND for one in many.items()])
def test_number_formats(code: str, value: Value, text: str) -> None:
    assert show_value(value, code) == text


@pytest.mark.parametrize(
    ("value", "code", "text"),
    [
        (3, ";;;", "3"),  # hidden
        (0, "0;-0;;@", "0"),
        (0, "#", "0"),
        ("甲", ";;;", "甲"),
        (2958465.9999999, "yyyy/m/d", "2958465.9999999"),
        (5, "0" * 300, "5"),
        (60.0, "yyyy/m/d", "1900/2/28"),  # a day that there was not
        (-1.0, "h:mm", "-1"),
        (43239, "[$-F800]yyyy/m/d", "2018/5/19"),  # as the system writes dates
        (43239, "[$-411]dddd", "Saturday"),
        (5, "*-0", "5"),  # as wide as the column
        (100, "[DBNum1]0", "一〇〇"),  # ○ in some versions
        (43239, "bbbb", "bbbb"),  # the year of another calendar
        (0, '0.00;[=0]"無"', "0.00"),  # what the first section is for is not written
        (-3, BUILT_IN[37], "(3)"),  # -3 on some machines
        (-1234.5, BUILT_IN[40], "(1,234.50)"),
        (5, BUILT_IN[5], "NT$5"),  # or $5
    ],
)
def test_what_cannot_be_shown_exactly_is_marked(value: Value, code: str, text: str) -> None:
    assert show_cell(value, code) == (text, False)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("General", None),
        ("@", None),
        ("0.00E+00", "number"),
        ('0"日"', "number"),
        ('0.0"%"', "number"),
        ("[Red]0", "number"),
        ("# ?/?", "number"),
        (";;;", "number"),
        ('"是";"否"', "number"),
        ('@"元"', "text"),
        ("[DBNum1]General", "text"),
        ("0.0%", "percent"),
        ("[h]:mm", "date"),
        ("yyyy", "date"),
        ("000", "padded"),
    ],
)
def test_kinds(code: str, kind: str | None) -> None:
    assert kind_of(code) == kind
