"""`lrc vote` against the definition of its pool: no other weights are better, answers by hand, folds left out."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from math import exp, log
from pathlib import Path
from random import Random
from typing import Any

import pytest
from small_runs import lrc, write_questions

from lrc.answering.options import ScoringOptions
from lrc.answering.scored_model import identify_model, identify_run
from lrc.config.run_record import Run
from lrc.data.alpaca import to_record
from lrc.data.near_duplicates import group_passages
from lrc.data.pseudo_labels import assign_labels
from lrc.data.questions import Question
from lrc.data.soft_labels import SoftLabels
from lrc.data.splits import folds
from lrc.metrics.accuracy import accuracy, compare_paired, passages_of

Lines = list[list[float]]  # log-probabilities of each question's options


def questions(count: int, seed: int = 1) -> list[Question]:
    """Three and two questions a passage in turn, some of it with a full stop at its end; two to four options each."""
    random, made = Random(seed), []
    for number in range(count):
        options = tuple("甲乙丙丁"[: random.randint(2, 4)])
        passage = f"第{number // 5 * 2 + number % 5 // 3}章，" * 9 + "。" * (number % 2)
        made.append(Question(f"q{number}", passage, f"問{number}", options, random.randint(1, len(options))))
    return made


def model(asked: Sequence[Question], skill: float, sharpness: float, seed: int) -> Lines:
    """Scores of a model: noise, and the right option ahead by `skill`."""
    random, lines = Random(seed), []
    for question in asked:
        logits = [random.gauss(0, 1) + skill * (k == question.answer) for k in range(1, len(question.options) + 1)]
        lines.append([sharpness * logit for logit in logits])
    return lines


def softmax(scores: Sequence[float]) -> list[float]:
    top = max(scores)
    total = sum(exp(score - top) for score in scores)
    return [score - top - log(total) for score in scores]


def write_scores(path: Path, asked: Sequence[Question], lines: Lines) -> Path:
    """As `lrc generate --scores` writes them."""
    found = [{"id": q.id, "row": None, "scores": softmax(line)} for q, line in zip(asked, lines, strict=True)]
    path.write_text("".join(json.dumps(one) + "\n" for one in found), encoding="utf-8")
    return path


def write_samples(path: Path, asked: Sequence[Question], lines: Lines) -> Path:
    """As lm-evaluation-harness logs samples of a multiple-choice task, in any order and with numbers as texts."""
    found = [
        {
            "doc_id": number,
            "doc": {"id": question.id, "question": question.question},
            "target": str(question.answer - 1),
            "resps": [[[str(score), "False"]] for score in line],
            "filtered_resps": [[str(score), "False"] for score in line],
        }
        for number, (question, line) in enumerate(zip(asked, lines, strict=True))
    ]
    path.write_text("".join(json.dumps(one) + "\n" for one in reversed(found)), encoding="utf-8")
    return path


def loss(models: Sequence[Lines], strengths: Sequence[float], asked: Sequence[Question]) -> float:
    """The mean loss of the pool whose log-probabilities are proportional to the sum of strength × scores, with one more
    question answered at random."""
    share, total = 1 / (len(asked) + 1), 0.0
    for place, question in enumerate(asked):
        size = len(question.options)
        pooled = softmax(
            [sum(s * lines[place][k] for s, lines in zip(strengths, models, strict=True)) for k in range(size)]
        )
        total -= (1 - share) * pooled[question.answer - 1] + share * sum(pooled) / size
    return total


@pytest.fixture
def asked() -> list[Question]:
    return questions(150)


@pytest.fixture
def files(tmp_path: Path, asked: list[Question]) -> list[Path]:
    """Three models: a good one that is overconfident, another good one as samples of the harness, and noise."""
    write_questions(tmp_path / "validation.json", asked)
    return [
        write_scores(tmp_path / "a.jsonl", asked, model(asked, 1.5, 5.0, 2)),
        write_samples(tmp_path / "b.jsonl", asked, model(asked, 1.2, 0.3, 3)),
        write_scores(tmp_path / "c.jsonl", asked, model(asked, 0.0, 1.0, 4)),
    ]


def figures_of(files: Sequence[Path], *more: str | Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    data = files[0].with_name("validation.json")
    assert lrc("vote", *files, "--data", data, "--json", *more) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def strengths_of(figures: dict[str, Any]) -> list[float]:
    """What each model's scores are multiplied with, all in all."""
    models = figures["models"].values()
    return [figures["sharpness"] * one["weight"] / one["temperature"] for one in models]


