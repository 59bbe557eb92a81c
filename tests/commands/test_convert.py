"""The verb: a workbook goes in, and every one of its rows is accounted for."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import workbooks

from lrc.commands.convert import convert
from lrc.data.near_duplicates import canonical, group_passages
from lrc.data.sources import read_records
from lrc.data.tables.workbook import read_workbook
from lrc.runtime.errors import DataError, OutputError

SHARED = Path(os.environ.get("LRC_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))
real = pytest.mark.skipif(not SHARED.is_dir(), reason="the real workbooks are not here")
SPLIT = ["a_manifest.json", "a_train.json", "a_validation.json"]


def labelled(folder: Path, passages: int = 30, **changes: Any) -> Path:
    """A workbook with one to four questions a passage; `changes` go into the second row."""
    generator = random.Random(0)
    texts = ["".join(chr(generator.randrange(0x4E00, 0x5E00)) for _ in range(80)) for _ in range(passages)]
    rows = [
        workbooks.row(place + 1, 文章=text, 正確答案=generator.randint(1, 4))
        for place, text in enumerate(text for i, text in enumerate(texts) for _ in range(i % 4 + 1))
    ]
    if changes:
        rows[0] = workbooks.row(1, **changes)
    return workbooks.write_xlsx(folder / "a.xlsx", rows)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def manifest(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "a_manifest.json").read_text(encoding="utf-8"))
    return document


def test_train_and_validation_are_the_whole_and_share_no_passage(tmp_path: Path) -> None:
    source = labelled(tmp_path)
    convert(source, output_dir=tmp_path / "out")
    assert names(tmp_path / "out") == SPLIT
    train, validation = (read_records(tmp_path / "out" / name) for name in SPLIT[1:])
    questions = read_workbook(source).questions
    parts = [record.question for record in (*train, *validation) if record.question]
    assert sorted(parts, key=lambda question: question.row or 0) == list(questions)
    assert not {q.passage for r in train if (q := r.question)} & {q.passage for r in validation if (q := r.question)}
    assert abs(len(validation) - 0.2 * len(questions)) <= 4
    assert all(record.question and record.output == str(record.question.answer) for record in train)


def test_excerpts_stay_with_their_passages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generator = random.Random(1)
    texts = ["".join(chr(generator.randrange(0x4E00, 0x5E00)) for _ in range(200)) for _ in range(25)]
    texts += [f"節錄：{text[100:160]}……" for text in texts]
    rows = [workbooks.row(place + 1, 文章=text, 正確答案=place % 4 + 1) for place, text in enumerate(texts)]
    source = workbooks.write_xlsx(tmp_path / "a.xlsx", rows)
    convert(source, output_dir=tmp_path / "out", folds=5)
    told = capsys.readouterr().out
    assert "passages: 50; 25 after joining near-duplicates and parts of one another, at most 2 in one" in told
    assert "passages that are parts of one another, 25 times" in told
    for name in ("a_validation.json", *(f"a_fold{k}_validation.json" for k in range(5))):
        held_out = {texts.index(r.question.passage) for r in read_records(tmp_path / "out" / name) if r.question}
        assert {(place + 25) % 50 for place in held_out} == held_out
    account = manifest(tmp_path / "out")
    assert (account["passages"], account["clusters"], account["largest_cluster"]) == (50, 25, 2)
    assert account["warned"]["partial-passage"] == 25


def test_the_split_of_an_earlier_version_is_not_taken_for_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = labelled(tmp_path)
    convert(source, output_dir=tmp_path / "out")
    account = manifest(tmp_path / "out")
    del account["clustering"]  # as lrc wrote it when an excerpt could stand on the other side
    (tmp_path / "out" / "a_manifest.json").write_text(json.dumps(account), encoding="utf-8")
    with monkeypatch.context() as patch:
        patch.setattr("lrc.commands.convert.read_questions", lambda *_: pytest.fail("it was read"))
        with pytest.raises(OutputError, match=r"a\.xlsx was converted by another version of lrc, which kept other"):
            convert(source, output_dir=tmp_path / "out")
    convert(source, output_dir=tmp_path / "out", force=True)
    convert(source, output_dir=tmp_path / "out")  # nothing to do


def test_without_a_fraction_and_without_answers_there_is_one_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = labelled(tmp_path)
    convert(source, output_dir=tmp_path / "all", validation_fraction=0)
    assert names(tmp_path / "all") == ["a.json", "a_manifest.json"]
    assert "split" not in capsys.readouterr().out  # nothing was split, so there is nothing to compare with
    assert manifest(tmp_path / "all")["random_rows_would_leak"] == 0
    rows = [workbooks.test_row(1), workbooks.test_row(2, 選項4=None)]
    test = workbooks.write_xlsx(tmp_path / "b.xlsx", rows, workbooks.TEST)
    convert(test, output_dir=tmp_path / "test")
    assert names(tmp_path / "test") == ["b.json", "b_manifest.json"]
    content = json.loads((tmp_path / "test" / "b.json").read_text(encoding="utf-8"))
    assert [list(item)[:3] for item in content] == [["id", "instruction", "input"]] * 2
    assert not any("output" in item for item in content)
    with pytest.raises(DataError, match=r"b\.xlsx: has no answers to make 3 folds for"):
        convert(test, output_dir=tmp_path / "folds", folds=3)
    assert not (tmp_path / "folds").exists()


def test_folds_stand_beside_the_split(tmp_path: Path) -> None:
    source = labelled(tmp_path)
    convert(source, output_dir=tmp_path / "out", folds=3)
    folds = [f"a_fold{k}_{side}.json" for k in range(3) for side in ("train", "validation")]
    assert names(tmp_path / "out") == sorted([*SPLIT, *folds])
    n = len(read_workbook(source).questions)
    validated: Counter[int] = Counter()
    for k in range(3):
        train, validation = (read_records(tmp_path / "out" / f"a_fold{k}_{s}.json") for s in ("train", "validation"))
        assert len(train) + len(validation) == n
        validated.update(record.question.row or 0 for record in validation if record.question)
        assert not {r.input.split("\n")[0] for r in train} & {r.input.split("\n")[0] for r in validation}
    assert len(validated) == n and set(validated.values()) == {1}


def test_a_bad_row_is_refused_and_nothing_written(tmp_path: Path) -> None:
    source = labelled(tmp_path, 選項2=None)
    with pytest.raises(DataError, match=r"^a\.xlsx, row 2: 選項2 is empty"):
        convert(source, output_dir=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_bad_row_is_skipped_on_demand_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = labelled(tmp_path, 選項2=None)
    convert(source, output_dir=tmp_path / "out", on_error="skip")
    printed = capsys.readouterr()
    assert "skipped: a.xlsx, row 2: 選項2 is empty" in printed.out
    assert "reading" not in printed.out and printed.err == ""  # nobody waited
    account = manifest(tmp_path / "out")
    assert account["skipped"] == {"empty-option": 1} and account["skipped_rows"] == [2]
    assert account["rows_read"] == sum(account["questions"].values()) + 1
    rows = {r.question.row for name in SPLIT[1:] for r in read_records(tmp_path / "out" / name) if r.question}
    assert rows == set(range(3, account["rows_read"] + 2))


def test_no_good_row_is_refused(tmp_path: Path) -> None:
    source = workbooks.write_xlsx(tmp_path / "a.xlsx", [workbooks.row(1, 正確答案=9)])
    with pytest.raises(DataError, match="no valid rows are left"):
        convert(source, output_dir=tmp_path / "out", on_error="skip")


def test_too_few_passages_are_refused_unless_not_split(tmp_path: Path) -> None:
    text = "".join(chr(0x4E00 + i) for i in range(100))
    rows = [workbooks.row(i, 文章=text + "。" * i) for i in range(6)]
    source = workbooks.write_xlsx(tmp_path / "a.xlsx", rows)
    with pytest.raises(DataError, match=r"a\.xlsx: 6 questions have 1 passage .* use --validation-fraction 0"):
        convert(source, output_dir=tmp_path / "out")
    with pytest.raises(DataError, match="too few for 2 folds"):
        convert(source, output_dir=tmp_path / "out", validation_fraction=0, folds=2)
    convert(source, output_dir=tmp_path / "out", validation_fraction=0)
    assert len(read_records(tmp_path / "out" / "a.json")) == 6


def test_an_existing_output_stays_without_force(tmp_path: Path) -> None:
    source, out = labelled(tmp_path), tmp_path / "out"
    out.mkdir()
    (out / "a_validation.json").write_text("mine")
    with pytest.raises(OutputError, match=r"a_validation\.json: already exists"):
        convert(source, output_dir=out)
    assert names(out) == ["a_validation.json"] and (out / "a_validation.json").read_text() == "mine"
    convert(source, output_dir=out, force=True)
    assert names(out) == SPLIT


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"folds": 4}, {"folds": 2}),
        ({"folds": 3}, {}),
        ({}, {"validation_fraction": 0}),
        ({"validation_fraction": 0}, {}),
    ],
)
def test_force_leaves_no_file_of_another_split(
    tmp_path: Path, before: dict[str, Any], after: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = labelled(tmp_path), tmp_path / "out"
    convert(source, output_dir=out, **before)
    old = names(out)
    (out / "mine.json").write_text("[]")
    capsys.readouterr()
    convert(source, output_dir=out, force=True, **after)
    told = capsys.readouterr().out
    convert(source, output_dir=tmp_path / "new", **after)
    assert names(out) == sorted(["mine.json", *names(tmp_path / "new")])
    gone = sorted(set(old) - set(names(out)))
    text = f"{out}: removed what an earlier conversion had written and this one does not: {', '.join(gone)}"
    assert text in told.splitlines()


def test_force_keeps_a_file_that_was_changed_since(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = labelled(tmp_path), tmp_path / "out"
    convert(source, output_dir=out)
    (out / "a_train.json").write_text("[]")
    convert(source, output_dir=out, force=True, validation_fraction=0)
    assert names(out) == ["a.json", "a_manifest.json", "a_train.json"]


def test_a_workbook_that_changes_while_it_is_read_is_not_converted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = labelled(tmp_path), tmp_path / "out"
    with monkeypatch.context() as patch:

        def change(passages: Any) -> Any:
            labelled(tmp_path, 正確答案=3)
            return group_passages(passages)

        patch.setattr("lrc.commands.convert.group_passages", change)
        with pytest.raises(DataError, match=r"a\.xlsx: was changed while it was read; run again"):
            convert(source, output_dir=out)
    assert not out.exists()
    convert(source, output_dir=out)


def test_the_source_is_never_overwritten(tmp_path: Path) -> None:
    content = [[["文"], [{"question": "問", "choice": ["甲", "乙"], "answer": "乙"}], 7]]
    source = tmp_path / "a.json"
    source.write_text(json.dumps(content))
    with pytest.raises(OutputError, match="is the file to convert"):
        convert(source, output_dir=tmp_path, validation_fraction=0, force=True)
    assert json.loads(source.read_text()) == content
    convert(source, output_dir=tmp_path / "out", validation_fraction=0)
    assert read_records(tmp_path / "out" / "a.json")[0].output == "2"


def test_the_reference_layout(tmp_path: Path) -> None:
    source = labelled(tmp_path)
    convert(source, output_dir=tmp_path / "out", layout="reference")
    question = read_workbook(source).questions[0]
    records = [r for name in SPLIT[1:] for r in read_records(tmp_path / "out" / name)]
    (text,) = [r.input for r in records if r.question == question]
    assert text == f"{question.passage}問題:{question.question}1: 放風箏2: 釣魚3: 睡覺4: 讀書\n"
    assert manifest(tmp_path / "out")["layout"] == "reference"


def test_the_same_input_gives_the_same_bytes_under_any_hash_seed_and_locale(tmp_path: Path) -> None:
    source = labelled(tmp_path)
    results = set()
    for place, (seed, locale) in enumerate([("0", "C"), ("123", "C.UTF-8")]):
        out = tmp_path / str(place)
        environment = os.environ | {"PYTHONHASHSEED": seed, "LC_ALL": locale, "PYTHONPATH": ":".join(sys.path)}
        command = [sys.executable, "-m", "lrc", "convert", str(source), "--output-dir", str(out), "--folds", "2"]
        subprocess.run(command, env=environment, check=True, capture_output=True)
        results.add(tuple((name, (out / name).read_bytes()) for name in names(out)))
    assert len(results) == 1


@pytest.mark.parametrize("fresh", [True, False])
def test_killed_at_any_moment_it_leaves_nothing_or_the_whole(tmp_path: Path, fresh: bool) -> None:
    source = labelled(tmp_path)
    command = [sys.executable, "-m", "lrc", "convert", str(source), "--output-dir"]
    environment = os.environ | {"PYTHONPATH": ":".join(sys.path)}
    start = time.monotonic()
    subprocess.run([*command, str(tmp_path / "timed")], env=environment, check=True, capture_output=True)
    duration = time.monotonic() - start
    generator = random.Random(fresh)
    for attempt in range(4):
        out = tmp_path / f"out{attempt}"
        if not fresh:
            out.mkdir()
        process = subprocess.Popen([*command, str(out)], env=environment, stdout=-3, stderr=-3)
        time.sleep(duration * generator.uniform(0.4, 1.1))
        process.send_signal(signal.SIGKILL)
        process.wait()
        seen = [name for name in names(out) if not name.startswith(".")] if out.exists() else []
        if seen != SPLIT:
            # Killed in the instant between two renames, a folder that was there before can have a part of the set.
            assert not (fresh and seen)
            for name in seen:
                with pytest.raises(DataError, match="left behind by a convert that was killed"):
                    read_records(out / name)
            convert(source, output_dir=out)
        assert len(read_records(out / "a_train.json")) > 0


@real
def test_the_real_test_workbook(tmp_path: Path) -> None:
    convert(SHARED / "AI1000.xlsx", output_dir=tmp_path / "out")
    records = read_records(tmp_path / "out" / "AI1000.json")
    assert [record.id for record in records] == [q.id for q in read_workbook(SHARED / "AI1000.xlsx").questions]
    assert len(records) == 1000 and all(record.output is None and record.question for record in records)


@real
def test_the_real_workbook(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError, match=r"AI\.xlsx, row 1901: 選項2 is empty") as caught:
        convert(SHARED / "AI.xlsx", output_dir=tmp_path / "out")
    assert len(caught.value.lines()) == 1
    convert(SHARED / "AI.xlsx", output_dir=tmp_path / "out", on_error="skip")
    assert "validate 78.7% of its questions on passages that it trains on" in capsys.readouterr().out
    train, validation = (read_records(tmp_path / "out" / f"AI_{side}.json") for side in ("train", "validation"))
    assert len(train) + len(validation) == 13_549
    assert abs(len(validation) / 13_549 - 0.2) < 0.002
    sides = [[canonical(r.question.passage) for r in side if r.question] for side in (train, validation)]
    assert not set(sides[0]) & set(sides[1])
    clusters = group_passages([*sides[0], *sides[1]]).clusters
    assert not set(clusters[: len(train)]) & set(clusters[len(train) :])
    for answer in "1234":
        share = sum(r.output == answer for r in validation) / sum(r.output == answer for r in (*train, *validation))
        assert share == pytest.approx(0.2, abs=0.005)


@pytest.mark.parametrize("flags", [{"seed": 7}, {"validation_fraction": 0.3}, {"folds": 3}, {"layout": "reference"}])
def test_another_output_is_refused_before_the_workbook_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: dict[str, Any]
) -> None:
    source = labelled(tmp_path)
    convert(source, output_dir=tmp_path / "out")
    read: list[Path] = []
    monkeypatch.setattr("lrc.commands.convert.read_questions", lambda path, *rest: read.append(path))
    with pytest.raises(OutputError, match="a_train.json: already exists"):
        convert(source, output_dir=tmp_path / "out", **flags)
    assert not read
