"""Forty wrong inputs through the real server: each is answered by lines in the reader's language."""

from __future__ import annotations

import asyncio
import html
import json
import re
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from app_server import SECONDS, serving
from small_models import save_base
from workbooks import LABELLED, TEST, row, test_row, write_xlsx

pytest.importorskip("gradio", reason="gradio is not installed: pip install '.[app]'")
ASKED = ["--template", "chinese-alpaca-2", "--answer-style", "digit"]
LONG = "長" * 20_001
FOUR = ("甲", "乙", "丙", "丁")
# What is typed: passage, question, options.
TYPED: dict[str, tuple[str, str, Sequence[str]]] = {
    "nothing": ("", "", ()),
    "no passage": ("", "誰？", FOUR),
    "white space for a passage": (" \n\t", "誰？", FOUR),
    "invisible characters for a passage": ("\u200b\ufeff", "誰？", FOUR),
    "no question": ("文", "", FOUR),
    "control characters for a question": ("文", "\x00\x01", FOUR),
    "no options": ("文", "誰？", ()),
    "one option": ("文", "誰？", ("甲",)),
    "one option, the last": ("文", "誰？", ("", "", "", "", "", "", "", "甲")),
    "white space for options": ("文", "誰？", (" ", "\n", "　", "甲")),
    "an option twice": ("文", "誰？", ("甲", "乙", "甲 ")),
    "a passage too long": (LONG, "誰？", FOUR),
    "a question too long": ("文", LONG, FOUR),
    "an option too long": ("文", "誰？", ("甲", LONG)),
    "all too long": (LONG, LONG, (LONG, LONG)),
    "two options twice": ("文", "誰？", ("甲", "乙", "甲", "乙")),
    "half a character in each text": ("文\ud83d", "誰\udc00？", ("甲\ud83d", "乙")),
    "more than the model has positions": ("文", "誰" * 9000, FOUR),
}
# What is pasted in one piece.
PASTED = {
    "nothing": "",
    "white space": " \n ",
    "no options": "一段文章。\n誰在睡覺？",
    "one option": "一段文章。\n誰在睡覺？\n(A) 貓",
    "options alone": "1: 貓\n2: 狗",
    "question and options alone": "誰在睡覺？\n1: 貓\n2: 狗",
    "options that do not begin": "文。\n誰？\n(B) 貓\n(C) 狗",
    "nine options": "文。\n誰？\n" + "\n".join(f"{number}: 貓{number}" for number in range(1, 10)),
    "mixed marks": "文。\n誰？\n(A) 貓\n② 狗",
    "numbers in a text": "氣溫 1.5 度，2.5 公里。\n多遠？",
    "half a character": "文\ud83d。\n誰？\n(A) 貓\n(B) 狗",
    "sixty thousand marks": "1: " * 60_000,
    "a hundred thousand empty lines": "文" + "\n" * 100_000 + "章",
    "HTML": "<script>alert(1)</script>",
}


def files(folder: Path) -> Iterator[Path]:
    """What is uploaded."""

    def put(name: str, content: bytes) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    yield put("empty.xlsx", b"")
    yield put("text.xlsx", "這不是活頁簿".encode())
    yield put("zip.xlsx", b"PK\x03\x04" + b"\0" * 64)
    yield put("empty.csv", b"")
    yield put("big5.csv", b"\xff\xfe\xfd\xfc" * 5)
    yield put("header.csv", "ID,文章,問題,選項1,選項2\n".encode())
    yield put("other.csv", "姓名,電話\n小明,123\n".encode())
    yield put("null_sign.csv", "ID,文章,問題,選項1,選項2\n1,文\0,誰,甲,乙\n".encode())
    yield put("quotes.csv", 'ID,文章,問題,選項1,選項2\n1,"文,誰,甲,乙\n'.encode())
    yield put("empty.json", b"")
    yield put("list.json", b"[]")
    yield put("object.json", b'{"a": 1}')
    yield put("half_characters.json", b'[{"\\ud83d": "\\ud83d"}]')
    yield put("broken.json", b'[{"instruction": ')
    yield put("lines.jsonl", b"not json\n")
    yield put("picture.png", b"\x89PNG\r\n\x1a\n")
    yield put("report.docx", b"PK\x03\x04")
    yield put("old.xls", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 512)
    yield put("picture.txt", b"\x89PNG\r\n\x1a\n")
    yield write_xlsx(folder / "same_ids.xlsx", [test_row(1), test_row(1)], TEST)
    yield write_xlsx(folder / "no_ids.xlsx", [[None, *test_row(1)[1:]]], TEST)
    yield write_xlsx(folder / "bad_answer.xlsx", [row(1), row(2, 正確答案=9)], LABELLED)
    yield write_xlsx(folder / "blank_question.xlsx", [row(1), row(2, 問題="")], LABELLED)
    yield write_xlsx(folder / "no_rows.xlsx", [], LABELLED)


