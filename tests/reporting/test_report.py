"""The page about a run: what stands in it, what is left out, and what is refused."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from report_runs import OUTCOMES, TOKEN, make_run
from small_runs import lrc

from lrc.cli import cli
from lrc.commands.report import report
from lrc.data.alpaca import dump_records, to_record
from lrc.metrics.baselines import BASELINES, credit
from lrc.metrics.predictions import OUTCOMES_FILE, write_outcomes
from lrc.metrics.training_log import Point
from lrc.reporting.charts import Line, over_steps
from lrc.reporting.templates import hardware_in_chinese
from lrc.runtime import machine, packages
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
    assert '<p class="figure">40.0%</p>' in text and "(11.8–76.9)" in text  # two of five, Wilson
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
    with pytest.raises(LrcError, match=r"lrc_run.json: not a run file of lrc \(.*\); train again"):
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


def write_scores(path: Path, rights: list[float]) -> Path:
    """The scores of a model that gives the right answers to OUTCOMES these probabilities, and the rest to one other."""
    lines = []
    for one, right in zip(OUTCOMES, rights, strict=True):
        other = one.answer % 3 + 1
        shares = [right if k == one.answer else 1 - right if k == other else 0.0 for k in range(1, 5)]
        prediction = one.answer if right > 0.5 else other
        scores = [math.log(share) if share else None for share in shares]
        line = {"id": one.question.id, "scores": scores, "probabilities": shares, "prediction": prediction}
        lines.append(json.dumps(line) + "\n")
    path.write_text("".join(lines))
    return path


def test_an_evaluation_and_another_model_stand_on_the_page(run_dir: Path, tmp_path: Path) -> None:
    whole = [one for one in OUTCOMES if one.question.options[-1]]
    data = tmp_path / "asked.json"
    data.write_text("".join(dump_records(to_record(one.question) for one in whole)), encoding="utf-8")
    (tmp_path / "all").mkdir()
    keep = [place for place, one in enumerate(OUTCOMES) if one in whole]
    for name, rights in {"mine": [0.4, 0.3, 0.45, 0.9, 0.1], "base": [0.9, 0.1, 0.1, 0.9, 0.9]}.items():
        every = write_scores(tmp_path / "all" / f"{name}.jsonl", rights).read_text().splitlines(keepends=True)
        (tmp_path / f"{name}.jsonl").write_text("".join(every[place] for place in keep))
    words = ["--scores", tmp_path / "mine.jsonl", "--data", data, "--compare-with", tmp_path / "base.jsonl"]
    result = CliRunner().invoke(cli, ["report", str(run_dir), *map(str, words)])
    assert result.exit_code == 0, result.exception
    text = (run_dir / "report.html").read_text(encoding="utf-8")
    assert '<p class="figure">0.0%</p>' in text and "Answers to asked.json." in text
    assert '<th scope="row">base</th><td>50.0%' in text  # of four
    # Hardest first: the mean probability of the right answer, of the model, the other one and the best baseline.
    rows = [int(row) for row in re.findall(r">第 (\d+) 列<", text)]
    questions, answers = [one.question for one in whole], [one.answer for one in whole]
    best = max((credit(choose(questions), answers) for choose in BASELINES.values()), key=sum)
    shares = {
        one.question.row: (mine + base + float(part)) / 3
        for one, mine, base, part in zip(whole, [0.4, 0.3, 0.45, 0.1], [0.9, 0.1, 0.1, 0.9], best, strict=True)
    }
    assert [shares[row] for row in rows] == sorted(shares.values())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--scores", "a.jsonl"], "--scores needs --data"),
        (["--data", "a.json"], "--data needs --scores"),
        (["--train-scores", "a.jsonl"], "--train-scores needs --train-data"),
        (["--train-data", "a.json"], "--train-data needs --train-scores"),
    ],
)
def test_scores_without_their_questions_are_wrong_usage(words: list[str], message: str, run_dir: Path) -> None:
    result = CliRunner().invoke(cli, ["report", str(run_dir), *words])
    assert result.exit_code == 2 and message in result.output


def test_a_model_that_was_asked_otherwise_is_refused(run_dir: Path, tmp_path: Path) -> None:
    other = make_run(tmp_path / "other")
    write_outcomes(other / OUTCOMES_FILE, OUTCOMES[:4], force=True)
    with pytest.raises(DataError, match="1 of its 5 questions are not in .*other"):
        report(run_dir, compare_with=[other])


def test_other_models_whose_folders_are_called_alike_all_stand_on_the_page(run_dir: Path, tmp_path: Path) -> None:
    for place in "xyz":
        (tmp_path / place / "a").mkdir(parents=True)
    report(run_dir, compare_with=[make_run(tmp_path / place / "a" / "run") for place in "xyz"])
    text = (run_dir / "report.html").read_text(encoding="utf-8")
    assert re.findall(r'<th scope="row">(./a/run)</th>', text) == ["x/a/run", "y/a/run", "z/a/run"]


def test_command_hardware_day_and_workbook_are_told_without_folders(run_dir: Path) -> None:
    record = json.loads((run_dir / "lrc_run.json").read_text())
    record["launch"] = {
        "command": "lrc train tiny/lora --lora_r 16",
        "hardware": "2 x NVIDIA H100",
        "date": "2026-11-26",
        "workbooks": {"train_file": {"name": "AI.xlsx", "sha256": "ef" * 32}},
    }
    (run_dir / "lrc_run.json").write_text(json.dumps(record))
    text = re.sub("</?span>", "", page(run_dir))
    for told in ("lrc train tiny/lora --lora_r 16", "2 x NVIDIA H100", "2026-11-26", "AI.xlsx", "ef" * 32):
        assert told in text


@pytest.mark.parametrize(("cards", "processes"), [(0, 1), (0, 2), (1, 1), (2, 2), (2, 8)])
def test_hardware_is_told_in_chinese_where_it_is_not_a_name(
    cards: int, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "_cards", lambda device: (("NVIDIA H100",) * cards, 80 << 30))
    monkeypatch.setattr(machine, "_processor", lambda: "AMD EPYC")
    english = machine.describe_hardware("cuda" if cards else "cpu", processes)
    chinese = hardware_in_chinese(english)
    assert not re.search("[a-z]{2}", chinese) and ("NVIDIA H100" if cards else "AMD EPYC") in chinese
    assert re.findall(r"\d+", chinese) == re.findall(r"\d+", english)


def test_untrained_accuracy_is_told_where_it_was_evaluated(run_dir: Path) -> None:
    first = {"step": 0, "eval_accuracy": 0.25, "eval_ci_low": 0.1, "eval_ci_high": 0.5}
    lines = (run_dir / "metrics.jsonl").read_text()
    (run_dir / "metrics.jsonl").write_text(json.dumps(first) + "\n" + lines)
    assert "untrained, in validation" in page(run_dir)
    (run_dir / "metrics.jsonl").write_text(lines)
    assert "untrained, in validation" not in page(run_dir)


def test_a_single_evaluation_has_its_error_bar_and_the_loss_a_logarithmic_axis() -> None:
    def ends(drawing: str) -> list[float]:
        """The lengths of the vertical lines."""
        found = re.findall(r'd="M ([\d.]+) ([\d.]+) +L ([\d.]+) ([\d.]+) +"[^>]*stroke: var\(--first\)', drawing)
        return [abs(float(y2) - float(y1)) for x1, y1, x2, y2 in found if x1 == x2]

    one = over_steps("a", [Line((Point(5, 0.5, 0.4, 0.6),), marked=True)], shares=True)
    wide = over_steps("a", [Line((Point(5, 0.5, 0.3, 0.7),), marked=True)], shares=True)
    assert max(ends(wide)) == pytest.approx(2 * max(ends(one)), rel=0.01)
    curve = tuple(Point(step, 10.0**-step) for step in range(4))
    drawn = over_steps("b", [Line(curve)], logarithmic=True)
    (points,) = re.findall(r'd="(M [^"]+)"[^>]*stroke: var\(--first\); stroke-width: 2;', drawn)
    heights = [float(y) for y in re.findall(r"[ML] [\d.]+ ([\d.]+)", points)]
    steps = [after - before for before, after in pairwise(heights)]
    assert len(heights) == 4 and steps == pytest.approx([steps[0]] * 3, rel=0.01)  # equal factors, equal room
