"""The page about a run: what stands in it, what is left out, and what is refused."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from report_runs import OUTCOMES, TOKEN, make_run
from small_runs import lrc

from lrc.cli import cli
from lrc.commands.report import report
from lrc.metrics.predictions import OUTCOMES_FILE, write_outcomes
from lrc.runtime import packages
from lrc.runtime.errors import DataError, LrcError, OutputError


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run <b>1")


def page(run_dir: Path) -> str:
    """The text of the page about a run."""
    report(run_dir, force=True)
    return (run_dir / "report.html").read_text(encoding="utf-8")


def test_command_writes_the_page_into_the_folder_and_says_where(run_dir: Path) -> None:
    result = CliRunner().invoke(cli, ["report", str(run_dir)])
    assert result.exit_code == 0
    assert result.stdout == f"wrote {run_dir / 'report.html'}\n"
    assert (run_dir / "report.html").read_text().startswith("<!DOCTYPE html>")


def test_existing_page_stays_without_force(run_dir: Path) -> None:
    output = run_dir / "mine.html"
    output.write_text("mine")
    with pytest.raises(OutputError, match=r"mine.html: already exists.*--force"):
        report(run_dir, output=output)
    assert output.read_text() == "mine"
    report(run_dir, output=output, force=True)
    assert "<h1>" in output.read_text()


def test_page_shows_figures_of_curves_answers_recipe_and_data(run_dir: Path) -> None:
    text = page(run_dir)
    assert '<p class="figure">40.0%</p>' in text and "11.8%–76.9%" in text  # two of five, Wilson
    assert "<td>1.25</td>" in text and "<td>NaN</td>" in text
    assert "2.0 min" in text and "2.0 分鐘" in text
    assert "AI_train.json" in text and "ab" * 32 in text and "cd" * 32 in text


def test_page_needs_nothing_from_outside_and_tells_nothing_of_this_machine(run_dir: Path) -> None:
    text = page(run_dir)
    assert not re.findall(r"""(?:src|href)\s*=\s*["']?(?!#)[^"'>\s]+|@import|url\((?!#)""", text.replace("src=x", ""))
    assert "/home/" not in text and str(run_dir.parent) not in text
    assert TOKEN not in text


def test_what_the_data_says_is_text_and_no_markup(run_dir: Path) -> None:
    text = page(run_dir)
    assert "&lt;img src=x onerror=" in text
    assert "<img" not in text and text.count("<script") == 1 and "<b>" not in text


def test_same_run_gives_the_same_bytes(run_dir: Path) -> None:
    assert page(run_dir) == page(run_dir)


def test_charts_take_every_colour_from_the_page(run_dir: Path) -> None:
    charts = re.findall(r"<svg xmlns.*?</svg>", page(run_dir), flags=re.DOTALL)
    assert len(charts) == 5
    assert not [colour for chart in charts for colour in re.findall(r"(?:fill|stroke): ?(#\w+|rgb|black)", chart)]


@pytest.mark.parametrize(
    ("missing", "kept", "gone"),
    [
        ((OUTCOMES_FILE,), 'id="loss-title"', 'id="mistakes"'),
        (("metrics.jsonl",), 'id="mistakes"', 'id="loss-title"'),
        ((OUTCOMES_FILE, "metrics.jsonl"), "has logged nothing yet", "<figure"),
    ],
)
def test_what_a_run_did_not_leave_is_left_out(run_dir: Path, missing: tuple[str, ...], kept: str, gone: str) -> None:
    for name in missing:
        (run_dir / name).unlink()
    text = page(run_dir)
    assert kept in text and gone not in text
    assert "AI_train.json" in text


def test_run_without_a_mistake_says_so(run_dir: Path) -> None:
    write_outcomes(run_dir / OUTCOMES_FILE, OUTCOMES[:2], force=True)
    assert "There is none." in page(run_dir)


def test_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["report", str(tmp_path)])
    assert isinstance(result.exception, DataError)
    assert str(result.exception) == f"{tmp_path}: holds no lrc_run.json; give the output_dir of a training run"
    assert not list(tmp_path.iterdir())


def test_merged_model_is_refused(run_dir: Path, tmp_path: Path) -> None:
    merged = tmp_path / "merged"
    merged.mkdir()
    (merged / "lrc_run.json").write_bytes((run_dir / "lrc_run.json").read_bytes())
    (merged / "config.json").write_text("{}")
    with pytest.raises(
        DataError, match="merged: is a merged model, not a training run; give the output_dir of the training"
    ):
        report(merged)
    assert sorted(file.name for file in merged.iterdir()) == ["config.json", "lrc_run.json"]


@pytest.mark.parametrize("damage", [{"data": ["AI_train.json"]}, {"recipe": "qlora"}, {"data": {"train_file": "x"}}])
def test_damaged_run_file_is_refused(run_dir: Path, damage: dict[str, Any]) -> None:
    path = run_dir / "lrc_run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | damage))
    with pytest.raises(LrcError, match=r"lrc_run.json: (its recipe, data|not a run file of lrc).*; train again"):
        report(run_dir)


def test_missing_matplotlib_is_one_line(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = packages.installed_version
    monkeypatch.setattr(packages, "installed_version", lambda name: None if name == "matplotlib" else found(name))
    assert lrc("report", run_dir) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("matplotlib: is not installed, lrc needs ")
    assert "; run: pip install 'matplotlib" in line
    assert not (run_dir / "report.html").exists()


def test_report_starts_without_torch() -> None:
    code = (
        "import sys, lrc.reporting.page; sys.exit(bool({'torch', 'transformers', 'matplotlib'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