class Page:
    """The page's own requests, without a browser."""

    def __init__(self, address: str, language: str) -> None:
        self.address, self.language = address, language
        config = json.loads(self._fetch("/config"))
        self.functions = config["dependencies"]
        self.ids = {one["props"].get("elem_id"): one["id"] for one in config["components"]}

    def call(self, name: str, data: list[Any]) -> list[Any]:
        """What happens at a click on a button."""
        target = [self.ids[name], "click"]
        (number,) = [n for n, one in enumerate(self.functions) if target in one["targets"] and one["backend_fn"]]
        session = uuid.uuid4().hex
        self._fetch("/gradio_api/queue/join", {"data": data, "fn_index": number, "session_hash": session})
        for line in self._fetch(f"/gradio_api/queue/data?session_hash={session}").splitlines():
            event = json.loads(line.removeprefix("data: ")) if line else {}
            if event.get("msg") == "process_completed":
                assert event["success"], event
                return list(event["output"]["data"])
        raise AssertionError("no reply")

    def upload(self, path: Path) -> dict[str, Any]:
        """A file as an input."""
        mark = uuid.uuid4().hex
        head = f'--{mark}\r\nContent-Disposition: form-data; name="files"; filename="{path.name}"\r\n\r\n'
        body = head.encode() + path.read_bytes() + f"\r\n--{mark}--\r\n".encode()
        kind = {"Content-Type": f"multipart/form-data; boundary={mark}"}
        request = urllib.request.Request(f"{self.address}/gradio_api/upload", body, kind)
        (place,) = json.load(urllib.request.urlopen(request, timeout=SECONDS))
        return {"path": place, "orig_name": path.name, "meta": {"_type": "gradio.FileData"}}

    def _fetch(self, place: str, body: Any = None) -> str:
        headers = {"Accept-Language": self.language, "Content-Type": "application/json"}
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.address + place, content, headers)
        return str(urllib.request.urlopen(request, timeout=SECONDS).read().decode())


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Page, Page]]:
    model = save_base(tmp_path_factory.mktemp("model") / "model")
    folder = tmp_path_factory.mktemp("server")
    with serving(["-m", "lrc", "app", "--model", str(model), *ASKED, "--port", "0"], folder) as (_, address):
        yield Page(address, "en-US,en;q=0.9"), Page(address, "zh-TW,zh;q=0.9")
        raised = re.findall(r"^\S*(?:Error|Exception)\b.*", (folder / "server.txt").read_text(), flags=re.MULTILINE)
        assert all("was not uploaded by a user" in line for line in raised), raised


def lines(shown: str) -> list[str]:
    assert 'role="alert"' in shown, shown
    assert "<script" not in shown
    return [html.unescape(line) for line in re.findall(r"<li>(.*?)</li>", shown, flags=re.DOTALL)]


def check(english: str, chinese: str) -> None:
    """The same lines in both languages, each with what is wrong and what to do."""
    one, other = lines(english), lines(chinese)
    assert len(one) == len(other) >= 1
    assert 'lang="zh-Hant"' in chinese and 'lang="en"' in english
    for line, translated in zip(one, other, strict=True):
        assert line != translated and re.search("[；：]", translated), translated
        # What another library said of a file stands in brackets.
        ours = re.sub("（.*?）", "", translated)
        assert not re.search(r"\b(is|the|expected|not|with)\b", ours), translated


@pytest.mark.parametrize("name", TYPED)
def test_what_is_typed_wrongly(pages: tuple[Page, Page], name: str) -> None:
    passage, question, options = TYPED[name]
    boxes = [passage, question, *options, *[""] * (8 - len(options))]
    check(*(page.call("ask", boxes)[0] for page in pages))


@pytest.mark.parametrize("name", PASTED)
def test_what_is_pasted_wrongly(pages: tuple[Page, Page], name: str) -> None:
    check(*(page.call("fill", [PASTED[name], None])[0] for page in pages))


