"""A JSON array is read an element at a time, and refused with the words and places of the standard library."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lrc.data.tables import json_array as jsonarray
from lrc.data.tables.json_array import read_array
from lrc.data.tables.workbook import read_workbook
from lrc.runtime.errors import DataError
from lrc.runtime.library_errors import describe_error

VALUES: list[Any] = [
    {"input": "文章\n「甲」" * 9, "options": ["甲", "\u2028"]},
    12345,
    -0.5e-3,
    True,
    None,
    "😀",
    [],
    {},
]


@pytest.fixture(params=[1, 7, 1 << 20])
def window(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Windows that cut everything in two, and one that holds it all."""
    monkeypatch.setattr(jsonarray, "CHUNK", request.param)
    return int(request.param)


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("settings", [{}, {"ensure_ascii": False}, {"indent": 2}])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.usefixtures("window")
def test_elements_are_those_of_the_whole(tmp_path: Path, settings: dict[str, Any], encoding: str) -> None:
    text = json.dumps(VALUES * 3, **settings)
    assert list(read_array(write(tmp_path / "a.json", text.encode(encoding)))) == VALUES * 3


@pytest.mark.usefixtures("window")
def test_an_array_may_be_empty_and_start_with_a_mark(tmp_path: Path) -> None:
    assert list(read_array(write(tmp_path / "a.json", b"\xef\xbb\xbf [ \n ] "))) == []


@pytest.mark.parametrize(
    "content",
    [
        b'[{"a": ',
        b"",
        b"   ",
        b"[" + b"1" * 5000 + b"]",
        "[\n{},\n{文}]".encode(),
        b"[1 2]",
        b"[1,]",
        b"[1] 2",
        b"nonsense",
        b'[{"a": 1},\n "no end',
        b'[{"a": "\n"}]',
        b'["\\u12',
    ],
)
@pytest.mark.usefixtures("window")
def test_errors_are_those_of_the_standard_library(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ValueError) as wanted:
        json.loads(content.decode())
    with pytest.raises(DataError) as caught:
        list(read_array(write(tmp_path / "a.json", content)))
    assert caught.value.lines() == (f"a.json: not JSON ({describe_error(wanted.value)}); convert or export it again",)


@pytest.mark.usefixtures("window")
def test_other_encodings_are_refused_with_the_byte(tmp_path: Path) -> None:
    content = b'["' + "文".encode() * 5 + "文".encode("big5") + b'"]'
    with pytest.raises(DataError, match=r"^a\.json: byte 17 is not UTF-8"):
        list(read_array(write(tmp_path / "a.json", content)))


def test_endless_nesting_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^a\.json: not JSON"):
        list(read_array(write(tmp_path / "a.json", b"[" * 100_000)))


@pytest.mark.parametrize("content", [b"{}", b'"text"', b"3", b"null"])
def test_json_that_is_not_an_array_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(DataError, match=r"^a\.json: not a JSON array"):
        list(read_array(write(tmp_path / "a.json", content)))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^no\.json: No such file"):
        list(read_array(tmp_path / "no.json"))


def test_elements_come_before_the_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonarray, "CHUNK", 16)
    elements = read_array(write(tmp_path / "a.json", b'[{"a": 1}, {"a": 2}, ' + b" " * 1000 + b"broken"))
    assert [next(elements), next(elements)] == [{"a": 1}, {"a": 2}]
    with pytest.raises(DataError, match="column 1022"):
        next(elements)


def test_a_duplicate_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('[{"a": 1}, {"b": {"c": 1, "c": 2}}]', encoding="utf-8")
    with pytest.raises(DataError, match=r"^a\.json, element 2: key c appears twice"):
        list(read_array(path))
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n{"b": 1, "b": 1}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"^a\.jsonl, line 2: key b appears twice"):
        read_workbook(path)