def test_no_other_weights_have_a_lower_loss(
    files: list[Path], asked: list[Question], capsys: pytest.CaptureFixture[str]
) -> None:
    figures = figures_of(files, capsys=capsys)
    models = [model(asked, 1.5, 5.0, 2), model(asked, 1.2, 0.3, 3), model(asked, 0.0, 1.0, 4)]
    found = strengths_of(figures)
    assert sum(one["weight"] for one in figures["models"].values()) == pytest.approx(1)
    least = loss(models, found, asked)
    for place in range(3):
        for moved in (0.9, 0.98, 1.02, 1.1):
            other = [one * (moved if place == k else 1) for k, one in enumerate(found)]
            assert loss(models, other, asked) >= least - 1e-9
    for zero in range(3):  # nor is a weight of 0 or a little above it better
        for small in (0.0, 0.01):
            assert loss(models, [small if zero == k else one for k, one in enumerate(found)], asked) >= least - 1e-9
    # Each temperature is that with the least loss of its model alone.
    for lines, one in zip(models, figures["models"].values(), strict=True):
        alone = loss([lines], [1 / one["temperature"]], asked)
        assert all(loss([lines], [factor / one["temperature"]], asked) >= alone - 1e-9 for factor in (0.95, 1.05))


def test_the_answers_to_a_test_are_those_of_the_weights(
    files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    test = questions(40, seed=9)
    models = [model(test, 1.5, 5.0, 12), model(test, 1.2, 0.3, 13), model(test, 0.0, 1.0, 14)]
    tests = [
        write_scores(tmp_path / "ta.jsonl", test, models[0]),
        write_samples(tmp_path / "tb.jsonl", test, models[1]),
        write_scores(tmp_path / "tc.jsonl", test, models[2]),
    ]
    output, scores = tmp_path / "answer.csv", tmp_path / "pool.jsonl"
    written = ["--output", output, "--scores", scores]
    figures = figures_of(files, "--test-scores", *tests, *written, capsys=capsys)
    strengths = strengths_of(figures)
    by_hand = []
    for place, question in enumerate(test):
        pooled = [
            sum(s * lines[place][k] for s, lines in zip(strengths, models, strict=True))
            for k in range(len(question.options))
        ]
        by_hand.append(softmax(pooled))
    with output.open(encoding="utf-8", newline="") as file:
        lines = list(csv.reader(file))
    assert lines[0] == ["ID", "Answer"]
    assert lines[1:] == [[q.id, str(line.index(max(line)) + 1)] for q, line in zip(test, by_hand, strict=True)]
    kept = [json.loads(text) for text in scores.read_text(encoding="utf-8").splitlines()]
    for one, line in zip(kept, by_hand, strict=True):
        assert one["scores"] == pytest.approx(line, abs=1e-6)
        assert one["probabilities"] == pytest.approx([exp(score) for score in line], abs=1e-6)
    # The flag repeated is the same as the flag with all files behind it.
    again = [word for file in tests for word in ("--test-scores", file)]
    assert figures_of(files, *again, capsys=capsys) == figures


def test_the_scores_of_a_vote_are_taken_wherever_those_of_a_model_are(
    files: list[Path], asked: list[Question], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, pool = tmp_path / "validation.json", tmp_path / "pool.jsonl"
    figures = figures_of(files, "--scores", pool, capsys=capsys)
    kept, sizes = read(pool), [len(question.options) for question in asked]
    assert set(sizes) == {2, 3, 4}
    assert [len(one["scores"]) for one in kept] == [len(one["probabilities"]) for one in kept] == sizes
    assert figures_of([pool, files[2]], capsys=capsys)["models"]["pool"]["accuracy"] == figures["accuracy"]
    assert lrc("compare", pool, files[0], "--data", data, "--json") == 0
    assert json.loads(capsys.readouterr().out)["first"]["accuracy"] == figures["accuracy"]
    soft = SoftLabels.read(pool, [data], 1.0, 1.0)
    for one, question in zip(kept, asked, strict=True):
        assert soft.target(to_record(question)) == pytest.approx(one["probabilities"])
    unanswered = write_questions(tmp_path / "test.json", [replace(question, answer=None) for question in asked])
    labelled, _ = assign_labels(unanswered, pool, 0.0)
    assert [record.output for record in labelled] == [str(one["prediction"]) for one in kept]


def test_each_question_is_answered_by_weights_of_other_passages(
    files: list[Path], asked: list[Question], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = tmp_path / "answer.csv"
    figures = figures_of(files, "--output", answers, capsys=capsys)
    with answers.open(encoding="utf-8", newline="") as file:
        given = [int(answer) for _, answer in list(csv.reader(file))[1:]]
    assert figures["accuracy"] == sum(a == q.answer for a, q in zip(given, asked, strict=True)) / len(asked)
    # The questions of a passage are one observation, in the interval and in the test.
    passages, right = passages_of(asked), [question.answer or 0 for question in asked]
    assert {key: figures[key] for key in accuracy(given, right, passages)} == accuracy(given, right, passages)
    alone = [line.index(max(line)) + 1 for line in model(asked, 1.5, 5.0, 2)]
    assert figures["best_single"] == {"name": "a", "paired": compare_paired(given, alone, right, passages)}
    groups = group_passages(question.passage for question in asked)
    parts = folds(groups.clusters, [question.answer for question in asked], 5, 42)
    for fold in range(5):
        others = [question for question, part in zip(asked, parts, strict=True) if part != fold]
        assert not {q.passage for q in others} & {
            q.passage for q, part in zip(asked, parts, strict=True) if part == fold
        }
        # A vote that never saw the fold gives its answers.
        folder = tmp_path / f"fold{fold}"
        folder.mkdir()
        write_questions(folder / "validation.json", others)
        inside = [question for question, part in zip(asked, parts, strict=True) if part == fold]
        names, tests = [], []
        for name in ("a", "b", "c"):
            known = {one["id"]: one for one in map(as_lrc, read(tmp_path / f"{name}.jsonl"))}
            names.append(keep(folder / f"{name}.jsonl", [known[q.id] for q in others]))
            tests.append(keep(folder / f"t{name}.jsonl", [known[q.id] for q in inside]))
        figures_of(names, "--test-scores", *tests, "--output", folder / "answer.csv", capsys=capsys)
        with (folder / "answer.csv").open(encoding="utf-8", newline="") as file:
            found = [int(answer) for _, answer in list(csv.reader(file))[1:]]
        assert found == [answer for answer, part in zip(given, parts, strict=True) if part == fold]


def strength(lines: Lines, asked: Sequence[Question]) -> float:
    """What the scores of a model are multiplied with for the least loss, by a ternary search; it is convex."""
    low, high = 0.01, 20.0
    for _ in range(60):
        left, right = low + (high - low) / 3, high - (high - low) / 3
        low, high = (low, right) if loss([lines], [left], asked) < loss([lines], [right], asked) else (left, high)
    return low


def count_right(models: Sequence[Lines], strengths: Sequence[float], asked: Sequence[Question]) -> int:
    """How many answers of the pool with equal weights are right."""
    found = 0
    for place, question in enumerate(asked):
        parts = [softmax([x * s for x in lines[place]]) for s, lines in zip(strengths, models, strict=True)]
        pooled = [sum(scores) for scores in zip(*parts, strict=True)]
        found += pooled.index(max(pooled)) + 1 == question.answer
    return found


def test_equal_weights_are_measured_with_temperatures_of_other_passages(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = questions(20, 4)
    write_questions(tmp_path / "validation.json", asked)
    models = [model(asked, 1.0, 5.0, 5), model(asked, 0.8, 0.3, 6)]
    files = [write_scores(tmp_path / f"{name}.jsonl", asked, lines) for name, lines in zip("ab", models, strict=True)]
    groups = group_passages(question.passage for question in asked)
    parts = folds(groups.clusters, [question.answer for question in asked], 5, 42)
    right = 0
    for fold in range(5):
        inside = [place for place, part in enumerate(parts) if part == fold]
        others = [place for place, part in enumerate(parts) if part != fold]
        strengths = [strength([lines[k] for k in others], [asked[k] for k in others]) for lines in models]
        right += count_right([[lines[k] for k in inside] for lines in models], strengths, [asked[k] for k in inside])
    assert figures_of(files, capsys=capsys)["equal_weights"]["accuracy"] == right / 20
    assert right != count_right(models, [strength(lines, asked) for lines in models], asked)


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]


def as_lrc(line: dict[str, Any]) -> dict[str, Any]:
    if "scores" in line:
        return line
    return {"id": line["doc"]["id"], "scores": [float(score) for score, _ in line["filtered_resps"]]}


def keep(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in lines), encoding="utf-8")
    return path


def test_it_says_what_the_vote_gains(files: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    data = files[0].with_name("validation.json")
    assert lrc("vote", *files, "--data", data) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "points above a alone" in lines[0]
    assert any(line.startswith("vote, out of fold") for line in lines)
    assert any("permuted by passage p = " in line for line in lines)
    assert lrc("vote", files[0], "--data", data) == 0  # one model alone is the vote
    assert "the same as a alone: the vote gains nothing here" in capsys.readouterr().out.splitlines()[0]


def test_answers_that_are_arbitrary_are_counted(
    files: list[Path], asked: list[Question], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert figures_of(files, capsys=capsys)["ties"] == 0
    equal = write_scores(tmp_path / "equal.jsonl", asked, [[0.0] * len(one.options) for one in asked])
    tests = write_scores(tmp_path / "test.jsonl", asked[:7], [[0.0] * 3, [1.0, 1.0, 0.0], *[[0.0, 1.0, 0.0]] * 5])
    words = ["vote", equal, "--data", files[0].with_name("validation.json"), "--test-scores", tests]
    assert lrc(*words) == 0
    told = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["ties", "150", "are"] in [line[:3] for line in told]
    assert ["ties", "of", "the", "answers", "2"] in [line[:5] for line in told]
    assert lrc(*words, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["ties"], found["test_ties"]) == (150, 2)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda lines: lines[:-1], "has no scores of 1 question"),
        (lambda lines: [*lines, {**lines[0], "id": "new"}], "has scores of 151 questions"),
        (lambda lines: [lines[1], *lines[1:]], "ids that repeat cannot be matched"),
        (
            lambda lines: [{**lines[0], "scores": [0.0] * 5}, *lines[1:]],
            "question q0 has 5 scores, expected one for each",
        ),
        (
            lambda lines: [{**lines[0], "scores": [None, *lines[0]["scores"][1:]]}, *lines[1:]],
            "an option without a score",
        ),
        (lambda lines: [{**lines[0], "scores": [float("nan")] * 2}, *lines[1:]], "line 1: its scores are not finite"),
        (lambda lines: [{"id": "q0"}, *lines[1:]], "line 1: has neither scores nor filtered_resps"),
        (lambda lines: [], "holds no scores"),
        (lambda lines: [{**lines[0], "passage": "別的"}, *lines[1:]], "question q0, whose passage is another"),
        (lambda lines: [{**lines[0], "options": ["乙", "甲"]}, *lines[1:]], "question q0, whose options is another"),
        (
            lambda lines: [
                {"doc_id": n, "doc": {"question": f"問{n + 1}"}, "resps": [[[s, False]] for s in line["scores"]]}
                for n, line in enumerate(lines)
            ],
            "differs from validation.json in 150 questions, first question q0, whose question is another",
        ),
    ],
)
def test_what_does_not_fit_is_refused(
    files: list[Path], change: Any, said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    keep(files[2], change(read(files[2])))
    output = tmp_path / "answer.csv"
    assert lrc("vote", *files, "--data", tmp_path / "validation.json", "--output", output) == 1
    told = capsys.readouterr().err
    assert said in told and "Traceback" not in told and not output.exists()


def test_test_scores_have_to_be_of_one_file(
    files: list[Path], asked: list[Question], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "validation.json"
    assert lrc("vote", *files, "--data", data, "--test-scores", files[0]) == 1
    assert "1 file for 3 models" in capsys.readouterr().err
    short = keep(tmp_path / "short.jsonl", read(files[2])[:5])
    assert lrc("vote", *files, "--data", data, "--test-scores", *files[:2], short) == 1
    assert "has 5 questions" in capsys.readouterr().err
    first, *others = read(files[2])
    blank = keep(tmp_path / "blank.jsonl", [{**first, "scores": [None, *first["scores"][1:]]}, *others])
    assert lrc("vote", *files, "--data", data, "--test-scores", *files[:2], blank) == 1
    assert "blank.jsonl, question 1: differs from that of " in capsys.readouterr().err
    assert lrc("vote", *files, "--data", data, "--test-scores", *files[:2], files[1]) == 1
    assert "b.jsonl: is given twice" in capsys.readouterr().err
    assert lrc("vote", files[0], files[0], "--data", data) == 1
    assert "is given twice" in capsys.readouterr().err


def test_where_ids_repeat_the_rows_tell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    twice = [replace(one, id="1", row=place) for place, one in enumerate(questions(150), start=2)]
    data = write_questions(tmp_path / "validation.json", twice)
    scores = write_scores(tmp_path / "a.jsonl", twice, model(twice, 1.5, 5.0, 2))
    noise = write_scores(tmp_path / "b.jsonl", twice, model(twice, 0.0, 1.0, 4))
    for shift, status in ((0, 0), (1, 1)):
        keep(noise, [{**line, "row": place + shift} for place, line in enumerate(read(noise), start=2)])
        assert lrc("vote", scores, noise, "--data", data) == status
    assert "whose row is another" in capsys.readouterr().err


def test_lines_without_ids_are_reported(files: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    keep(files[2], [{"scores": line["scores"]} for line in read(files[2])])
    data = files[0].with_name("validation.json")
    assert lrc("vote", files[2], "--data", data, "--json", "--test-scores", files[2]) == 0
    assert capsys.readouterr().err.splitlines() == [
        "warning: c.jsonl: its lines have no ids; they were taken in the order of validation.json",
        "warning: c.jsonl: does not tell its model, so whether --test-scores are in the order of the models cannot be "
        "checked",
        "warning: c.jsonl: its lines have no ids; the answers are numbered in their order",
    ]


class Answering:
    """Forty questions to answer, scored by the three models, and the answers that a vote gave them by their ids."""

    def __init__(self, files: Sequence[Path], folder: Path) -> None:
        self.asked, self.folder = questions(40, seed=9), folder
        lines = [model(self.asked, 1.5, 5.0, 12), model(self.asked, 1.2, 0.3, 13), model(self.asked, 0.0, 1.0, 14)]
        self.files = [
            write_scores(folder / "ta.jsonl", self.asked, lines[0]),
            write_samples(folder / "tb.jsonl", self.asked, lines[1]),
            write_scores(folder / "tc.jsonl", self.asked, lines[2]),
        ]
        self.data = write_questions(folder / "test.json", [replace(one, answer=None) for one in self.asked])
        self.words = ["vote", *files, "--data", files[0].with_name("validation.json"), "--force", "--test-scores"]

    def vote(self, *more: str | Path, files: Sequence[Path] | None = None) -> int:
        return lrc(*self.words, *(files or self.files), *more, "--output", self.folder / "o.csv")

    def answers(self) -> list[list[str]]:
        with (self.folder / "o.csv").open(encoding="utf-8", newline="") as file:
            return list(csv.reader(file))[1:]


@pytest.fixture
def tests(files: list[Path], tmp_path: Path) -> Answering:
    (tmp_path / "t").mkdir()
    return Answering(files, tmp_path / "t")


def test_test_scores_are_put_into_the_order_of_their_questions(
    tests: Answering, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tests.vote() == 0
    before = tests.answers()
    assert [name for name, _ in before] == [question.id for question in tests.asked]
    assert tests.vote("--test-data", tests.data) == 0
    assert tests.answers() == before
    keep(tests.files[0], read(tests.files[0])[::-1])
    keep(tests.files[2], read(tests.files[2])[20:] + read(tests.files[2])[:20])
    capsys.readouterr()
    assert tests.vote() == 1
    assert "tb.jsonl, question 1: differs from that of " in capsys.readouterr().err
    assert tests.vote("--test-data", tests.data) == 0
    assert tests.answers() == before
    write_questions(tests.data, [replace(one, answer=None) for one in tests.asked[::-1]])
    assert tests.vote("--test-data", tests.data) == 0
    assert tests.answers() == before[::-1]
    capsys.readouterr()
    write_questions(tests.data, [replace(one, answer=None) for one in tests.asked[1:]])
    assert tests.vote("--test-data", tests.data) == 1
    assert "ta.jsonl: has scores of 40 questions" in capsys.readouterr().err
    assert lrc(*tests.words[:-2], "--test-data", tests.data) == 2
    assert "--test-data needs --test-scores" in capsys.readouterr().err


def test_files_without_ids_are_not_paired_by_position_alone(
    tests: Answering, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tests.vote() == 0
    before = tests.answers()
    bare = [{key: value for key, value in line.items() if key != "id"} for line in read(tests.files[0])]
    alike = [place for place, question in enumerate(tests.asked) if len(question.options) == 3][:2]
    swapped = {alike[0]: bare[alike[1]], alike[1]: bare[alike[0]]}
    keep(tests.files[0], [swapped.get(place, line) for place, line in enumerate(bare)])
    keep(tests.files[1], [{**line, "doc": {}} for line in read(tests.files[1])])
    capsys.readouterr()
    assert tests.vote() == 1
    assert capsys.readouterr().err.splitlines()[-2:] == [
        f"{file}: its lines have no ids, and nothing else tells that they are in the order of those of "
        f"{tests.files[2]}; name the file of the questions with --test-data"
        for file in tests.files[:2]
    ]
    keep(tests.files[0], bare)
    assert tests.vote("--test-data", tests.data) == 0  # the order of the file is what remains, and is reported
    assert tests.answers() == before
    told = capsys.readouterr().err
    for name in ("ta", "tb"):
        assert f"warning: {name}.jsonl: its lines have no ids; they were taken in the order of test.json" in told
    assert "numbered" not in told


def test_texts_or_their_hashes_prove_the_order_of_lines_without_ids(
    tests: Answering, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tests.vote() == 0
    before = tests.answers()
    samples = [{**line, "doc": {"question": line["doc"]["question"]}} for line in read(tests.files[1])]
    keep(tests.files[1], samples)
    scored = [
        {**line, "id": None, "content_sha256": question.content}
        for line, question in zip(read(tests.files[0]), tests.asked, strict=True)
    ]
    keep(tests.files[0], scored)
    named = zip(read(tests.files[2]), tests.asked, strict=True)
    keep(tests.files[2], [{**line, **known(question)} for line, question in named])
    capsys.readouterr()
    assert tests.vote() == 0  # by question text, and by the hash of the texts that the third file has
    assert tests.answers() == before and "no ids" not in capsys.readouterr().err
    assert {name for name, _ in before} == {line["id"] for line in read(tests.files[2])}  # of the first that has them
    keep(tests.files[0], scored[::-1])
    assert tests.vote() == 1
    assert "ta.jsonl, question 1: differs from that of " in capsys.readouterr().err
    # A text that many questions have proves nothing.
    keep(tests.files[0], scored)
    keep(tests.files[1], [{**line, "doc": {"question": "何者正確？"}} for line in samples])
    common = {"passage": 0, "question": "何者正確？", "options": 0}
    keep(tests.files[2], [{**line, **common} for line in read(tests.files[2])])
    assert tests.vote() == 1
    assert f"{tests.files[1]}: its lines have no ids, and nothing else tells" in capsys.readouterr().err


def known(question: Question) -> dict[str, Any]:
    return {"passage": question.passage, "question": question.question, "options": list(question.options)}


def test_ids_in_another_order_are_matched(files: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    before = figures_of(files, capsys=capsys)
    keep(files[2], read(files[2])[::-1])
    assert figures_of(files, capsys=capsys) == before


def test_the_folder_of_a_run_stands_for_its_validation_scores(tmp_path: Path) -> None:
    asked = questions(40)
    data = write_questions(tmp_path / "data.json", asked)
    told = []
    for seed, name in enumerate(("one", "two")):
        folder = tmp_path / name
        folder.mkdir()
        lines = model(asked, skill=1.0, sharpness=1.0, seed=seed)
        told.append((folder, write_scores(folder / "validation_scores.jsonl", asked, lines)))
    answers = []
    for number, files in enumerate(zip(*told, strict=True)):
        output = tmp_path / f"{number}.csv"
        assert lrc("vote", *map(str, files), "--data", str(data), "--output", str(output)) == 0
        answers.append(output.read_bytes())
    assert answers[0] == answers[1] and answers[0].count(b"\n") == 41


def test_it_says_that_a_run_was_trained_on_the_questions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = questions(40)
    data, folder = write_questions(tmp_path / "data.json", asked), tmp_path / "run"
    folder.mkdir()
    scores = write_scores(folder / "validation_scores.jsonl", asked, model(asked, 1.0, 1.0, 1))
    own = {"name": "data.json", "sha256": hashlib.sha256(data.read_bytes()).hexdigest(), "questions": 40}
    for role, sources in (("train_file", [folder, scores]), ("validation_file", [])):
        Run("plain", "digit", True, data={role: own}).write(folder / "lrc_run.json")
        for source in sources or [folder]:
            assert lrc("vote", source, "--data", data) == 0
            said = f"{data}: {folder} was trained on questions of it; the accuracy says little about other questions"
            assert capsys.readouterr().err.splitlines() == ([said] if sources else [])


def test_test_scores_in_another_order_than_the_models_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked, test = questions(40), questions(10, seed=9)
    data = write_questions(tmp_path / "data.json", asked)

    def write(name: str, of: Sequence[Question], seed: int, sha256: str) -> Path:
        path = write_scores(tmp_path / name, of, model(of, 1.0, 1.0, seed))
        named = {"model": f"model {sha256}", "model_sha256": sha256} if sha256 else {}
        return keep(path, [one | named for one in read(path)])

    def vote(one: Path, two: Path, first: Path, second: Path) -> tuple[int, list[str]]:
        status = lrc(
            "vote", one, two, "--data", data, "--test-scores", first, second, "--output", tmp_path / "o.csv", "--force"
        )
        return status, capsys.readouterr().err.splitlines()

    a, b = (write(f"{name}.jsonl", asked, seed, name) for seed, name in enumerate("ab"))
    ta, tb, tc = (write(f"t{name}.jsonl", test, seed, name) for seed, name in enumerate("abc"))
    assert vote(a, b, ta, tb) == (0, [])
    status, told = vote(a, b, tb, ta)
    assert status == 1 and told == [
        f"{tb}: is of the model of {b}, and in the place of {a}; give --test-scores in the order of the models",
        f"{ta}: is of the model of {a}, and in the place of {b}; give --test-scores in the order of the models",
    ]
    status, told = vote(a, b, ta, tc)
    assert status == 0 and len(told) == 1 and told[0].startswith("warning: tc.jsonl: is of model c, and")
    # Files of before, and of other programs, do not name their model.
    nameless = write("old.jsonl", asked, 1, "")
    for files, name in (((a, nameless, ta, tb), "old"), ((a, b, write("told.jsonl", test, 1, ""), tb), "told")):
        status, told = vote(*files)
        assert status == 0 and told == [
            f"warning: {name}.jsonl: does not tell its model, so whether --test-scores are in the order of the models "
            "cannot be checked"
        ]
    # A run is known by its adapter.
    run = tmp_path / "run"
    run.mkdir()
    (run / "adapter_model.safetensors").write_bytes(b"weights")
    (tmp_path / "b.jsonl").rename(run / "validation_scores.jsonl")
    keep(run / "validation_scores.jsonl", [{"id": one["id"], "scores": one["scores"]} for one in read(a)])
    own = identify_model("", ScoringOptions(adapters=(run,)))
    mine = keep(ta, [one | {"model": own.name, "model_sha256": own.sha256} for one in read(ta)])
    other = keep(tb, [one | {"model": "a", "model_sha256": "a"} for one in read(tb)])
    assert vote(a, run, other, mine) == (0, [])
    assert vote(a, run, mine, other)[0] == 1
    # Lines of two models in one file.
    both = keep(tmp_path / "both.jsonl", [*read(mine)[:5], *read(other)[5:]])
    status, told = vote(a, run, both, mine)
    assert status == 1 and told == [f"{both}: has lines of run and of a; give a file for each model"]


def test_one_model_in_two_styles_is_two_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked, test = questions(40), questions(10, seed=9)
    data = write_questions(tmp_path / "data.json", asked)
    ways = {"digit": {"answer_style": "digit", "votes": 1}, "text": {"answer_style": "text", "votes": 1}}
    four = {"answer_style": "digit", "votes": 4}

    def write(name: str, of: Sequence[Question], way: dict[str, Any] | None) -> Path:
        path = write_scores(tmp_path / f"{name}.jsonl", of, model(of, 1.0, 1.0, len(name)))
        named = {"model": "run", "model_sha256": "a"} | ({"asked": way} if way else {})
        return keep(path, [one | named for one in read(path)])

    def vote(one: Path, two: Path, *tests: Path) -> tuple[int, list[str]]:
        status = lrc("vote", one, two, "--data", data, "--test-scores", *tests)
        return status, capsys.readouterr().err.splitlines()

    digit, text = (write(name, asked, way) for name, way in ways.items())
    t_digit, t_text = (write(f"test-{name}", test, way) for name, way in ways.items())
    assert vote(digit, text, t_digit, t_text) == (0, [])
    assert vote(digit, text, t_text, t_digit) == (
        1,
        [
            f"{t_text}: is of the model of {text}, and in the place of {digit}; give --test-scores in the order of the "
            "models",
            f"{t_digit}: is of the model of {digit}, and in the place of {text}; give --test-scores in the order of "
            "the models",
        ],
    )
    votes = write("four", test, four)
    said = f"its model was asked in another way than that of {digit} (votes: 4 / 1); score both with the same flags"
    assert vote(digit, text, votes, t_text) == (0, [f"warning: four.jsonl: {said}"])
    # Files of before do not tell how they were asked.
    old = write("old", test, None)
    said = "may belong to any of digit.jsonl, text.jsonl, so whether --test-scores are in their order cannot be checked"
    assert vote(digit, text, old, t_text) == (0, [f"warning: old.jsonl: {said}"])
    other = write("other", asked, None)
    keep(other, [one | {"model_sha256": "b"} for one in read(other)])
    t_other = keep(tmp_path / "t_other.jsonl", [one | {"model_sha256": "b"} for one in read(t_text)])
    assert vote(digit, other, old, t_other) == (0, [])
    assert vote(other, digit, votes, t_other)[0] == 1  # another model comes before another way of asking
    both = keep(tmp_path / "both.jsonl", [*read(t_digit)[:5], *read(votes)[5:]])
    assert vote(digit, text, both, t_text) == (
        1,
        [f"{both}: its lines were asked in different ways (votes: 1 / 4); give a file for each way"],
    )


def test_a_run_tells_how_its_validation_questions_were_asked(tmp_path: Path) -> None:
    (tmp_path / "adapter_model.safetensors").write_bytes(b"weights")
    assert not identify_run(tmp_path).asked
    for style, normalisation in (("text", "token"), ("digit", "sum")):
        Run("plain", style, True, score_normalisation="token").write(tmp_path / "lrc_run.json")
        assert identify_run(tmp_path).asked == {
            **{"template": "plain", "answer_style": style, "list_options": True},
            **{"score_normalisation": normalisation, "votes": 1},
        }


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (f'{{"id": "0", "scores": [1{"0" * 400}, 0, 0, 0]}}', "holds a number that is too large; give what"),
        ('{"id": "0", "scores": [0, 0, 0, 0], "scores": [1, 0, 0, 0]}', "key scores appears twice; give what"),
    ],
    ids=["beyond floats", "doubled key"],
)
def test_a_line_of_scores_that_cannot_be_meant_is_refused(
    files: list[Path], capsys: pytest.CaptureFixture[str], line: str, said: str
) -> None:
    files[0].write_text(line + "\n", encoding="utf-8")
    assert lrc("vote", *files, "--data", files[0].with_name("validation.json")) == 1
    assert capsys.readouterr().err.startswith(f"{files[0]}, line 1: {said}")
