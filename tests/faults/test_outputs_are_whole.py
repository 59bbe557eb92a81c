"""generate, merge and convert under fire: an output is whole or not there, and the same command then gives it."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from processes import Command
from strikes import LONG, times

from lrc.answering.submission import read_submission
from lrc.data.alpaca import dump_records, to_record
from lrc.data.questions import Question

QUESTIONS = 900  # seven chunks of the scorer and a bit


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Questions without answers, those of a passage apart from each other."""
    path = tmp_path_factory.mktemp("data") / "questions.json"
    questions = [
        Question(f"q{i}", f"第{i % 300}章。小明在台北工作。", f"誰？{i}", tuple("甲乙丙丁")) for i in range(QUESTIONS)
    ]
    path.write_text("".join(dump_records([to_record(question) for question in questions])), encoding="utf-8")
    return path


def generate(inputs: Path, adapter: Path, data: Path, output: Path, **settings: int) -> Command:
    words = ["generate", "--model", inputs / "base", "--adapter", adapter, "--data", data, "--output", output]
    return Command([*words, "--scores", output.with_suffix(".jsonl")], output.with_name("log"), **settings)


@pytest.fixture(scope="module")
def answers(inputs: Path, adapter: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The submission that nothing disturbed."""
    output = tmp_path_factory.mktemp("answers") / "answer.csv"
    command = generate(inputs, adapter, data, output)
    assert command.wait() == 0, command.told
    assert [identifier for identifier, _ in read_submission(output)] == [f"q{i}" for i in range(QUESTIONS)]
    return output


def side(output: Path) -> Path:
    return output.with_name(f".{output.name}.partial.jsonl")


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.fault("generate", "SIGKILL between chunks, then run again: the same CSV and scores")
@pytest.mark.parametrize("chunks", times(4, 7))
@pytest.mark.parametrize("repeat", times(1, 6))
def test_generate_goes_on_after_a_kill(
    chunks: int, repeat: int, inputs: Path, adapter: Path, data: Path, answers: Path, tmp_path: Path
) -> None:
    output = tmp_path / "answer.csv"
    command = generate(inputs, adapter, data, output)
    assert command.kill_when(lambda: lines(side(output)) > 128 * chunks)
    assert not output.exists()
    known = lines(side(output))
    again = generate(inputs, adapter, data, output)
    assert again.wait() == 0, again.told
    assert output.read_bytes() == answers.read_bytes()
    assert output.with_suffix(".jsonl").read_bytes() == answers.with_suffix(".jsonl").read_bytes()
    assert known >= 1 and not side(output).exists()


def test_generate_takes_no_score_of_another_run(
    inputs: Path, adapter: Path, data: Path, answers: Path, tmp_path: Path
) -> None:
    """A side file is used, as its scores being wrong shows, and only under the key of the very run."""
    output = tmp_path / "answer.csv"
    assert generate(inputs, adapter, data, output).kill_when(lambda: lines(side(output)) > 200)
    head, *rest = side(output).read_text().splitlines()
    wrong = [json.dumps([place, {**scores, "prediction": 4}]) for place, scores in map(json.loads, rest[:128])]
    side(output).write_text("\n".join([head, *wrong]) + "\n")
    assert generate(inputs, adapter, data, output).wait() == 0
    assert output.read_bytes() != answers.read_bytes()
    output.unlink()
    output.with_suffix(".jsonl").unlink()
    side(output).write_text("\n".join([json.dumps({"key": "another"}), *wrong]) + "\n")
    assert generate(inputs, adapter, data, output).wait() == 0
    assert output.read_bytes() == answers.read_bytes()


@pytest.mark.fault("generate", "file size limit: one line, no CSV, the same CSV once there is space")
@pytest.mark.parametrize("limit", [round(2_000 * 1.46**i) for i in range(10)] if LONG else [2_000, 60_000])
def test_generate_on_a_full_disk(
    limit: int, inputs: Path, adapter: Path, data: Path, answers: Path, tmp_path: Path
) -> None:
    output = tmp_path / "answer.csv"
    command = generate(inputs, adapter, data, output, file_limit=limit)
    assert command.wait() == 1
    assert "Traceback" not in "\n".join(command.told)
    assert str(tmp_path) in command.told[-1] and "File too large" in command.told[-1]
    assert not output.exists()
    assert generate(inputs, adapter, data, output).wait() == 0
    assert output.read_bytes() == answers.read_bytes()


def merge(adapter: Path, inputs: Path, output: Path, *flags: str, **settings: int) -> Command:
    words = ["merge", "--adapter", adapter, "--base-model", inputs / "base", "--output-dir", output, *flags]
    return Command(words, output.with_name("log"), **settings)


@pytest.fixture(scope="module")
def merged(inputs: Path, adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The merged model that nothing disturbed."""
    output = tmp_path_factory.mktemp("merged") / "m"
    command = merge(adapter, inputs, output)
    assert command.wait() == 0, command.told
    return output


MERGE_MOMENTS: list[Callable[[Path], bool]] = [
    lambda output: any(output.parent.glob(".m.*.part")),
    lambda output: any(output.parent.glob(".m.*.part/*")),
    lambda output: any(output.parent.glob(".m.*.part/*.safetensors")),
    lambda output: output.exists(),
]


@pytest.mark.fault("merge", "SIGKILL while written: whole or not there, then the same model")
@pytest.mark.parametrize("repeat", times(1, 10))
@pytest.mark.parametrize("moment", MERGE_MOMENTS)
def test_a_killed_merge(
    moment: Callable[[Path], bool], repeat: int, inputs: Path, adapter: Path, merged: Path, tmp_path: Path
) -> None:
    output = tmp_path / "m"
    merge(adapter, inputs, output).kill_when(lambda: moment(output))
    if not output.exists():
        again = merge(adapter, inputs, output)
        assert again.wait() == 0, again.told
    assert contents(output) == contents(merged)
    assert {path.name for path in tmp_path.iterdir()} <= {"m", "log"}


# Of the largest file, the weights; what it says has to fit, too.
@pytest.mark.fault("merge", "file size limit: one line with path and size, an earlier model intact")
@pytest.mark.parametrize("share", [i / 11 for i in range(1, 11)] if LONG else [0.01, 0.6])
def test_merge_on_a_full_disk(share: float, inputs: Path, adapter: Path, merged: Path, tmp_path: Path) -> None:
    output = tmp_path / "m"
    output.mkdir()
    (output / "config.json").write_text("an earlier model")
    largest = max(file.stat().st_size for file in merged.iterdir())
    command = merge(adapter, inputs, output, "--force", file_limit=int(largest * share))
    assert command.wait() == 1
    assert_one_line_about(output, command)
    assert contents(output) == {"config.json": b"an earlier model"}
    assert {path.name for path in tmp_path.iterdir()} == {"m", "log"}


SAMPLE = Path(__file__).parents[2] / "examples" / "sample.xlsx"


def convert(output: Path, *flags: str, **settings: int) -> Command:
    return Command(["convert", SAMPLE, "--output-dir", output, *flags], output.with_name("log"), **settings)


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The JSON files that nothing disturbed."""
    output = tmp_path_factory.mktemp("converted") / "data"
    command = convert(output)
    assert command.wait() == 0, command.told
    return output


CONVERT_MOMENTS: list[Callable[[Path], bool]] = [
    lambda output: output.exists(),
    lambda output: output.exists() and any(output.glob(".*.part")),
    lambda output: any(output.glob("*_validation.json")),
    lambda output: any(output.glob("*_manifest.json")),
]


@pytest.mark.fault("convert", "SIGKILL while written: whole files, then the same set without --force")
@pytest.mark.parametrize("repeat", times(1, 10))
@pytest.mark.parametrize("moment", CONVERT_MOMENTS)
def test_a_killed_convert(moment: Callable[[Path], bool], repeat: int, converted: Path, tmp_path: Path) -> None:
    output = tmp_path / "data"
    convert(output).kill_when(lambda: output.is_dir() and moment(output))
    for file in output.glob("sample_*.json"):
        assert file.read_bytes() == (converted / file.name).read_bytes()
    if not (output / "sample_manifest.json").exists():
        again = convert(output)
        assert again.wait() == 0, again.told
    assert contents(output) == contents(converted)


# Of the largest file, the training questions.
@pytest.mark.fault("convert", "file size limit: one line with path and size, an earlier set intact")
@pytest.mark.parametrize("share", [i / 11 for i in range(1, 11)] if LONG else [0.1, 0.9])
@pytest.mark.parametrize("earlier", [False, True], ids=["new folder", "earlier set"])
def test_convert_on_a_full_disk(share: float, earlier: bool, converted: Path, tmp_path: Path) -> None:
    output = tmp_path / "data"
    if earlier:
        shutil.copytree(converted, output)
    largest = max(file.stat().st_size for file in converted.iterdir())
    command = convert(output, "--seed", "7", "--force", file_limit=int(largest * share))
    assert command.wait() == 1
    assert_one_line_about(output, command)
    assert {path.name for path in tmp_path.iterdir()} - {"data"} == {"log"}
    assert not output.exists() or contents(output) == contents(converted)
    assert output.exists() == earlier


@pytest.mark.fault("merge", "SIGINT or SIGTERM: status 130 or 143, nothing left behind")
@pytest.mark.parametrize("repeat", times(1, 20))
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_ends_merge(number: int, repeat: int, inputs: Path, adapter: Path, tmp_path: Path) -> None:
    output = tmp_path / "m"
    command = merge(adapter, inputs, output)
    status = command.signal_when(lambda: any(tmp_path.glob(".m.*.part")), number)
    assert status in (0, 128 + number), command.told  # it may have been done already
    assert "Traceback" not in "\n".join(command.told)
    assert output.exists() == (status == 0)
    assert not any(tmp_path.glob(".m.*.part/*"))


def assert_one_line_about(output: Path, command: Command) -> None:
    assert "Traceback" not in "\n".join(command.told)
    line = command.told[-1]
    assert line.startswith(str(output)) and "File too large after " in line and "; " in line
    assert not [other for other in command.told[:-1] if "too large" in other]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}
