"""An output that is whole when its process is killed is found done by the same command, and refused to any other."""

from __future__ import annotations

import builtins
import json
import os
import shutil
import signal
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from report_runs import make_run
from small_models import save_adapter, save_base, save_tokenizer
from small_runs import lrc, pairs, write_questions

from lrc.answering.submission import write_submission
from lrc.data.questions import Question
from lrc.metrics.predictions import OUTCOMES_FILE
from lrc.runtime.finished_outputs import BESIDE, records_folder, side_file

SAMPLE = Path(__file__).parents[2] / "examples" / "sample.xlsx"
Words = list[str | Path]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, an adapter of it, and questions."""
    home = tmp_path_factory.mktemp("inputs")
    save_tokenizer(save_base(home / "base"))
    save_adapter(home / "adapter", home / "base")
    write_questions(home / "asked.json", pairs(4, [3]))
    for name in "ab":
        make_run(home / name)
        lines = [{"id": str(i), "scores": [(i + k) % 4 * -0.5 - ord(name) % 2 for k in range(4)]} for i in range(8)]
        (home / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    passages = ("海邊有燈塔。", "山上下大雪。", "市場賣魚丸。", "學校放暑假。")
    options = ("甲", "乙", "丙", "丁")
    labelled = [Question(str(i), passages[i % 4] * 9, f"誰？{i}", options, i % 3 + 1) for i in range(8)]
    write_questions(home / "labelled.json", labelled)
    write_submission(home / "answers.csv", [str(i) for i in range(8)], [1] * 8)
    return home


def converting(inputs: Path, output: Path) -> Words:
    return ["convert", SAMPLE, "--output-dir", output]


def merging(inputs: Path, output: Path) -> Words:
    return ["merge", "--adapter", inputs / "adapter", "--base-model", inputs / "base", "--output-dir", output]


def generating(inputs: Path, output: Path) -> Words:
    asked: Words = ["--template", "plain", "--answer-style", "digit", "--scores", output.with_suffix(".jsonl")]
    return ["generate", "--model", inputs / "base", "--data", inputs / "asked.json", "--output", output, *asked]


def evaluating(inputs: Path, output: Path) -> Words:
    return ["evaluate", *generating(inputs, output)[1:]]


def scoring(inputs: Path, output: Path) -> Words:
    words = generating(inputs, output)
    return ["evaluate", *(word for word in words[1:] if word not in ("--output", output))]


def marking(inputs: Path, output: Path) -> Words:
    answers, data = inputs / "answers.csv", inputs / "labelled.json"
    return ["evaluate", "--predictions", answers, "--data", data, "--output", output]


def voting(inputs: Path, output: Path) -> Words:
    words: Words = ["vote", inputs / "a.jsonl", inputs / "b.jsonl", "--data", inputs / "labelled.json"]
    return [*words, "--output", output, "--scores", output.with_suffix(".jsonl")]


def comparing(inputs: Path, output: Path) -> Words:
    return ["compare", inputs / "a", inputs / "b", "--output", output]


def reporting(inputs: Path, output: Path) -> Words:
    return ["report", inputs / "a", "--output", output]


def annotating(inputs: Path, output: Path) -> Words:
    return ["check", SAMPLE, "--annotate", output.with_suffix(".xlsx")]


def fixing(inputs: Path, output: Path) -> Words:
    return ["check", SAMPLE, "--annotate", output.with_suffix(".xlsx"), "--fix", output.with_name("fixed.xlsx")]


VERBS: dict[str, tuple[Callable[[Path, Path], Words], Words]] = {
    "convert": (converting, ["--seed", "7"]),
    "merge": (merging, ["--dtype", "float16"]),
    "generate": (generating, ["--votes", "2"]),
    "evaluate": (evaluating, ["--votes", "2"]),
    "evaluate --scores": (scoring, ["--votes", "2"]),
    "evaluate --predictions": (marking, ["--columns", "文章=短文"]),
    "vote": (voting, ["--test-scores", "a.jsonl"]),
    "compare": (comparing, ["--data", "labelled.json"]),
    "check --annotate": (annotating, ["--columns", "文章=短文"]),
    "check --fix": (fixing, ["--columns", "文章=短文"]),
}
TOLD_ON_STDOUT = ("convert", "merge", "generate")  # elsewhere stdout has the figures


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def die(*told: Any, file: Any = None, **options: Any) -> None:
    """What takes the place of `print`, and kills where something goes to stdout."""
    if file is None:
        os.kill(os.getpid(), signal.SIGKILL)


def run_and_die_before_the_exit(words: Words, monkeypatch: pytest.MonkeyPatch, where: tuple[Any, str]) -> None:
    """Kill the process where it would call a function."""
    child = os.fork()
    if child == 0:
        monkeypatch.setattr(*where, die)
        try:
            lrc(*words)
        finally:
            os._exit(99)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize("verb", VERBS)
def test_the_same_command_finds_it_done(
    verb: str, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make, _ = VERBS[verb]
    words = make(inputs, tmp_path / "output")
    run_and_die_before_the_exit(words, monkeypatch, (builtins, "print"))
    before = {name: content for name, content in contents(tmp_path).items() if not name.endswith(".part")}
    assert before
    for _ in range(2):  # what the killed process held goes
        capsys.readouterr()
        assert lrc(*words) == 0
        told = capsys.readouterr()
        assert "nothing to do" in (told.out if verb in TOLD_ON_STDOUT else told.err)
        assert contents(tmp_path) == before


@pytest.mark.parametrize("verb", ["vote", "check --fix"])
def test_killed_between_its_two_files_it_goes_on(
    verb: str, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, _ = VERBS[verb]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert lrc(*make(inputs, whole / "output")) == 0
    replace = Path.replace

    def once(self: Path, target: Path) -> Path:
        done = replace(self, target)
        if Path(target).parent == cut:
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    child = os.fork()
    if child == 0:
        monkeypatch.setattr(Path, "replace", once)
        try:
            lrc(*make(inputs, cut / "output"))
        finally:
            os._exit(99)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    left = [path for path in cut.iterdir() if path.suffix != ".part"]
    assert len(left) == 1 and left[0].read_bytes() == (whole / left[0].name).read_bytes()
    assert lrc(*make(inputs, cut / "output")) == 0
    assert contents(cut) == contents(whole)


@pytest.mark.parametrize("words", [["schema", "--output", "a.json"], ["init", "folder"]], ids=["schema", "init"])
def test_shipped_files_that_are_there_are_in_nobodys_way(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert lrc(*words) == 0
    whole = contents(tmp_path)
    first, *others = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    for other in others[1::2]:
        other.unlink()
    assert lrc(*words) == 0 and contents(tmp_path) == whole
    first.write_text("changed", encoding="utf-8")
    changed = contents(tmp_path)
    capsys.readouterr()
    assert lrc(*words) == 1
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1 and "already exists" in told[0] and contents(tmp_path) == changed


@pytest.mark.parametrize("verb", ["generate", "evaluate"])
def test_what_a_kill_leaves_beside_an_output_goes(
    verb: str, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, _ = VERBS[verb]
    output = tmp_path / "output"
    run_and_die_before_the_exit(
        make(inputs, output), monkeypatch, (import_module(f"lrc.commands.{verb}"), "remove_partial_scores")
    )
    before = contents(tmp_path)
    assert side_file(output).name in before
    assert lrc(*make(inputs, output)) == 0
    assert contents(tmp_path) == {name: before[name] for name in ("output", "output.jsonl")}


@pytest.mark.parametrize("verb", VERBS)
def test_another_flag_and_another_input_are_refused(
    verb: str, inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, flags = VERBS[verb]
    words = make(inputs, tmp_path / "output")
    assert lrc(*words) == 0
    before = contents(tmp_path)
    assert lrc(*words, *flags) == 1
    assert "already exists" in capsys.readouterr().err and contents(tmp_path) == before
    changed = max(path for path in tmp_path.rglob("*") if path.is_file())
    changed.write_bytes(changed.read_bytes() + b"\n")
    assert lrc(*words) == 1
    assert "already exists" in capsys.readouterr().err


def test_an_output_is_not_done_once_its_input_has_changed(inputs: Path, tmp_path: Path) -> None:
    questions = write_questions(tmp_path / "asked.json", pairs(4, [3]))
    words = generating(inputs, tmp_path / "a.csv")
    words[words.index(inputs / "asked.json")] = questions
    assert lrc(*words) == 0
    write_questions(questions, pairs(4, [2]))
    assert lrc(*words) == 1
    assert lrc(*words, "--force") == 0


def test_a_base_that_has_changed_is_another_input(inputs: Path, tmp_path: Path) -> None:
    save_tokenizer(save_base(tmp_path / "base"))
    words = merging(inputs, tmp_path / "m")
    words[words.index(inputs / "base")] = tmp_path / "base"
    assert lrc(*words) == 0
    save_base(tmp_path / "base", seed=1)
    assert lrc(*words) == 1


def test_where_the_record_is_lost_an_output_is_as_any_other(inputs: Path, tmp_path: Path) -> None:
    words = generating(inputs, tmp_path / "a.csv")
    assert lrc(*words) == 0
    for record in records_folder(Path("a")).iterdir():
        record.unlink()
    assert lrc(*words) == 1


def test_outputs_that_are_moved_with_their_records_are_done(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: Words = ["--data", inputs / "asked.json", "--template", "plain", "--answer-style", "digit"]
    words = ["generate", "--model", inputs / "base", *asked, "--output", "out/a.csv", "--scores", "out/a.jsonl"]
    (tmp_path / "here" / "out" / BESIDE).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    assert lrc(*words) == 0
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    shutil.rmtree(tmp_path / "here")
    monkeypatch.chdir(tmp_path / "there")
    capsys.readouterr()
    assert lrc(*words) == 0
    assert "nothing to do" in capsys.readouterr().out
    Path("out", "a.jsonl").write_text("", encoding="utf-8")
    assert lrc(*words) == 1


def test_figures_that_are_there_are_printed_again_and_no_model_is_asked(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = evaluating(inputs, tmp_path / "figures.json")
    assert lrc(*words) == 0
    first = capsys.readouterr().out
    monkeypatch.setattr("lrc.answering.load.load_scorer", lambda *asked: pytest.fail("a model was loaded"))
    assert lrc(*words) == 0
    assert capsys.readouterr().out == first
    assert lrc(*words, "--json") == 0
    assert json.loads(capsys.readouterr().out) == json.loads((tmp_path / "figures.json").read_text("utf-8"))


def test_an_evaluation_goes_on_after_a_kill(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = evaluating(inputs, tmp_path / "figures.json")
    assert lrc(*words) == 0
    undisturbed = (tmp_path / "figures.json").read_bytes()
    again = evaluating(inputs, tmp_path / "again.json")
    child = os.fork()
    if child == 0:
        monkeypatch.setattr("lrc.commands.evaluate.measure", lambda *told: os.kill(os.getpid(), signal.SIGKILL))
        try:
            lrc(*again)
        finally:
            os._exit(99)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    (tmp_path / ".again.json.partial.jsonl").stat()  # the scores are there already
    assert not (tmp_path / "again.json").exists()
    monkeypatch.setattr("lrc.answering.scoring.Scorer._chunk", lambda *asked: pytest.fail("scored again"))
    assert lrc(*again) == 0
    assert (tmp_path / "again.json").read_bytes() == undisturbed
    assert not (tmp_path / ".again.json.partial.jsonl").exists()


def test_a_page_is_done_until_its_run_changes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run")
    words: Words = ["report", run, "--output", tmp_path / "page.html"]
    for told in ("wrote ", "nothing to do"):
        assert lrc(*words) == 0
        assert told in capsys.readouterr().out
    with (run / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"loss": 1.0, "step": 99}\n')
    assert lrc(*words) == 1 and "already exists" in capsys.readouterr().err
    assert lrc(*words, "--force") == 0


# What is called once the input has been read, and an input of the command.
CHANGED: dict[str, tuple[Callable[[Path, Path], Words], str, str]] = {
    "generate": (generating, "lrc.answering.answer.answer", "asked.json"),
    "generate, before answering": (generating, "lrc.commands.generate.read_questions_to_answer", "asked.json"),
    "evaluate": (evaluating, "lrc.answering.answer.answer", "asked.json"),
    "evaluate --scores": (scoring, "lrc.answering.answer.answer", "asked.json"),
    "evaluate --predictions": (marking, "lrc.commands.evaluate.measure", "answers.csv"),
    "vote": (voting, "lrc.commands.vote.fit_pool", "a.jsonl"),
    "compare": (comparing, "lrc.commands.compare.compare_answers", f"b/{OUTCOMES_FILE}"),
    "report": (reporting, "lrc.commands.report.read_outcomes", f"a/{OUTCOMES_FILE}"),
    "check --annotate": (
        lambda home, output: ["check", home / "sample.xlsx", "--annotate", output.with_suffix(".xlsx")],
        "lrc.commands.check.annotate_copy",
        "sample.xlsx",
    ),
}


@pytest.mark.parametrize("case", CHANGED)
def test_nothing_is_made_of_an_input_that_changes_while_it_is_read(
    case: str, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make, called, name = CHANGED[case]
    home, folder = Path(shutil.copytree(inputs, tmp_path / "home")), tmp_path / "folder"
    shutil.copyfile(SAMPLE, home / "sample.xlsx")
    folder.mkdir()
    words = make(home, folder / "output")
    module, function = called.rsplit(".", 1)
    original = getattr(import_module(module), function)

    def change(*given: Any, **named: Any) -> Any:
        found = original(*given, **named)
        with (home / name).open("ab") as file:
            file.write(b"\n")
        return found

    with monkeypatch.context() as patch:
        patch.setattr(called, change)
        assert lrc(*words) == 1
    assert f"{name}: was changed while it was read; run again" in capsys.readouterr().err
    assert not [path for path in folder.iterdir() if not path.name.endswith(".partial.jsonl")]
    assert lrc(*words) == 0
    assert any(folder.iterdir())
