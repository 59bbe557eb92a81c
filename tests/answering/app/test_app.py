"""`lrc app`: the real server with a small model, used in a real browser."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fork_server
import pytest
from app_server import SECONDS, serving
from browser import DESKTOP, PHONE, chromium, complaints, low_contrasts
from openpyxl import load_workbook
from small_models import save_base
from workbooks import TEST, test_row, write_xlsx

pytest.importorskip("gradio", reason="gradio is not installed: pip install '.[app]'")
ROOT = Path(__file__).resolve().parents[3]
SAMPLE = ROOT / "examples/sample_test.xlsx"
ASKED = ["--template", "chinese-alpaca-2", "--answer-style", "digit"]
ATTACK = '"><img src=x onerror="window.broken=1"><script>window.broken=1</script>'


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base(tmp_path_factory.mktemp("model") / "my <b>model")


@pytest.fixture(scope="module")
def address(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    command = ["-m", "lrc", "app", "--model", str(model), *ASKED, "--port", "0"]
    with serving(command, tmp_path_factory.mktemp("server")) as (_, url):
        yield url


@pytest.fixture(scope="module")
def generated(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `lrc generate` makes of the sample's test workbook: answer.csv and scores.jsonl."""
    folder = tmp_path_factory.mktemp("generated")
    words = ["generate", "--model", model, *ASKED, "--data", SAMPLE, "--output", "answer.csv"]
    words += ["--scores", "scores.jsonl"]
    subprocess.run([fork_server.python(), "-m", "lrc", *map(str, words)], cwd=folder, check=True, capture_output=True)
    return folder


@contextmanager
def opened(address: str, **settings: Any) -> Iterator[Any]:
    with chromium(**settings) as browser:
        browser.get(address)
        wait(lambda: find(browser, "header.lrc") and find(browser, "#examples button") and find(browser, ".waiting"))
        yield browser


def wait(happened: Callable[[], Any]) -> Any:
    end = time.monotonic() + SECONDS
    while not (found := happened()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.1)
    return found


# Collects what changes its padding little by little.
WATCH_PADDINGS = """
window.paddings = [];
document.addEventListener("transitionrun", (event) => {
  if (event.propertyName.startsWith("padding") && event.target.querySelector(".lrc")) paddings.push(event.propertyName);
});
"""
# Where the text of an element ends, in CSS pixels from the left.
TEXT_END = (
    "const r = document.createRange(); r.selectNodeContents(arguments[0]); return r.getBoundingClientRect().right"
)
ARROW_RIGHT, TAB = "\ue014", "\ue004"  # as WebDriver writes these keys
# Collects what a screen reader is told.
WATCH_ANNOUNCEMENTS = """
window.announced = [];
new MutationObserver((changes) => {
  for (const { target } of changes) {
    const told = (target.parentElement ?? target).closest("[aria-live], [role=status]") ?? target;
    if (told.matches?.("[aria-live], [role=status]")) announced.push(told.textContent.trim());
  }
}).observe(document.body, { childList: true, subtree: true, characterData: true });
"""


def wait_for_rest(browser: Any) -> None:
    """Until nothing is on its way to another place, size or colour."""
    moving = "return document.getAnimations().filter((one) => one instanceof CSSTransition).length"
    wait(lambda: not browser.execute_script(moving))


def find(browser: Any, selector: str) -> list[Any]:
    return list(browser.find_elements("css selector", selector))


def click(browser: Any, selector: str, number: int = 0) -> None:
    browser.execute_script("arguments[0].click()", find(browser, selector)[number])


def texts(browser: Any, selector: str) -> list[str]:
    script = "return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent.trim())"
    return list(browser.execute_script(script, selector))


def type_in(browser: Any, name: str, text: str) -> None:
    (box,) = find(browser, f"#{name} textarea, #{name} input")
    box.send_keys(text)


def upload(browser: Any, path: Path) -> None:
    click(browser, "button[role=tab]", 1)
    wait(lambda: find(browser, "#file input[type=file]"))[0].send_keys(str(path))
    wait(lambda: find(browser, "#file .file-preview"))
    click(browser, "#ask-all")


def shares(browser: Any, selector: str) -> list[float]:
    return [float(text.partition("%")[0]) for text in texts(browser, selector)]


