"""`lrc vote`: combines the scores of several models into one answer, with weights fitted on labelled questions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lrc.answering.scored_model import identify_run
from lrc.answering.submission import submission
from lrc.answering.training_data import warn_of_training_data
from lrc.data.alpaca import question_of
from lrc.data.near_duplicates import group_passages
from lrc.data.questions import Question
from lrc.data.score_files import (
    ScoredModel,
    ScoredQuestion,
    match_scores,
    prove_order,
    read_scores,
    tied_options,
    warn_of_probabilities,
)
from lrc.data.sources import read_labelled, read_questions_to_answer
from lrc.data.splits import folds
from lrc.metrics.accuracy import CONFIDENCE, Figures, accuracy, compare_paired, passages_of
from lrc.metrics.opinion_pool import Pool, Scores, equal_pool, fit_pool, out_of_fold, predict
from lrc.metrics.predictions import OUTCOMES_FILE, answers_of, name_models
from lrc.metrics.verdict import describe_size, judge, spell
from lrc.runtime.errors import DataError
from lrc.runtime.findings import (
    Finding,
    columns_of,
    name_line,
    print_findings,
    print_json,
    print_lines,
    print_next,
    wrap_line,
)
from lrc.runtime.finished_outputs import Inputs, key_of, refuse_other_output, write_once
from lrc.runtime.outputs import refuse_file
from lrc.runtime.system import command_line
from lrc.runtime.translation import Message, _, localized

FOLDS, SEED = 5, 42


class AnsweredQuestion(NamedTuple):
    """What is written of a question that the vote answers."""

    id: str
    options: int  # how many it has
    content: str  # see `questions.hash_content`; empty if it is not known


def vote(
    files: Sequence[Path],
    data: Path,
    *,
    test_scores: Sequence[Path] = (),
    test_data: Path | None = None,
    output: Path | None = None,
    scores: Path | None = None,
    as_json: bool = False,
    force: bool = False,
) -> None:
    """Pool the scores of several models, print the accuracy of the pool, and write its answers.

    Temperatures and weights are fitted on labelled questions. Each of these is answered by a pool that was fitted on
    other passages, so that the accuracy is out of fold.

    Args:
        files: for each model, its scores of the labelled questions, or the folder of its run.
        data: the labelled questions.
        test_scores: the models' scores of the questions to answer, in the order of `files`; by default the labelled
            questions are answered.
        test_data: the questions to answer, in whose order the test scores are put and answered. Without it, the lines
            of all files have to show that they are in the same order.
        output: the submission.
        scores: where to write the pool's log-probabilities and probabilities, as JSON lines.
        as_json: print the figures as JSON.
        force: overwrite existing outputs.

    Raises:
        LrcError: the files do not match, or an output cannot be written.
    """
    given = files
    files, test_scores = list(map(answers_of, files)), list(map(answers_of, test_scores))
    asked = {"files": files, "data": data, "test_scores": test_scores, "test_data": test_data}
    asked |= {"output": output, "scores": scores}
    read = [data, *files, *test_scores, *filter(None, [test_data])]
    for written in filter(None, (output, scores)):
        others = [one for one in (output, scores) if one not in (None, written)]
        refuse_other_output(written, asked, force=force)
        refuse_file(written, *read, *filter(None, others), force=True)
    inputs, new = Inputs(read), False
    questions = read_labelled(data)
    warn_of_training_data(data, inputs.sums[data], [file.parent for file in files if file.name == OUTCOMES_FILE])
    scored = list(map(read_scores, files))
    models = [match_scores(file, lines, questions, data) for file, lines in zip(files, scored, strict=True)]
    tests = _read_tests(test_scores, files)
    if tests:
        _check_order(files, scored, test_scores, tests)
        test_questions, arranged = _arrange(test_scores, tests, test_data)
    names = name_models(files)
    answers = [question.answer or 0 for question in questions]
    parts = _folds(questions)
    found, pool = out_of_fold(models, answers, parts)[0], fit_pool(models, answers)
    equal = out_of_fold(models, answers, parts, equal_pool)[0]
    figures = _measure(questions, answers, names, models, found, equal, pool)
    answered, pooled = _of_questions(questions), found
    if tests:
        answered, pooled = test_questions, pool.log_probs(arranged)
        figures["test_ties"] = _count_ties(pooled)
    ids = [one.id for one in answered]
    if scores is not None:
        model = ScoredModel(" + ".join(names), key_of([inputs.sums[file] for file in (data, *files)]))
        write = partial(_write_scores, answered=answered, log_probs=pooled, model=model)
        write_once(scores, asked, inputs, write, force=force)
    if output is not None:
        content = submission(ids, predict(pooled))
        new = write_once(output, asked, inputs, lambda path: path.write_bytes(content), force=force)
    if as_json:
        print_json(figures)
        return
    print(*_table(figures), sep="\n")
    if new:
        print_lines(_("{output}: {count} answers").format(output=output, count=len(ids)))
    if not tests:
        print_next(_next(given, data, gains=figures["best_single"]["paired"]["difference"] > 0))


def _next(files: Sequence[Path], data: Path, *, gains: bool) -> str:
    """The next command: to answer the test workbook with all models, or with one where the vote gains nothing."""
    if not gains:
        return "lrc generate --model MODEL --data TEST.xlsx --output answer.csv"
    tests = [f"TEST_{number}.jsonl" for number in range(1, len(files) + 1)]
    words = [*map(str, files), "--data", str(data), "--test-scores", *tests, "--test-data", "TEST.xlsx"]
    words += ["--output", "answer.csv"]
    return command_line(["lrc", "vote", *words])


def _read_tests(files: Sequence[Path], models: Sequence[Path]) -> list[list[ScoredQuestion]]:
    """Read the test scores of each model.

    Raises:
        DataError: a file cannot be read, or the number of files is not that of models.
    """
    if not files:
        return []
    if len(files) != len(models):
        raise DataError(
            _("--test-scores: {count} files for {count2} models; give one for each, in their order").format(
                count=len(files), count2=len(models)
            )
        )
    name_models(files)  # refuses a file that is given twice
    return [read_scores(file) for file in files]


def _arrange(
    files: Sequence[Path], tests: Sequence[Sequence[ScoredQuestion]], data: Path | None
) -> tuple[list[AnsweredQuestion], list[Scores]]:
    """Put the test scores of all models into the order of the questions.

    Args:
        files: of the test scores.
        tests: what they hold.
        data: the questions, if their file is given.

    Returns:
        The questions, and the scores of each model, -inf where there is no such option.

    Raises:
        DataError: they are not about the same questions, or may not be in the same order.
    """
    if data is not None:
        questions = list(map(question_of, read_questions_to_answer(data)))
        matched = [match_scores(file, lines, questions, data) for file, lines in zip(files, tests, strict=True)]
        return _of_questions(questions), matched
    first = next((place for place, test in enumerate(tests) if _has_ids(test)), 0)
    for file, test in zip(files, tests, strict=True):
        _refuse_other_questions(file, test, files[first], tests[first])
        warn_of_probabilities(file, test)
    unproven = [file for file, test in zip(files, tests, strict=True) if not _is_in_order(test, tests[first])]
    if unproven:
        text = _(
            "{file}: its lines have no ids, and nothing else tells that they are in the order of those of {other}; "
            "name the file of the questions with --test-data"
        )
        raise DataError(*(text.format(file=file, other=files[first]) for file in unproven))
    if any(all(one.id is None for one in lines) for lines in zip(*tests, strict=True)):
        text = _("its lines have no ids; the answers are numbered in their order")
        print_findings([Finding("warning", "no-ids", files[0].name, text)])
    return _of_lines(tests), _pad(tests)


def _refuse_other_questions(
    file: Path, test: Sequence[ScoredQuestion], first_file: Path, first: Sequence[ScoredQuestion]
) -> None:
    """Refuse test scores that differ from those of another model in what they are about.

    Raises:
        DataError: the number of questions differs, or what two lines say of the same question.
    """
    for number, (one, other) in enumerate(zip(test, first, strict=False), start=1):
        if _differ(one, other):
            raise DataError(
                _(
                    "{file}, question {number}: differs from that of {files}; score the same file with each model"
                ).format(file=file, number=number, files=first_file)
            )
    if len(test) != len(first):
        raise DataError(
            _("{file}: has {count} questions, {files} has {count2}; score the same file").format(
                file=file, count=len(test), files=first_file, count2=len(first)
            )
        )


def _differ(one: ScoredQuestion, other: ScoredQuestion) -> bool:
    """Whether two lines are of different questions, as far as they tell."""
    named = None in (one.id, other.id) or one.id == other.id
    alike = "" in (one.content, other.content) or one.content == other.content
    # Nor may one model leave out an option that another one can choose.
    same = list(map(isfinite, one.scores)) == list(map(isfinite, other.scores))
    shared = one.about.keys() & other.about.keys()
    return not (named and alike and same) or any(one.about[part] != other.about[part] for part in shared)


def _has_ids(test: Sequence[ScoredQuestion]) -> bool:
    return all(one.id is not None for one in test)


def _is_in_order(test: Sequence[ScoredQuestion], first: Sequence[ScoredQuestion]) -> bool:
    """Whether two files that do not differ tell that their lines are in the same order: by ids, or by texts."""
    if test is first or (_has_ids(test) and _has_ids(first)):
        return True
    return prove_order(zip(test, first, strict=True))


def _check_order(
    files: Sequence[Path],
    scored: Sequence[Sequence[ScoredQuestion]],
    test_scores: Sequence[Path],
    tests: Sequence[Sequence[ScoredQuestion]],
) -> None:
    """Refuse test scores of one model in the place of another one; report which ones do not tell their model.

    A model that is asked in two ways, such as two styles, is two models.

    Raises:
        DataError: the test scores of a model are given in the place of another model's.
    """
    models = [_identify(file, lines) for file, lines in zip(files, scored, strict=True)]
    wrong, unknown = list[str](), list[Path]()
    for file, wanted, test, lines in zip(files, models, test_scores, tests, strict=True):
        found = _identify(test, lines)
        same = {other: one for other, one in zip(files, models, strict=True) if one.identity == found.identity}
        fitting = [other for other, one in same.items() if found.may_be(one)]
        if not (found.identity and wanted.identity):
            unknown.append(test if not found.identity else file)
        elif file not in same and same or file not in fitting and fitting:
            text = _(
                "{test}: is of the model of {own}, and in the place of {file}; give --test-scores in the order of "
                "the models"
            )
            wrong.append(text.format(test=test, own=[*fitting, *same][0], file=file))
        elif not fitting:
            print_findings([_doubt(test, found, file, wanted)])
        elif len(fitting) > 1:
            text = _("may belong to any of {files}, so whether --test-scores are in their order cannot be checked")
            fit = text.format(files=tuple(one.name for one in fitting))
            print_findings([Finding("warning", "unnamed-model", test.name, fit)])
    if wrong:
        raise DataError(*wrong)
    if unknown:
        text = _("does not tell its model, so whether --test-scores are in the order of the models cannot be checked")
        print_findings([Finding("warning", "unnamed-model", unknown[0].name, text)])


def _doubt(test: Path, found: ScoredModel, file: Path, wanted: ScoredModel) -> Finding:
    """The warning of test scores that fit no model: of another one, or of the same one, asked in another way."""
    if found.identity != wanted.identity:
        text = _("is of {found}, and {file} of {model}; if these are not the same, give the scores of {model}")
        values = {"found": found.name, "file": file, "model": wanted.name}
        return Finding("warning", "other-model", test.name, text.format(**values))
    text = _("its model was asked in another way than that of {file} ({ways}); score both with the same flags")
    values = {"file": file, "ways": found.describe_difference(wanted)}
    return Finding("warning", "other-asking", test.name, text.format(**values))


def _identify(file: Path, lines: Sequence[ScoredQuestion]) -> ScoredModel:
    """The model that a file of scores names; for the answers of a run, which do not, that of its folder."""
    if not lines[0].model.identity and file.name == OUTCOMES_FILE:
        return identify_run(file.parent)
    return lines[0].model


def _of_questions(questions: Sequence[Question]) -> list[AnsweredQuestion]:
    return [AnsweredQuestion(question.id, len(question.options), question.content) for question in questions]


def _of_lines(tests: Sequence[Sequence[ScoredQuestion]]) -> list[AnsweredQuestion]:
    """The questions of test scores, with the ids of the first file that has them; one without an id has its number."""
    found = []
    for number, lines in enumerate(zip(*tests, strict=True), start=1):
        name = next((one.id for one in lines if one.id), str(number))
        content = next((one.content for one in lines if one.content), "")
        found.append(AnsweredQuestion(name, len(lines[0].scores), content))
    return found


def _pad(tests: Sequence[Sequence[ScoredQuestion]]) -> list[Scores]:
    width = max(len(one.scores) for one in tests[0])
    return [np.array([[*one.scores, *[-np.inf] * (width - len(one.scores))] for one in test]) for test in tests]


def _folds(questions: Sequence[Question]) -> list[int]:
    groups = group_passages(question.passage for question in questions)
    if groups.n_clusters < 2:
        raise DataError(_("the labelled questions are all about one passage; fitting a vote needs several"))
    count = min(FOLDS, groups.n_clusters)
    return folds(groups.clusters, [question.answer for question in questions], count, SEED)


def _measure(
    questions: Sequence[Question],
    answers: Sequence[int],
    names: Sequence[str],
    models: Sequence[Scores],
    found: Scores,
    equal: Scores,
    pool: Pool,
) -> dict[str, Any]:
    """All figures: of the pools out of fold, of each model alone, and of the fitted pool against the best model.

    Args:
        questions: the labelled questions.
        answers: their right options, from 1.
        names: of the models.
        models: their scores.
        found, equal: the log-probabilities of the fitted pool and of one with equal weights, out of fold.
        pool: fitted on all questions.
    """
    passages, voted = passages_of(questions), predict(found)
    alone = {name: predict(model) for name, model in zip(names, models, strict=True)}
    singles = {name: accuracy(chosen, answers, passages) for name, chosen in alone.items()}
    best = max(singles, key=lambda name: singles[name]["accuracy"])
    test = compare_paired(voted, alone[best], answers, passages)
    figures = accuracy(voted, answers, passages)
    fitted = zip(names, pool.weights, pool.temperatures, strict=True)
    return {
        **figures,
        "verdict": _verdict(figures, best, test),
        "baseline": judge(questions, voted).headline,
        "models": {
            name: {**singles[name], "weight": weight, "temperature": temperature}
            for name, weight, temperature in fitted
        },
        "sharpness": pool.sharpness,
        "best_single": {"name": best, "paired": test},
        "equal_weights": accuracy(predict(equal), answers, passages),
        "ties": _count_ties(found),
    }


def _count_ties(log_probs: Scores) -> int:
    return sum(len(tied_options(line)) > 1 for line in log_probs.tolist())


def _verdict(figures: Figures, best: str, test: dict[str, float]) -> Message:
    points = 100 * test["difference"]
    text = _("{share}, {points:.1f} points above {best} alone, which may be chance (p = {p:.2g})")
    if test["p_value"] < 1 - CONFIDENCE:
        text = _("{share}, {points:.1f} points above {best} alone")
    if points < 0:
        text = _("{share}, {points:.1f} points below {best} alone: the vote gains nothing here")
    if points == 0:
        text = _("{share}, the same as {best} alone: the vote gains nothing here")
    return text.format(share=spell(figures), points=abs(points), best=best, p=test["p_value"])


def _table(figures: dict[str, Any]) -> list[str]:
    test, best = figures["best_single"]["paired"], figures["best_single"]["name"]
    width = max(26, *(columns_of(name) for name in figures["models"])) + 2
    pools = {_("vote, out of fold"): figures, _("equal weights, out of fold"): figures["equal_weights"]}
    rows = {**pools, **figures["models"]}
    share = _("{accuracy:.4f}  ({ci_low:.4f} to {ci_high:.4f})")
    fitted = _("{accuracy:.4f}  ({ci_low:.4f} to {ci_high:.4f}), weight {weight:.3f}, temperature {temperature:.4g}")
    only = _("{first_only} (the vote) and {second_only} ({best})")
    difference = _("{difference:+.4f} ({ci_low:+.4f} to {ci_high:+.4f}), permuted by passage p = {p_value:.4f}")
    lines: list[tuple[str, str]] = [
        *((name, (fitted if "weight" in one else share).format(**one)) for name, one in rows.items()),
        (_("questions"), describe_size(figures)),
        (_("only one is right"), only.format(**test, best=best)),
        (_("difference"), difference.format(**test)),
        (_("sharpness"), f"{figures['sharpness']:.4g}"),
        (_("against baselines"), figures["baseline"]),
    ]
    text = _("{count:,} are arbitrary, since options share the highest score; of equal ones, the first is taken")
    for name, count in ((_("ties"), figures["ties"]), (_("ties of the answers"), figures.get("test_ties"))):
        if count:
            lines.append((name, text.format(count=count)))
    return [*wrap_line(localized(figures["verdict"])), "", *(name_line(name, text, width) for name, text in lines)]


def _write_scores(path: Path, *, answered: Sequence[AnsweredQuestion], log_probs: Scores, model: ScoredModel) -> None:
    """Write the pool's scores in the format of `lrc generate --scores`: one for each option of a question."""
    with path.open("w", encoding="utf-8") as file:
        for one, padded, number in zip(answered, log_probs, predict(log_probs), strict=True):
            line = padded[: one.options]
            scores = [float(score) if np.isfinite(score) else None for score in line]
            probabilities = np.exp(line).tolist()
            found: dict[str, Any] = {"id": one.id} | ({"content_sha256": one.content} if one.content else {})
            found |= {"scores": scores, "probabilities": probabilities, "prediction": number}
            found |= {"model": model.name, "model_sha256": model.sha256}
            file.write(json.dumps(found, ensure_ascii=False) + "\n")