def test_what_is_uploaded_wrongly(pages: tuple[Page, Page], tmp_path: Path) -> None:
    found = list(files(tmp_path))
    assert len(found) + len(TYPED) + len(PASTED) >= 40
    for path in found:
        shown = [page.call("ask-all", [page.upload(path)])[0] for page in pages]
        assert path.name in shown[0], (path.name, shown[0])
        check(*shown)
        # A visitor cannot give a flag of the command line.
        for flag in set(re.findall(r"--\w+", shown[0])):
            assert any("for this page" in line for line in lines(shown[0]) if flag in line), (path.name, shown[0])
    check(*(page.call("ask-all", [None])[0] for page in pages))


def test_a_passage_that_was_shortened_is_told_beside_the_answer(pages: tuple[Page, Page]) -> None:
    for page, told in zip(
        pages, ("The passage is too long for this model", "文章太長，超過這個模型能讀的長度"), strict=True
    ):
        for passage, shortened in (("天氣很好。" * 2000, True), ("天氣很好。", False)):
            shown = page.call("ask", [passage, "誰？", *FOUR, *[""] * 4])[0]
            assert 'class="bars"' in shown and (told in shown) is shortened


def test_every_fault_of_a_question_is_a_line(pages: tuple[Page, Page]) -> None:
    def told(name: str) -> list[str]:
        passage, question, options = TYPED[name]
        return lines(pages[0].call("ask", [passage, question, *options, *[""] * (8 - len(options))])[0])

    same = "Options (選項): {} and {} have the same text; change one"
    assert told("two options twice") == [same.format(1, 3), same.format(2, 4)]
    half = "{}: character {} is half of one (an unpaired surrogate); remove it, or type it again"
    fields = {"Passage (文章)": 2, "Question (問題)": 2, "Option 1": 2}
    assert told("half a character in each text") == [half.format(*one) for one in fields.items()]


@pytest.mark.parametrize("name", ["ask", "ask-all"])
def test_a_request_reads_no_file_of_the_server(pages: tuple[Page, Page], tmp_path: Path, name: str) -> None:
    secret = write_xlsx(tmp_path / "secret.xlsx", [test_row(1), test_row(2)], TEST)
    named = {"path": str(secret), "orig_name": "a.xlsx", "meta": {"_type": "gradio.FileData"}}
    with pytest.raises(AssertionError, match="'success': False"):
        pages[0].call(name, [named] if name == "ask-all" else [named, *[""] * 9])


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'{"data": [], "fn_index": 9999, "session_hash": "x"}', "application/json"),
        (b'{"data": [], "fn_index": -1, "session_hash": "x"}', "application/json"),
        (b"{", "application/json"),
        (b"[]", "application/json"),
        (b"hello", "text/plain"),
        (b"", ""),
    ],
)
def test_a_request_that_no_page_sends_is_a_line(pages: tuple[Page, Page], body: bytes, kind: str) -> None:
    told = []
    for page in pages:
        headers = {"Accept-Language": page.language, "Content-Type": kind}
        request = urllib.request.Request(f"{page.address}/gradio_api/queue/join", body, headers)
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=SECONDS)
        assert refused.value.code == 400
        told.append(json.load(refused.value)["detail"])
    assert told == [
        "request: is not one that this page sends; reload the page",
        "請求：不是這個網頁會送出的；請重新載入網頁",
    ]


def test_a_request_has_the_server_fetch_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradio would download a web address that stands in place of an uploaded file, whatever the component."""
    from gradio import processing_utils

    from lrc.answering.app.page import make_site

    fetched: list[str] = []

    async def fetch(address: str, cache_dir: str) -> str:
        fetched.append(address)
        return str(write_xlsx(Path(cache_dir) / "a.xlsx", [test_row(1)], TEST))

    monkeypatch.setattr(processing_utils, "async_ssrf_protected_download", fetch)
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    session: Any = None  # no handler runs
    site = make_site(session, ["tiny"], tmp_path)
    (blocks,) = [route.app.get_blocks() for route in site.routes if hasattr(getattr(route, "app", None), "get_blocks")]
    named = {"path": "https://example.org/a.xlsx", "orig_name": "a.xlsx", "meta": {"_type": "gradio.FileData"}}
    refused = 0
    for function in blocks.fns.values():
        for place in range(len(function.inputs)):
            inputs = [named if place == other else None for other in range(len(function.inputs))]
            try:
                asyncio.run(blocks.preprocess_data(function, inputs, None))
            except ValueError as error:
                refused += "a web address in place of a file" in str(error)
    assert not fetched and refused >= 10