def test_an_example_is_answered_as_generate_does_in_every_order(address: str, generated: Path) -> None:
    first = json.loads((generated / "scores.jsonl").read_text(encoding="utf-8").splitlines()[0])
    with opened(address, size=DESKTOP) as browser:
        assert texts(browser, "header.lrc h1") == ["my <b>model"]
        click(browser, "#examples button")
        wait(lambda: find(browser, "#option4 textarea, #option4 input")[0].get_attribute("value"))
        click(browser, "#ask")
        wait(lambda: find(browser, "#answer .bars"))
        bars = shares(browser, "#answer .share")
        assert bars == pytest.approx([100 * share for share in first["probabilities"]], abs=0.051)
        assert texts(browser, "#answer .verdict") == [f"Answer: option {first['prediction']}"]
        assert texts(browser, "#answer tbody th") == ["1 2 3 4", "2 3 4 1", "3 4 1 2", "4 1 2 3"]
        assert shares(browser, "#answer tbody tr:first-child td") == bars
        chosen = browser.execute_script("return document.querySelectorAll('#answer tbody td.chosen').length")
        assert chosen == 4
        fetched = browser.execute_script("return performance.getEntriesByType('resource').map((e) => e.name)")
        assert fetched and all(name.startswith(address) for name in fetched)
        assert complaints(browser) == []


def test_what_is_typed_is_shown_and_never_run(address: str) -> None:
    with opened(address) as browser:
        for name, text in {"passage": ATTACK, "question": "攻擊題", "option1": ATTACK, "option2": "乙"}.items():
            type_in(browser, name, text)
        click(browser, "#more")
        wait(lambda: find(browser, "#option5 textarea, #option5 input"))
        type_in(browser, "option5", "戊")
        click(browser, "#ask")
        wait(lambda: find(browser, "#answer .bars"))
        shown = texts(browser, "#answer .bars .text")
        assert shown == [ATTACK, "乙", "blank; never chosen", "blank; never chosen", "戊"]
        assert shares(browser, "#answer .share")[2:4] == [0, 0]
        assert browser.execute_script("return window.broken") is None


def test_a_whole_question_is_pasted_at_once(address: str) -> None:
    with opened(address) as browser:
        click(browser, "#paste button")
        text = "文章：甲在睡覺。乙在唱歌。\n問題：誰在睡覺？\n(A) 甲\n(B) 乙\n(C) 丙\n(D) 丁\n(E) 戊\n答案：A"
        wait(lambda: find(browser, "#whole textarea"))
        type_in(browser, "whole", text)
        click(browser, "#fill")
        wait(lambda: find(browser, "#option5 textarea, #option5 input"))
        boxes = ("passage", "question", *(f"option{n}" for n in range(1, 6)))
        shown = [find(browser, f"#{name} textarea, #{name} input")[0].get_attribute("value") for name in boxes]
        assert shown == ["甲在睡覺。乙在唱歌。", "誰在睡覺？", "甲", "乙", "丙", "丁", "戊"]


def test_why_a_pasted_text_is_refused_comes_into_view_on_a_phone(address: str) -> None:
    with opened(address, size=PHONE) as browser:
        click(browser, "#paste button")
        wait(lambda: find(browser, "#whole textarea"))
        type_in(browser, "whole", "誰在睡覺？")
        click(browser, "#fill")
        (told,) = wait(lambda: find(browser, "#answer .findings"))
        place = "return arguments[0].getBoundingClientRect().bottom <= innerHeight"
        wait(lambda: browser.execute_script(place, told))


def test_the_box_that_has_the_keyboard_is_outlined(address: str) -> None:
    with opened(address) as browser:
        type_in(browser, "question", "甲")
        outline = "const s = getComputedStyle(document.activeElement); return [s.outlineStyle, s.outlineColor]"
        style, colour = browser.execute_script(outline)
    # WCAG 2.2, 1.4.11: blue on white, well beyond a contrast of 3.
    assert (style, colour) == ("solid", "rgb(37, 99, 235)")


