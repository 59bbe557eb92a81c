"""What libraries say of damaged files, provoked in the libraries themselves, is told in the user's language."""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.parsers import expat

import pytest
import yaml

from lrc.data.sources import DataFile
from lrc.runtime.errors import DataError
from lrc.runtime.library_errors import describe_error
from lrc.runtime.translation import CHINESE, localized

LARGE = '"' + "長" * 9000 + '"'


def damaged_zip() -> io.BytesIO:
    """A package with a byte of its part changed."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as package:
        package.writestr("xl/workbook.xml", "x" * 99)
    content = bytearray(file.getvalue())
    content[60] ^= 1
    return io.BytesIO(content)


def read_zip(file: io.BytesIO) -> None:
    with zipfile.ZipFile(file) as package:
        package.read(package.namelist()[0])


def read_csv(text: str) -> None:
    list(csv.reader(io.StringIO(text), strict=True))


def read_xml(text: str) -> None:
    expat.ParserCreate().Parse(text, True)


def read_yaml(text: str) -> None:
    try:
        yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        raise ValueError(error.problem) from error


DAMAGED: list[tuple[Callable[[Any], object], Any]] = [
    *(
        (json.loads, text)
        for text in (
            *("", "[1 2]", "{1: 2}", '{"a" 1}', '"abc', '"a\nb"', r'"\q"', r'"\u12"', "1 2", '{"a": tru}'),
            *("[1, ]", '{"a": 1, }', "[" * 200_000, "1" * 5000),
        )
    ),
    *((read_yaml, text) for text in ("a: b: c", "a\nb: c", "a: [b", "a: {b: c", 'a: "b', "a:\n\t- b", "- a\nb: c")),
    *((read_csv, text) for text in ('"a\n', '"a"b\n')),
    (read_zip, io.BytesIO(b"PK\x03\x04" + b"\0" * 64)),
    (read_zip, damaged_zip()),
    *((read_xml, text) for text in ("<a", "", "<a><b></a>", "<a/><b/>", "<a>&x;</a>", "<a x=1/>", "a")),
    (bytes.decode, b"\xff\xfe"),
    (bytes.decode, "文".encode()[:2] + b"a"),
]


@pytest.mark.parametrize(("read", "content"), DAMAGED)
def test_no_english_sentence_is_left(read: Callable[[Any], object], content: Any) -> None:
    with pytest.raises(Exception) as caught:
        read(content)
    if isinstance(caught.value, json.JSONDecodeError | csv.Error | zipfile.BadZipFile | expat.ExpatError):
        assert describe_error(caught.value) == str(caught.value)  # in English
    told = localized(describe_error(caught.value), CHINESE)
    assert re.search("[\u4e00-\u9fff]", told), caught.value
    names = r"`[^`]*`|'[^']*'|<[^>]*>|NUL|UTF-8|JSON|XML|CRC|zip|utf-8|\\u?\w*|xl/workbook.xml"
    assert not re.search("[A-Za-z]{2}", re.sub(names, "", told)), told


def test_what_is_not_known_stays_as_it_is() -> None:
    assert describe_error(ValueError("something else: at line 3")) == "something else: at line 3"


def test_a_place_in_a_large_file_is_that_of_the_file(tmp_path: Path) -> None:
    text = "[\n" + ",\n".join([LARGE] * 90) + ",\n {'a': 1}]"
    (tmp_path / "a.json").write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        list(DataFile(tmp_path / "a.json").records())
    (line,) = caught.value.lines(CHINESE)
    place = f"第 92 行第 3 欄，字元 {text.index(chr(39))}"
    assert line == f"a.json：不是 JSON（少了雙引號括住的欄位名稱：{place}）；請重新轉換或匯出"
