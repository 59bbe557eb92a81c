"""What the documentation says is so: commands run, links lead somewhere, and generated pages are current.

Commands are the lines of `bash` blocks. Those of make and those whose comment says GPU or Hub are not run.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_type_hints

import fork_server
import pytest
import yaml
from page_commands import RUN, inline, lines
from questions import ask

from lrc.cli import cli
from lrc.commands.evaluate import measure
from lrc.config import run_record as run
from lrc.config.arguments import DataArguments
from lrc.config.recipe_choice import BY_CARD, describe_recipe
from lrc.config.schema import shipped_schema
from lrc.config.synonyms import cure
from lrc.data.alpaca import to_record
from lrc.data.sources import read_records
from lrc.metrics.baselines import BASELINES
from lrc.models.tiny import make_base
from lrc.tokenization import prompt

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
README, TUTORIAL = ROOT / "README.md", DOCS / "tutorial.md"
CHINESE = ROOT / "README.zh-TW.md"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.glob("*.md"), *ROOT.glob("examples/**/*.md")])
# Pages that are there in Chinese, too, by their English ones.
TRANSLATED = [page.with_name(page.name.replace(".zh-TW", "")) for page in PAGES if ".zh-TW" in page.name]
ELSEWHERE = re.compile(r"#.*\b(GPU|Hub)\b")
FENCED = re.compile(r"^```.*?^```", flags=re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def commands(page: Path) -> list[str]:
    """The commands of a page, continued lines joined."""
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return [line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines() if line.strip()]


def runnable(page: Path) -> list[str]:
    return [line for line in commands(page) if not ELSEWHERE.search(line) and not line.startswith("make ")]


def verbs(page: Path) -> set[str]:
    return {line.split()[1] for line in runnable(page) if line.startswith("lrc ")}


def without_comment(line: str) -> str:
    return " ".join(line.partition(" #")[0].split())


def anchors(page: Path) -> set[str]:
    """What can be linked to in a page: its headings, as they are shown on GitHub."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", page.read_text(encoding="utf-8")), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def shell(line: str, folder: Path) -> None:
    """Run a command in bash, with the lrc and the python of this environment first on the path."""
    places = [str(fork_server.programs()), str(Path(sys.executable).parent), os.environ["PATH"]]
    environment = os.environ | {"PATH": os.pathsep.join(places)}
    done = subprocess.run(["bash", "-c", line], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, (line, done.stderr[-2000:])


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The user's folder: what of a clone the commands read, and the sample under the README's names."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    shutil.copy(ROOT / "examples" / "sample.xlsx", tmp_path / "AI.xlsx")
    shutil.copy(ROOT / "examples" / "sample_test.xlsx", tmp_path / "AI1000.xlsx")
    return tmp_path


@pytest.fixture
def trained(clone: Path) -> Path:
    """The same with an adapter where the README's training, which wants a GPU, puts it."""
    make_base(clone / "base", [record.input for record in read_records(clone / "AI.xlsx")])
    shell("lrc convert AI.xlsx --output-dir stand_in", clone)
    files = "--train_file stand_in/AI_train.json --validation_file stand_in/AI_validation.json"
    keys = f"--model_name_or_path base {files} --output_dir runs/qwen3-8b-qlora --max_steps 2"
    shell(f"lrc train tiny/lora {keys}", clone)
    return clone


def test_the_pages_have_commands_of_every_step() -> None:
    assert {"init", "run", "check", "convert", "merge", "evaluate", "generate", "report", "publish"} <= verbs(README)
    assert {"check", "convert", "init", "preview", "train", "evaluate", "merge", "generate"} <= verbs(TUTORIAL)


def test_every_command_of_the_readme_runs(trained: Path) -> None:
    shutil.rmtree(trained / "examples")  # `lrc init` writes it
    for line in runnable(README):
        # What the page trains for some minutes is trained for a few steps here.
        shell(f"{line} --max_steps 4" if line.startswith("lrc run") else line, trained)
    assert (trained / "out" / "answer.csv").read_text(encoding="utf-8").startswith("ID,Answer\n")


@pytest.mark.parametrize("name", sorted({*RUN} - {"README.md", "docs/tutorial.md"}))
def test_every_command_of_the_other_pages_runs(name: str, trained: Path) -> None:
    shutil.rmtree(trained / "examples")  # `lrc init` writes it
    for line in runnable(ROOT / name):
        shell(f"{line} --max_steps 4" if line.startswith("lrc run") else line, trained)


def test_the_readme_shows_the_sizes_that_doctor_says() -> None:
    for page in (README, CHINESE):
        rows = re.findall(r"^\| [^|]+ \| `([\w./-]+)` \| ([\d.]+) GB \|", page.read_text("utf-8"), flags=re.MULTILINE)
        assert {recipe for _, recipe in BY_CARD} - {"qwen3-0.6b/lora"} <= {recipe for recipe, _ in rows}
        for recipe, gigabytes in rows:
            assert float(gigabytes) == pytest.approx(describe_recipe(recipe).download / 1e9, abs=0.06), recipe


@pytest.mark.parametrize("page", [README, CHINESE], ids=lambda page: page.name)
def test_the_readme_shows_the_hours_that_are_computed_for_each_card(page: Path) -> None:
    """Minutes an epoch, as results.md has them by card, times the epochs of the recipe."""
    results = (DOCS / "results.md").read_text(encoding="utf-8")
    minutes = {
        (recipe, card): int(found.replace(",", ""))
        for recipe, card, found in re.findall(
            r"^\| `([\w./-]+)` \| ([^|]+?) \| [\d.]+ of [\d.]+ \| [\d,]+ \| ([\d,]+) \|", results, flags=re.MULTILINE
        )
    }
    rows = re.findall(
        r"^\| [^|]+ \| `([\w./-]+)` \|(?: [\d.]+ GB \|){2} ([^|]+?) \|", page.read_text("utf-8"), flags=re.MULTILINE
    )
    shown = [
        (recipe, card, hours)
        for recipe, cell in rows
        for card, hours in re.findall(r"([A-Z][\w ]*?)[:：] ?([\d.]+)", cell)
    ]
    assert len(shown) == 12 and {recipe for recipe, *_ in shown} >= {recipe for _, recipe in BY_CARD[:-1]}
    for recipe, card, hours in shown:
        epochs = yaml.safe_load((ROOT / "recipes" / f"{recipe}.yaml").read_text(encoding="utf-8"))["num_train_epochs"]
        assert float(hours) == pytest.approx(minutes[recipe, card] * epochs / 60, abs=0.051), (recipe, card)


def test_every_command_of_the_tutorial_runs(clone: Path) -> None:
    for line in runnable(TUTORIAL):
        # What the page trains for a minute is trained for a few steps here.
        shell(f"{line} --max_steps 4" if line.startswith("lrc train") else line, clone)
    assert (clone / "tutorial" / "answer.csv").read_text(encoding="utf-8").startswith("ID,Answer\n")


@pytest.mark.parametrize("chosen", [commands, runnable])
@pytest.mark.parametrize("page", TRANSLATED, ids=lambda page: page.name)
def test_the_chinese_page_has_the_same_commands(page: Path, chosen: Callable[[Path], list[str]]) -> None:
    chinese = page.with_suffix(".zh-TW.md")
    assert [without_comment(line) for line in chosen(chinese)] == [without_comment(line) for line in chosen(page)]


def outline(page: Path) -> list[str]:
    """What a page is made of, whatever its language: headings, tables by their shape, lists, links and blocks."""
    text = page.read_text(encoding="utf-8")
    kinds = []
    for line in re.sub(r"```\w*\n.*?```", "block", text, flags=re.DOTALL).splitlines():
        if heading := re.match(r"#+ |- |!\[|block", line):
            kinds.append(heading[0])
        elif line.startswith("|"):
            kinds.append("|" * line.count("|"))
    return kinds


def targets(page: Path) -> set[str]:
    """The pages and places that a page links to, whatever their language; headings are called otherwise in each."""
    links = LINK.findall(page.read_text(encoding="utf-8"))
    return {link.partition("#")[0].replace(".zh-TW", "") for link in links} - {""}


@pytest.mark.parametrize("page", TRANSLATED, ids=lambda page: page.name)
def test_the_chinese_page_has_the_same_parts(page: Path) -> None:
    chinese = page.with_suffix(".zh-TW.md")
    assert outline(chinese) == outline(page)
    for found in (lines, inline):
        assert [line.words for line in found(chinese)] == [line.words for line in found(page)]
    assert targets(chinese) == targets(page)


@pytest.mark.parametrize("page", TRANSLATED, ids=lambda page: page.name)
def test_a_page_in_two_languages_is_found_in_both(page: Path) -> None:
    chinese = page.with_suffix(".zh-TW.md")
    heads = [one.read_text(encoding="utf-8").split("\n\n")[1] for one in (page, chinese)]
    assert heads == [f"[繁體中文]({chinese.name})", f"[English]({page.name})"]
    index = DOCS / "README.md"
    shown = os.path.relpath(chinese, index.parent)
    assert f"]({os.path.relpath(page, index.parent)}) ([繁體中文]({shown}))" in index.read_text(encoding="utf-8")


@pytest.mark.parametrize("page", TRANSLATED, ids=lambda page: page.name)
def test_a_chinese_page_leads_to_chinese_pages(page: Path) -> None:
    chinese = page.with_suffix(".zh-TW.md")
    for link in LINK.findall(chinese.read_text(encoding="utf-8")):
        english = (chinese.parent / link.partition("#")[0]).resolve()
        assert english == page or english not in TRANSLATED, link


# Words of China for which Taiwan has others.
WORDS_OF_CHINA = (
    "數據 文件 默認 運行 顯存 質量 內存 硬盤 軟件 硬件 程序 代碼 網絡 信息 視頻 屏幕 服務器 鼠標 加載 保存 優化 "
    "命令行 進程 線程 緩存 端口 打印 調用 字符"
)


@pytest.mark.parametrize("page", TRANSLATED, ids=lambda page: page.name)
def test_a_chinese_page_is_written_as_in_taiwan(page: Path) -> None:
    text = page.with_suffix(".zh-TW.md").read_text(encoding="utf-8")
    assert [word for word in WORDS_OF_CHINA.split() if word in text] == []


@pytest.mark.parametrize("page", [README, CHINESE], ids=lambda page: page.name)
def test_the_table_for_people_from_elsewhere_has_our_keys_and_theirs_are_recognised(page: Path) -> None:
    rows = re.findall(r"^\|(?:[^|]*\|){5}$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    keys = [[re.findall(r"`([a-z_0-9]+)(?::? [^`]*)?`", cell) for cell in row.split("|")[2:6]] for row in rows]
    ours = [row for row in keys if row[3] and set(row[3]) <= {*shipped_schema(), "chat"}]
    assert len(ours) == 8
    for *theirs, here in ours:
        for name in {one for cell in theirs for one in cell} - {*shipped_schema(), "template"}:
            assert any(key in cure(name, shipped_schema()) for key in here), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(FENCED.sub("", page.read_text(encoding="utf-8"))):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists() and target.is_relative_to(ROOT), f"{page.name}: {link}"
        assert not anchor or anchor in anchors(target), f"{page.name}: {link}: no such heading"


def test_every_page_is_in_the_index() -> None:
    linked = set(LINK.findall((DOCS / "README.md").read_text(encoding="utf-8")))
    assert {page.name for page in DOCS.glob("*.md")} - {"README.md"} <= linked


def test_every_recipe_is_among_those_to_choose_from() -> None:
    page = (DOCS / "choosing-a-base.md").read_text(encoding="utf-8")
    shipped = {path.relative_to(ROOT / "recipes").with_suffix("").as_posix() for path in ROOT.glob("recipes/*/*.yaml")}
    assert {f"`{name}`" for name in shipped - {"tiny/lora", "outings/lora"}} <= set(re.findall(r"`[^`]+`", page))


def test_the_page_of_recipe_keys_is_current(tmp_path: Path) -> None:
    for name in ("build_recipes.py", "upstream_keys.yaml"):
        shutil.copy(DOCS / name, tmp_path)
    subprocess.run([fork_server.python(), tmp_path / "build_recipes.py"], check=True, capture_output=True)
    assert (tmp_path / "recipes.md").read_text("utf-8") == (DOCS / "recipes.md").read_text("utf-8")


@pytest.mark.parametrize("drawing", sorted(DOCS.glob("*.svg")), ids=lambda drawing: drawing.name)
def test_a_drawing_can_be_read_in_light_and_dark_and_aloud(drawing: Path) -> None:
    text = drawing.read_text(encoding="utf-8")
    tags = {element.tag.rpartition("}")[2] for element in ElementTree.fromstring(text).iter()}
    assert "prefers-color-scheme: dark" in text and {"title", "desc"} <= tags


@pytest.mark.parametrize("name", ["accuracy.svg", "accuracy.zh-TW.svg"])
def test_the_picture_of_the_readme_shows_the_figures_of_the_results(name: str) -> None:
    shown = re.findall(r"([\d.]+) \(([\d.]+) to ([\d.]+)\)", (DOCS / name).read_text(encoding="utf-8"))
    results = (DOCS / "results.md").read_text(encoding="utf-8")
    assert len(shown) == 5
    for accuracy, low, high in shown:
        assert re.search(rf"\| \**{accuracy}\** \| {low}–{high}", results), "run docs/build_accuracy_chart.py"
    assert f"docs/{name}" in (CHINESE if "zh" in name else README).read_text(encoding="utf-8")


def test_a_template_has_its_three_places() -> None:
    declared = get_args(get_type_hints(DataArguments)["template"])
    assert set(prompt.TEMPLATES) == set(run.TEMPLATE_NAMES) == set(declared)


def test_a_baseline_that_is_added_is_among_the_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BASELINES, "always 1", lambda questions: [(1,), (1, 2)])
    records = [to_record(ask(2, answer=1)), to_record(ask(3, answer=2))]
    found = measure(records, [1, 1], [1, 2])["baselines"]["always 1"]
    assert (found["accuracy"], found["ties"]) == (0.75, 1)


def workflow() -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    return read["jobs"]


def test_the_workflow_runs_what_the_project_runs_itself() -> None:
    job = workflow()["test"]
    named = re.findall(r"Python :: (3\.\d+)", (ROOT / "setup.cfg").read_text(encoding="utf-8"))
    assert list(job["strategy"]["matrix"].values()) == [named]
    local = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert [step["run"] for step in job["steps"] if "run" in step] == re.findall(r"^make .+$", local, re.MULTILINE)


def test_the_workflow_goes_the_whole_way_where_the_tests_cannot_run() -> None:
    job = workflow()["whole-way"]
    named = re.findall(r"Python :: (3\.\d+)", (ROOT / "setup.cfg").read_text(encoding="utf-8"))
    assert job["strategy"]["matrix"]["python"] == [named[0], named[-1]]
    assert {system.partition("-")[0] for system in job["strategy"]["matrix"]["system"]} == {"windows", "macos"}
    for step in job["steps"]:
        program, *words = shlex.split(step.get("run", "true"))
        if program == "lrc":
            cli.commands[words[0]].make_context(words[0], words[1:])