def test_what_is_missing_is_a_line_each(address: str) -> None:
    with opened(address) as browser:
        type_in(browser, "option1", "甲")
        click(browser, "#ask")
        wait(lambda: find(browser, "#answer .findings"))
        lines = texts(browser, "#answer .findings li")
        fields = ["Passage (文章)", "Question (問題)", "Options (選項)"]
        assert [line.partition(":")[0] for line in lines] == fields
        assert lines[2] == "Options (選項): 1 with text, expected 2 to 8; fill in more"
        type_in(browser, "passage", "文")  # another question: what was said of the last one is gone
        wait(lambda: not find(browser, "#answer .findings"))


def test_an_answer_on_its_way_is_dropped_when_the_question_changes(address: str) -> None:
    slow = """for (const [n, box] of [...document.querySelectorAll("#passage,#question,[id^=option]")].entries()) {
      const text = box.querySelector("textarea, input");
      text.value = n + "文".repeat(19000);
      text.dispatchEvent(new Event("input", { bubbles: true }));
    }"""
    with opened(address) as browser:
        browser.execute_script(slow)
        wait_for_rest(browser)
        click(browser, "#ask")
        type_in(browser, "question", "甲")
        time.sleep(5)  # longer than it takes
        assert texts(browser, "#answer .verdict") == []
        click(browser, "#ask")  # it goes on
        assert wait(lambda: texts(browser, "#answer .verdict")) == ["Not answered"]


def test_a_workbook_becomes_the_csv_of_generate(address: str, generated: Path, tmp_path: Path) -> None:
    with opened(address) as browser:
        behaviour = {"behavior": "allow", "downloadPath": str(tmp_path)}
        browser.execute_cdp_cmd("Browser.setDownloadBehavior", behaviour)
        upload(browser, SAMPLE)
        wait(lambda: find(browser, "#told .counts"))
        assert texts(browser, "#told .verdict") == ["12 questions answered"]
        wait(lambda: find(browser, "#download"))
        click(browser, "#download")
        wait(lambda: list(tmp_path.glob("*.csv")))
        listed = texts(browser, "#told .answers tbody td:nth-of-type(2)")
        counts = texts(browser, "#told .counts strong")
        click(browser, "#download_workbook")
        wait(lambda: list(tmp_path.glob("*.xlsx")))
    (csv,) = tmp_path.glob("*.csv")
    (book,) = tmp_path.glob("*.xlsx")
    expected = (generated / "answer.csv").read_bytes()
    assert csv.read_bytes() == expected
    assert len({line.split(b",")[1] for line in expected.splitlines()[1:]}) > 1, "a model that always says the same"
    answers = [line.split(",")[1] for line in expected.decode().splitlines()[1:]]
    assert [text.split()[0] for text in listed] == answers
    assert counts == [str(answers.count(number)) for number in "1234"] and "0" in counts
    sheet = load_workbook(book).active
    columns = {cell.value: cell.column for cell in sheet[1]}
    filled = [sheet.cell(row, columns["預測答案"]).value for row in range(2, sheet.max_row + 1)]
    assert [str(value) for value in filled] == answers


def test_a_bad_workbook_is_a_line_a_finding(address: str, tmp_path: Path) -> None:
    bad = write_xlsx(tmp_path / "bad <i>.xlsx", [test_row(1), test_row(1), test_row(1)], TEST)
    with opened(address) as browser:
        upload(browser, bad)
        wait(lambda: find(browser, "#told .findings"))
        lines = texts(browser, "#told .findings li")
        assert len(lines) == 2 and all("題號 is 1, which row 2 has too" in line for line in lines)
        assert not find(browser, "#download")


