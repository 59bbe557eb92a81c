"""`lrc report`: writes one HTML page about a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lrc.answering.options import CONFIG
from lrc.config.run_record import METRICS_FILE, RUN_FILE, Run, read_run
from lrc.data.sources import read_labelled
from lrc.metrics.comparison import compare_answers
from lrc.metrics.predictions import OUTCOMES_FILE, Outcome, name_models, read_outcomes, read_predictions
from lrc.metrics.training_log import read_curves
from lrc.reporting.page import Answers, render_report
from lrc.runtime.errors import DataError
from lrc.runtime.findings import print_lines
from lrc.runtime.finished_outputs import DONE, Inputs, content_of, is_finished, refuse_other_output, remember
from lrc.runtime.outputs import new_file, refuse_existing, refuse_file
from lrc.runtime.translation import _


def report(
    run_dir: Path,
    *,
    output: Path | None = None,
    scores: Path | None = None,
    data: Path | None = None,
    compare_with: Sequence[Path] = (),
    train_scores: Path | None = None,
    train_data: Path | None = None,
    force: bool = False,
) -> None:
    """Write a page about the run in `run_dir`, and print its path.

    Curves come from `metrics.jsonl`, everything about answers from `validation_scores.jsonl` or `scores`; what is
    missing is left out. The page works offline, and contains passages of the questions.

    Args:
        run_dir: the `output_dir` of a training, finished or not.
        output: the page; None writes `report.html` into `run_dir`.
        scores: the run's answers to other questions than its validation questions, from `lrc evaluate --scores`.
        data: the labelled questions to which `scores` and `compare_with` belong.
        compare_with: other models' answers to the same questions: files of scores, or folders of runs.
        train_scores: the run's answers to questions on which it was trained.
        train_data: these questions.
        force: overwrite an existing page.

    Raises:
        LrcError: `run_dir` holds no run, its files are damaged, the answers are to other questions, or the output
            exists.
    """
    output = output or run_dir / "report.html"
    asked = {
        **{"run_dir": run_dir, "scores": scores, "data": data, "compare_with": list(compare_with)},
        **{"train_scores": train_scores, "train_data": train_data},
    }
    files = [file for file in (scores, data, *compare_with, train_scores, train_data) if file]
    refuse_file(output, *files, *(run_dir / name for name in (RUN_FILE, METRICS_FILE, OUTCOMES_FILE)), force=True)
    refuse_other_output(output, asked, force=force)
    inputs = _inputs(run_dir, files)
    run = _run(run_dir)
    if (run_dir / CONFIG).is_file() and not (run_dir / METRICS_FILE).is_file():
        raise DataError(
            _(
                "{run_dir}: is a merged model, not a training run; give the output_dir of the training it came from"
            ).format(run_dir=run_dir)
        )
    curves = read_curves(run_dir / METRICS_FILE)
    answers = _read_answers(run_dir, inputs, scores, data, compare_with, train_scores, train_data)
    inputs.refuse_changed()
    if not force and is_finished(output, asked, inputs.key):
        print_lines(DONE.format(output=output))
        return
    refuse_existing(output, force=force)
    page = render_report(run_dir.resolve().name, run, curves, answers)
    with new_file(output, force=force) as temporary:
        # Lone surrogates, which are possible in JSON, become question marks.
        temporary.write_text(page, encoding="utf-8", errors="replace", newline="\n")
        remember(output, asked, inputs.key, content_of(temporary))
    print_lines(_("wrote {output}").format(output=output))


def _read_answers(
    run_dir: Path,
    inputs: Inputs,
    scores: Path | None,
    data: Path | None,
    compare_with: Sequence[Path],
    train_scores: Path | None,
    train_data: Path | None,
) -> Answers:
    """The answers of the run and of other models, to the same questions in the same order."""
    questions = read_labelled(data) if data else []
    own = read_predictions(scores, data, questions) if scores else read_outcomes(run_dir / OUTCOMES_FILE)
    source = scores or run_dir / OUTCOMES_FILE
    if compare_with and not own:
        raise DataError(
            _("{run_dir}: holds no {outcomes_file} to compare with; give --scores and --data").format(
                run_dir=run_dir, outcomes_file=OUTCOMES_FILE
            )
        )
    others: dict[str, list[Outcome]] = {}
    for name, other in zip(name_models(compare_with), compare_with, strict=True):
        theirs = read_predictions(other, data, questions)
        pairs = compare_answers((run_dir.name, name), (source, other), own, theirs).pairs
        others[name] = [second for _own, second in pairs]
    training = []
    if train_scores and train_data:
        training = read_predictions(train_scores, train_data, read_labelled(train_data))
    named = data if scores and data else None
    return Answers(own, others, training, named.name if named else "", inputs.sums[named] if named else "")


def _inputs(run_dir: Path, files: Sequence[Path]) -> Inputs:
    """Everything on which the page depends."""
    own = (run_dir / name for name in (RUN_FILE, METRICS_FILE, OUTCOMES_FILE))
    given = (file / OUTCOMES_FILE if file.is_dir() else file for file in files)
    return Inputs([*own, *given])


def _run(run_dir: Path) -> Run:
    run = read_run(run_dir)
    if run is None:
        raise DataError(
            _("{run_dir}: holds no {run_file}; give the output_dir of a training run").format(
                run_dir=run_dir, run_file=RUN_FILE
            )
        )
    return run
