"""`lrc report`: one HTML page about a run."""

from __future__ import annotations

from pathlib import Path

from lrc.answering.options import CONFIG
from lrc.config.run_record import METRICS_FILE, RUN_FILE, Run, read_run
from lrc.metrics.predictions import OUTCOMES_FILE, read_outcomes
from lrc.metrics.training_log import read_curves
from lrc.reporting.page import render
from lrc.runtime.errors import DataError
from lrc.runtime.finished_outputs import DONE, content_of, is_finished, key_of, refuse_other_output, remember
from lrc.runtime.outputs import checksum, new_file, refuse_existing
from lrc.runtime.packages import versions_of


def report(run_dir: Path, *, output: Path | None = None, force: bool = False) -> None:
    """Write a page about the run in `run_dir`, and print where it is.

    Curves come from `metrics.jsonl`, everything about answers from `validation_scores.jsonl`; what is missing is
    left out of the page. The page needs no network, and holds passages of the validation questions.

    Args:
        run_dir: the `output_dir` of a training, finished or not.
        output: the page; None writes `report.html` into `run_dir`.

    Raises:
        LrcError: no run is in `run_dir`, its files are damaged, or the output exists.
    """
    output = output or run_dir / "report.html"
    asked = {"run_dir": run_dir}
    refuse_other_output(output, asked, force=force)
    run = _run(run_dir)
    if (run_dir / CONFIG).is_file() and not (run_dir / METRICS_FILE).is_file():
        raise DataError(
            f"{run_dir}: is a merged model, not a training run; give the output_dir of the training it came from"
        )
    curves, outcomes = read_curves(run_dir / METRICS_FILE), read_outcomes(run_dir / OUTCOMES_FILE)
    key = _key(run_dir)
    if not force and is_finished(output, asked, key):
        print(f"{output}: {DONE}")
        return
    refuse_existing(output, force=force)
    page = render(run_dir.resolve().name, run, curves, outcomes)
    with new_file(output, force=force) as temporary:
        # Half a surrogate pair, which JSON can hold, becomes a question mark.
        temporary.write_text(page, encoding="utf-8", errors="replace", newline="\n")
        remember(output, asked, key, content_of(temporary))
    print(f"wrote {output}")


def _key(run_dir: Path) -> str:
    """Of all that the page depends on."""
    files = (run_dir / name for name in (RUN_FILE, METRICS_FILE, OUTCOMES_FILE))
    return key_of([{file.name: checksum(file) for file in files if file.is_file()}, versions_of("lrc")])


def _run(run_dir: Path) -> Run:
    run = read_run(run_dir)
    if run is None:
        raise DataError(f"{run_dir}: holds no {RUN_FILE}; give the output_dir of a training run")
    parts = (run.recipe, run.data, run.base, run.versions, *(run.data.values() if isinstance(run.data, dict) else ()))
    if not all(isinstance(part, dict) for part in parts):
        raise DataError(f"{run_dir / RUN_FILE}: its recipe, data, base or versions is not a JSON object; train again")
    return run
