"""The page of `lrc report` in a real browser: filters, languages, keyboard, screen reader, phone and dark theme."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import DESKTOP, PHONE, chromium, complaints
from report_runs import ATTACK, make_run, outcome

from lrc.commands.report import report
from lrc.metrics.predictions import OUTCOMES_FILE, write_outcomes


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run <b>1")


@pytest.fixture
def desktop(run_dir: Path) -> Iterator[Any]:
    """The page in a wide window."""
    report(run_dir)
    with chromium(size=DESKTOP) as browser:
        browser.get((run_dir / "report.html").as_uri())
        yield browser


def shown(browser: Any) -> list[str]:
    """The headings of the wrong answers in view, in order."""
    script = (
        "return [...document.querySelectorAll('.mistake h3')]"
        ".filter((e) => e.checkVisibility()).map((e) => e.innerText)"
    )
    return list(browser.execute_script(script))


def test_browser_runs_nothing_of_the_data_and_fetches_nothing(desktop: Any) -> None:
    assert desktop.execute_script("return window.broken") is None
    assert desktop.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert complaints(desktop) == []
    assert ATTACK in desktop.execute_script("return document.querySelector('.passage').textContent")
    # The policy holds even for a script that gets into the page in another way.
    desktop.execute_script("document.body.setAttribute('onclick', 'window.broken=1'); document.body.click()")
    assert desktop.execute_script("return window.broken") is None


def test_mistakes_are_filtered_hardest_first(desktop: Any) -> None:
    # The best baseline always answers 2, which is wrong for the fifth: harder, though the model gave its answer more.
    assert shown(desktop) == ["攻擊題", "第5題：小明在做什麼？", "第6題：小明在做什麼？"]
    desktop.find_element("id", "search").send_keys("燈塔")
    assert shown(desktop) == ["第6題：小明在做什麼？"]
    assert desktop.find_element("css selector", "[role=status]").text == "1 / 3 shown"
    desktop.find_element("id", "search").clear()
    desktop.find_element("css selector", "[name=prediction][value='1']").send_keys(" ")
    assert shown(desktop) == ["攻擊題", "第6題：小明在做什麼？"]
    desktop.find_element("css selector", "[name=answer][value='4']").send_keys(" ")
    assert shown(desktop) == []
    assert desktop.find_element("id", "none").is_displayed()


def test_language_changes_by_keyboard_and_is_remembered(desktop: Any) -> None:
    title = desktop.find_element("id", "recipe")
    assert title.text == "Recipe"
    desktop.find_element("id", "english").send_keys("\ue014")  # arrow right
    assert title.text == "訓練設定"
    desktop.refresh()
    assert desktop.find_element("id", "recipe").text == "訓練設定"
    assert desktop.execute_script("return document.documentElement.lang") == "zh-Hant"


def test_keyboard_starts_at_the_skip_link(desktop: Any) -> None:
    desktop.find_element("tag name", "body").send_keys("\ue004")  # tab
    link = desktop.switch_to.active_element
    assert link.text == "Skip to the content" and link.rect["x"] >= 0
    outline = desktop.execute_script("return getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    link.send_keys("\ue007")  # enter
    assert desktop.switch_to.active_element.get_attribute("id") == "main"


# What has the keyboard and is, while somebody goes back from the end of the page, under the index.
COVERED = """
scrollTo(0, document.body.scrollHeight);
const index = document.querySelector("nav"), covered = [];
const stops = document.querySelectorAll("main :is(a, button, input, summary, [tabindex='0'])");
for (const stop of [...stops].reverse()) {
  stop.focus();
  if (document.activeElement !== stop) continue;
  if (stop.getBoundingClientRect().top < index.getBoundingClientRect().bottom) covered.push(stop.textContent);
}
return [stops.length, covered];
"""


def test_index_covers_nothing_that_has_the_keyboard(desktop: Any) -> None:
    desktop.set_window_size(1280, 500)
    stops, covered = desktop.execute_script(COVERED)
    assert stops > 10 and covered == []


def test_screen_reader_finds_landmarks_and_names(desktop: Any) -> None:
    nodes = desktop.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    named: dict[str, list[str]] = {}
    for node in nodes:
        if not node["ignored"]:
            name = str(node.get("name", {}).get("value", ""))
            named.setdefault(node["role"]["value"], []).append(name)
    assert {"banner", "navigation", "main", "contentinfo", "search", "status"} <= named.keys()
    assert named["image"] == [
        "Right answers by passage length",
        "Calibration",
        "Loss",
        "Right answers",
        "Learning rate",
    ]
    for role in ("table", "region", "radio", "searchbox", "article", "link"):
        assert named[role] and all(named[role]), role
    ids = desktop.execute_script("return [...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))


def test_index_stays_in_view_and_leads_to_recipe_and_data(desktop: Any) -> None:
    desktop.set_window_size(1280, 400)
    desktop.execute_script("document.getElementById('data').scrollIntoView()")
    assert desktop.execute_script("return document.querySelector('nav').getBoundingClientRect().top") == 0
    desktop.find_element("link text", "Recipe").send_keys("\ue007")
    below = desktop.execute_script(
        "return document.getElementById('recipe').getBoundingClientRect().top"
        " - document.querySelector('nav').getBoundingClientRect().bottom"
    )
    assert 0 <= below < 100  # not behind the index


def test_ten_mistakes_are_seen_and_more_open_by_key_and_by_a_filter(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    wrong = [outcome(row, answer=2, prediction=1, confidence=0.5, passage=f"第{row}章。" * 9) for row in range(2, 32)]
    write_outcomes(folder / OUTCOMES_FILE, wrong, force=True)
    report(folder)
    with chromium(size=(1440, 900)) as browser:
        browser.get((folder / "report.html").as_uri())
        assert len(shown(browser)) == 10
        height = browser.execute_script("return document.documentElement.scrollHeight")
        assert height < 6000
        summary = browser.find_element("css selector", ".more > summary")
        assert summary.text == "20 more wrong answers"
        summary.send_keys("\ue007")
        assert len(shown(browser)) == 30
        assert browser.execute_script("return getComputedStyle(document.activeElement).outlineStyle") == "solid"
        summary.send_keys("\ue007")
        browser.find_element("id", "search").send_keys("第31章")
        assert len(shown(browser)) == 1


CONTRAST = """
const channels = (text) => text.match(/[\\d.]+/g).slice(0, 3).map(Number);
const light = (text) => {
  const [r, g, b] = channels(text).map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const behind = (e) => (getComputedStyle(e).backgroundColor.endsWith(", 0)") ? behind(e.parentElement) : e);
const ratios = {};
for (const selector of ["h1", "header p", "nav a", ".note", "caption", "summary", ".axis", ".right strong", ".place",
  ".chosen strong", ".headline", ".interval", ".lead", ".also", ".more > summary", ".facts dt", ".verdict .note"]) {
  const element = document.querySelector(selector);
  if (!element) continue;
  const pair = [getComputedStyle(element).color, getComputedStyle(behind(element)).backgroundColor].map(light);
  ratios[selector] = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
}
return ratios;
"""


@pytest.mark.parametrize("dark", [False, True])
def test_phone_page_fits_and_is_readable_in_both_themes(run_dir: Path, dark: bool) -> None:
    report(run_dir)
    with chromium(size=PHONE, dark=dark, language="zh-TW") as browser:
        browser.get((run_dir / "report.html").as_uri())
        assert browser.execute_script("return document.documentElement.scrollWidth") <= PHONE[0]
        assert browser.find_element("id", "recipe").text == "訓練設定"
        paper = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert (int(re.findall(r"\d+", paper)[0]) < 64) == dark
        ratios = browser.execute_script(CONTRAST)
    assert min(ratios.values()) >= 4.5, ratios  # WCAG 2.2, 1.4.3


@pytest.mark.parametrize("width", [360, 390, 1440])
@pytest.mark.parametrize("language", ["en-US", "zh-TW"])
def test_no_table_of_a_chart_has_to_be_scrolled(tmp_path: Path, width: int, language: str) -> None:
    folder = make_run(tmp_path / "run")
    sure = (0.26, 0.37, 0.48, 0.59, 0.66, 0.77, 0.88, 1.0)  # ten groups of confidence, many questions in the last
    answers = [outcome(row, row % 4 + 1, row % 4 + 1, sure[row % 8], passage="文" * row) for row in range(2, 1202)]
    write_outcomes(folder / OUTCOMES_FILE, answers, force=True)
    report(folder)
    with chromium(size=(width, 844), language=language) as browser:
        browser.get((folder / "report.html").as_uri())
        browser.execute_script("for (const one of document.querySelectorAll('figure details')) one.open = true")
        rooms = browser.execute_script(
            "return [...document.querySelectorAll('figure .scroll')].map((e) => [e.scrollWidth, e.clientWidth])"
        )
    assert len(rooms) == 5 and all(table <= room for table, room in rooms), rooms


def test_one_of_a_thing_is_not_many_and_thousands_are_parted(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    write_outcomes(
        folder / OUTCOMES_FILE, [outcome(2, answer=1, prediction=2, confidence=0.26, passage="文")], force=True
    )
    report(folder)
    one = (folder / "report.html").read_text(encoding="utf-8")
    for text in (
        "1 question in 1 passage.",
        "1 of 1 answer is wrong.",
        "1 answer whose option",
        "Passage, 1 character",
    ):
        assert text in one.replace("</span>", "\n"), text
    assert not re.search(r"(?<![\d.,])1 (?:questions|answers|passages|characters|steps)\b", one)
    wrong = [outcome(row, answer=1, prediction=2, confidence=0.5, passage="文" * 1234) for row in range(2, 1013)]
    write_outcomes(folder / OUTCOMES_FILE, wrong, force=True)
    report(folder, force=True)
    many = (folder / "report.html").read_text(encoding="utf-8")
    assert "1,011 questions in 1 passage." in many and "共 1,011 題，1 篇文章。" in many
    assert "1,011 of 1,011 answers are wrong." in many and "Passage, 1,234 characters" in many
