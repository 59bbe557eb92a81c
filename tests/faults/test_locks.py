"""One writer at a time: a second run is refused while the first is alive, and a dead one is no obstacle."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from processes import Command
from test_training_survives import assert_as_undisturbed, finish, pair, start

from lrc.config.run_record import RUN_FILE
from lrc.runtime.locks import left_behind, locked
from lrc.runtime.outputs import new_file, new_folder

SAMPLE = Path(__file__).parents[2] / "examples" / "sample.xlsx"
VERBS = ["convert", "merge", "generate"]


def words(verb: str, inputs: Path, adapter: Path, output: Path) -> list[str | Path]:
    if verb == "convert":
        return ["convert", SAMPLE, "--output-dir", output]
    model: list[str | Path] = ["--adapter", adapter]
    if verb == "merge":
        return ["merge", *model, "--base-model", inputs / "base", "--output-dir", output]
    return ["generate", *model, "--model", inputs / "base", "--data", inputs / "t_train.json", "--output", output]


def refusal(output: Path, pid: int) -> str:
    cure = f"wait for it to finish, stop it (kill {pid}), or choose another name"
    return f"{output}: process {pid} is writing it; {cure}"


@pytest.mark.fault("convert, merge, generate", "a second run into the same output: refused in one line with the pid")
@pytest.mark.parametrize("verb", VERBS)
def test_an_output_that_is_being_written(verb: str, inputs: Path, adapter: Path, tmp_path: Path) -> None:
    output = tmp_path / "output"
    with locked(output, folder=verb != "generate"):
        command = Command(words(verb, inputs, adapter, output), tmp_path / "log")
        assert command.wait() == 1
    assert command.told[-1] == refusal(output, os.getpid())
    assert "Traceback" not in "\n".join(command.told)
    assert [path.name for path in tmp_path.iterdir()] == ["log"]
    again = Command(words(verb, inputs, adapter, output), tmp_path / "log")
    assert again.wait() == 0, again.told
    assert {path.name for path in tmp_path.iterdir()} == {"log", "output"}


@pytest.mark.fault("convert, merge, generate", "left behind by a killed process: removed, files of the user stay")
@pytest.mark.parametrize("verb", VERBS)
def test_what_a_dead_process_left(verb: str, inputs: Path, adapter: Path, tmp_path: Path) -> None:
    output = tmp_path / "output"
    part = tmp_path / ".output.1234-0123abcd.part"
    if verb == "generate":
        part.write_text("half")
    else:
        part.mkdir()
        (part / "half").write_text("half")
    kept = [".output.part", ".output.mine.part", "output.1234-0123abcd.part", ".other.1234-0123abcd.part"]
    for name in kept:
        (tmp_path / name).write_text("mine")
    (tmp_path / ".output.77-0123abcd.part").symlink_to(tmp_path / kept[0])
    command = Command(words(verb, inputs, adapter, output), tmp_path / "log")
    assert command.wait() == 0, command.told
    left = {path.name for path in tmp_path.iterdir()} - {"log", "output"}
    assert left == {*kept, ".output.77-0123abcd.part"}
    assert all((tmp_path / name).read_text() == "mine" for name in kept)


@pytest.mark.fault("train", "a second run into the same output_dir: refused in one line with the pid")
def test_one_training_in_a_folder(inputs: Path, adapter: Path, tmp_path: Path) -> None:
    output = tmp_path / "a"
    first = start(inputs, output)
    pid = first.pause_when((output / "checkpoint-2").exists)
    for overrides in ((), ("--overwrite_output_dir", "--lora_r", "2")):
        second = Command(
            ["train", "--config", inputs / "recipe.yaml", "--output_dir", output, *overrides], tmp_path / "2"
        )
        assert second.wait() == 1
        assert second.told[-1] == refusal(output, pid)
        assert "Traceback" not in "\n".join(second.told)
    merging = Command([*words("merge", inputs, adapter, output), "--force"], tmp_path / "3")
    assert merging.wait() == 1
    assert merging.told[-1] == refusal(output, pid)
    assert first.resume() == 0, first.told
    assert_as_undisturbed(output, adapter)


def test_a_second_generate(inputs: Path, adapter: Path, tmp_path: Path) -> None:
    """It is refused while the first one still answers, long before it writes the CSV."""
    output = tmp_path / "answer.csv"
    first = Command(words("generate", inputs, adapter, output), tmp_path / "log")
    pid = first.pause_when((tmp_path / ".answer.csv.partial.jsonl").exists)
    second = Command(words("generate", inputs, adapter, output), tmp_path / "2")
    assert second.wait() == 1
    assert second.told[-1] == refusal(output, pid)
    assert first.resume() == 0, first.told
    assert {path.name for path in tmp_path.iterdir()} == {"log", "2", "answer.csv"}


def test_a_claim_of_a_killed_training(inputs: Path, adapter: Path, tmp_path: Path) -> None:
    output = tmp_path / "a"
    assert start(inputs, output).kill_when((output / "checkpoint-2").exists)
    assert [part.name.startswith(f".{RUN_FILE}.") for part in left_behind(output)] == [True]
    finish(inputs, output)
    assert_as_undisturbed(output, adapter)


def test_only_the_first_process_of_a_launch_claims_and_speaks(inputs: Path, tmp_path: Path) -> None:
    output = tmp_path / "a"
    output.mkdir()
    with locked(output / RUN_FILE):
        commands = pair(inputs, output)
        assert [command.wait() for command in commands] == [1, 1]
    assert [refusal(output, os.getpid()) in command.told for command in commands] == [True, False]
    assert not any(output.iterdir())


def test_a_replacement_cut_in_two_is_undone(inputs: Path, adapter: Path, tmp_path: Path) -> None:
    """The old folder, moved aside by a --force that was killed before the new one had its name, comes back."""
    output = tmp_path / "m"
    moved = tmp_path / ".m.1234-0123abcd.part" / ".replaced"
    moved.mkdir(parents=True)
    (moved / "mine").write_text("mine")
    command = Command(words("merge", inputs, adapter, output), tmp_path / "log")
    assert command.wait() == 1
    assert "already exists" in command.told[-1] and (output / "mine").read_text() == "mine"


@pytest.mark.parametrize("verb", VERBS)
def test_the_folder_may_be_locked_by_whoever_started_it(verb: str, inputs: Path, adapter: Path, tmp_path: Path) -> None:
    """As `flock FOLDER lrc …` does."""
    handle = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    command = Command(words(verb, inputs, adapter, tmp_path / "output"), tmp_path / "log")
    assert command.wait() == 0, command.told
    os.close(handle)


def test_a_file_in_a_folder_of_its_own_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lrc.runtime.locks.time.sleep", lambda seconds: pytest.fail("waits for itself"))
    with new_folder(tmp_path / "a") as folder, new_file(folder / "b") as file:
        file.write_text("c")
    assert (tmp_path / "a" / "b").read_text() == "c"


OVERWRITTEN: dict[str, Callable[[Path, Path], list[str]]] = {
    "the data": lambda inputs, home: ["--train_file", str(home / "t_train.json")],
    "the base model": lambda inputs, home: ["--model_name_or_path", str(home / "base")],
}


@pytest.mark.parametrize("overrides", OVERWRITTEN.values(), ids=OVERWRITTEN.keys())
def test_overwriting_does_not_remove_what_is_trained_on(
    overrides: Callable[[Path, Path], list[str]], inputs: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    shutil.copytree(inputs, home)
    before = sorted(home.rglob("*"))
    command = start(inputs, home, "--overwrite_output_dir", *overrides(inputs, home))
    assert command.wait() == 1
    assert str(home) in command.told[-1] and "Traceback" not in "\n".join(command.told)
    assert sorted(home.rglob("*")) == before