@pytest.mark.parametrize(("language", "expected"), [("zh-TW", "作答"), ("zh-HK", "Answer"), ("de-DE", "Answer")])
def test_the_page_speaks_one_language_and_fits_a_phone(address: str, language: str, expected: str) -> None:
    with opened(address, size=PHONE, dark=True, language=language) as browser:
        assert texts(browser, "#ask") == [expected]
        waiting = {"作答": "答案會顯示在這裡。", "Answer": "The answer will be shown here."}[expected]
        assert texts(browser, ".waiting") == [waiting]
        browser.execute_script(WATCH_ANNOUNCEMENTS)
        browser.execute_script(WATCH_PADDINGS)
        click(browser, "#examples button", 1)
        wait(lambda: find(browser, "#passage textarea")[0].get_attribute("value"))
        click(browser, "#ask")
        wait(lambda: find(browser, "#answer .bars"))
        wait_for_rest(browser)
        assert browser.execute_script("return innerWidth") == PHONE[0]
        assert browser.execute_script("return document.documentElement.scrollWidth") <= PHONE[0]
        # Probabilities in their widest spelling, too, which a model that is always sure has.
        browser.execute_script("for (const one of document.querySelectorAll('.scroll td')) one.textContent = '100.0%'")
        table, room = browser.execute_script(
            "return ((e) => [e.scrollWidth, e.clientWidth])(document.querySelector('.scroll'))"
        )
        assert table <= room
        assert browser.execute_script("return window.paddings") == []  # the answer has its width from the first frame
        done = {"作答": "已完成", "Answer": "Done"}[expected]
        wait(lambda: done in browser.execute_script("return window.announced"))  # not the name of a text
        first, second = find(browser, "button[role=tab]")
        first.send_keys(ARROW_RIGHT)
        (place,) = wait(lambda: find(browser, "#file button"))
        wait(lambda: place.accessible_name.split() == place.text.split())  # in the language of what is shown
        assert browser.switch_to.active_element == second
        second.send_keys(TAB)
        assert browser.switch_to.active_element == place
        find(browser, "#file input[type=file]")[0].send_keys(str(SAMPLE))
        (remove,) = wait(lambda: find(browser, "#file .icon-button"))
        edge = browser.execute_script(TEXT_END, find(browser, "#file label")[0])
        assert edge <= remove.rect["x"]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_and_boxes_have_enough_contrast(address: str, dark: bool) -> None:
    with opened(address, size=DESKTOP, dark=dark) as browser:
        click(browser, "#paste button")
        click(browser, "#examples button")
        wait(lambda: find(browser, "#passage textarea")[0].get_attribute("value"))
        click(browser, "#ask")
        wait(lambda: find(browser, "#answer .bars"))
        assert low_contrasts(browser) == []
        upload(browser, SAMPLE)
        wait(lambda: find(browser, "#told .answers"))
        assert low_contrasts(browser) == []


def test_sigterm_ends_it_and_nothing_is_left(model: Path, tmp_path: Path) -> None:
    command = ["-m", "lrc", "app", "--model", str(model), *ASKED, "--port", "0"]
    with serving(command, tmp_path, TMPDIR=str(tmp_path)) as (server, url):
        assert url.startswith("http://127.0.0.1:")
        assert urllib.request.urlopen(url, timeout=SECONDS).status == 200
        assert list(tmp_path.glob("lrc-app-*"))
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=SECONDS) == 143
    assert not list(tmp_path.glob("lrc-app-*"))
    assert "Traceback" not in (tmp_path / "server.txt").read_text()


def test_the_space_serves_the_same_page(model: Path, tmp_path: Path) -> None:
    program = str(ROOT / "examples/space/app.py")
    settings = {"LRC_MODEL": str(model), "LRC_TEMPLATE": "plain", "LRC_ANSWER_STYLE": "digit", "LRC_VOTES": "2"}
    where = {"GRADIO_SERVER_NAME": "127.0.0.1", "GRADIO_SERVER_PORT": "0"}
    with serving([program], tmp_path, **settings, **where) as (_, url):
        page = urllib.request.urlopen(url, timeout=SECONDS).read().decode()
        assert "gradio_config" in page and "lrc_ask_all" in page
    done = subprocess.run(
        [sys.executable, program], capture_output=True, text=True, env={**os.environ, "LRC_MODEL": ""}
    )
    assert done.returncode == 1 and done.stderr.startswith("LRC_MODEL is not set") and done.stderr.count("\n") == 1


def test_a_port_that_is_taken_is_a_line_before_the_model_is_loaded(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        words = ["app", "--model", str(tmp_path / "missing"), "--port", port]
        done = subprocess.run([sys.executable, "-m", "lrc", *words], capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"app: 127.0.0.1 port {port}: ") and line.endswith("choose another --host or --port")


def test_without_gradio_it_is_a_line(tmp_path: Path) -> None:
    program = "import sys; sys.modules['gradio'] = None; from lrc.cli import main; main(['app', '--model', 'm'])"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["app: gradio is not installed; pip install 'lora-reading-comprehension[app]'"]
