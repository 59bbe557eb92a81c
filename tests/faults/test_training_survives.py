"""Training under fire: whatever strikes, the run goes on to the very bytes of a run that nothing struck."""

from __future__ import annotations

import json
import random
import shutil
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import pytest
from processes import Command, after
from strikes import LONG, STEPS, times

from lrc.training.checkpoint import STAGE, checkpoints, find_damage

WEIGHTS = "adapter_model.safetensors"


def start(inputs: Path, output: Path, *overrides: str, **settings: Any) -> Command:
    words = ["train", "--config", inputs / "recipe.yaml", "--output_dir", output, *overrides]
    return Command(words, output.with_name(f"{output.name}.log"), **settings)


def finish(inputs: Path, output: Path, *overrides: str) -> list[str]:
    """Run to the end; what was said."""
    command = start(inputs, output, *overrides)
    assert command.wait() == 0, command.told
    return command.told


CLOCK = ("runtime", "per_second", "peak_memory")


def history(output: Path) -> list[dict[str, Any]]:
    """What the run measured, without the clock, the memory and the summary, which are of what one process did."""
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [
        {k: v for k, v in line.items() if not any(word in k for word in CLOCK)}
        for line in lines
        if "train_runtime" not in line
    ]


def assert_as_undisturbed(output: Path, adapter: Path) -> None:
    assert (output / WEIGHTS).read_bytes() == (adapter / WEIGHTS).read_bytes()
    assert history(output) == history(adapter)
    assert {path.name for path in output.iterdir()} == {path.name for path in adapter.iterdir()}


def assert_whole(output: Path) -> None:
    for checkpoint in checkpoints(output):
        assert find_damage(checkpoint) is None


@pytest.fixture(scope="module")
def seconds(inputs: Path, adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> float:
    """How long a run takes."""
    began = time.monotonic()
    output = tmp_path_factory.mktemp("timed") / "a"
    finish(inputs, output)
    assert_as_undisturbed(output, adapter)
    return time.monotonic() - began


@pytest.mark.fault("train", "SIGKILL at a random moment, then run again: bit-equal")
@pytest.mark.parametrize("seed", times(3, 40))
def test_killed_at_any_moment(seed: int, inputs: Path, adapter: Path, seconds: float, tmp_path: Path) -> None:
    output = tmp_path / "a"
    start(inputs, output).kill_when(after(random.Random(seed).uniform(0, seconds)))
    assert_whole(output)
    finish(inputs, output)
    assert_as_undisturbed(output, adapter)


MOMENTS: dict[str, Callable[[Path], bool]] = {
    "folder just made": lambda output: output.is_dir(),
    "first checkpoint half written": lambda output: (output / STAGE / "checkpoint-2" / WEIGHTS).exists(),
    "later checkpoint half written": lambda output: (output / STAGE / "checkpoint-6" / "optimizer.pt").exists(),
    "checkpoint named": lambda output: (output / "checkpoint-4").exists(),
    "adapter half written": lambda output: (output / STAGE / "final").exists(),
    "adapter given its name": lambda output: (output / WEIGHTS).exists(),
}


@pytest.mark.fault("train", "SIGKILL while something is written, then run again: bit-equal")
@pytest.mark.parametrize("repeat", times(1, 7))
@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS.keys())
def test_killed_at_the_worst_moment(
    moment: Callable[[Path], bool], repeat: int, inputs: Path, adapter: Path, tmp_path: Path
) -> None:
    output = tmp_path / "a"
    start(inputs, output).kill_when(lambda: moment(output))
    assert_whole(output)
    finish(inputs, output)
    assert_as_undisturbed(output, adapter)


@pytest.mark.fault("train", "SIGTERM or SIGINT: status 143 or 130, run again: bit-equal")
@pytest.mark.parametrize("repeat", times(1, 10))
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_ends_it_after_the_step_in_hand(
    number: int, repeat: int, inputs: Path, adapter: Path, tmp_path: Path
) -> None:
    output = tmp_path / "a"
    random.seed(repeat)
    at = f"checkpoint-{random.choice([2, 4, 6])}"
    command = start(inputs, output)
    assert command.signal_when((output / at).exists, number) == 128 + number, command.told
    assert "Traceback" not in "\n".join(command.told)
    assert command.told[-1].startswith(f"{output}: stopped after step ")
    step = int(command.told[-1].split("stopped after step ")[1].split(";")[0])
    assert checkpoints(output)[-1].name == f"checkpoint-{step}" and find_damage(checkpoints(output)[-1]) is None
    assert f"resuming from {output}/checkpoint-{step}" in finish(inputs, output)
    assert (output / WEIGHTS).read_bytes() == (adapter / WEIGHTS).read_bytes()
    assert history(output) == history(adapter)


def test_a_signal_before_the_first_step_ends_it_at_once(inputs: Path, adapter: Path, tmp_path: Path) -> None:
    command = start(inputs, tmp_path / "a")
    assert command.signal_when((tmp_path / "a").is_dir, signal.SIGTERM) == 128 + signal.SIGTERM
    assert command.told[-1] == "lrc: terminated"
    finish(inputs, tmp_path / "a")
    assert_as_undisturbed(tmp_path / "a", adapter)


@pytest.fixture(scope="module")
def stopped(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped after at least two checkpoints."""
    output = tmp_path_factory.mktemp("stopped") / "a"
    assert start(inputs, output).signal_when((output / "checkpoint-4").exists, signal.SIGTERM) == 143
    return output


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


DAMAGE: dict[str, Callable[[Path], None]] = {
    "adapter cut short": lambda checkpoint: cut(checkpoint / WEIGHTS),
    "optimizer state cut short": lambda checkpoint: cut(checkpoint / "optimizer.pt"),
    "trainer state missing": lambda checkpoint: (checkpoint / "trainer_state.json").unlink(),
    "zero bytes in the adapter": lambda checkpoint: (checkpoint / WEIGHTS).write_bytes(
        bytes((checkpoint / WEIGHTS).stat().st_size)
    ),
    "manifest empty": lambda checkpoint: (checkpoint / "checkpoint_manifest.json").write_text(""),
}


@pytest.mark.fault("train", "damaged newest checkpoint: the one before is used, bit-equal")
@pytest.mark.parametrize("harm", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_checkpoint_is_set_aside(
    harm: Callable[[Path], None], inputs: Path, stopped: Path, adapter: Path, tmp_path: Path
) -> None:
    output = tmp_path / "a"
    shutil.copytree(stopped, output)
    before, last = checkpoints(output)[-2:]
    harm(last)
    told = finish(inputs, output)
    assert [line for line in told if line.startswith(f"{last}: ") and "moved to" in line]
    assert f"resuming from {before}" in told
    assert (output / f"{last.name}.damaged").is_dir()
    assert (output / WEIGHTS).read_bytes() == (adapter / WEIGHTS).read_bytes()


# Of the largest file, optimizer.pt; what it says has to fit, too.
@pytest.mark.fault("train", "file size limit: one line, checkpoints intact, bit-equal once there is space")
@pytest.mark.parametrize("share", [i / 11 for i in range(1, 11)] if LONG else [0.02, 0.6])
def test_a_full_disk_is_said_in_one_line(
    share: float, inputs: Path, stopped: Path, adapter: Path, tmp_path: Path
) -> None:
    output = tmp_path / "a"
    shutil.copytree(stopped, output)
    before = checkpoints(output)
    largest = max(file.stat().st_size for file in before[-1].iterdir())
    command = start(inputs, output, file_limit=int(largest * share))
    assert command.wait() == 1
    assert "Traceback" not in "\n".join(command.told)
    # The smallest has no room for a copy of the tokenizer, which is made before anything has a place in the output.
    assert any(place in command.told[-1] for place in (str(output), gettempdir())) and "; " in command.told[-1]
    assert [find_damage(checkpoint) for checkpoint in before] == [None, None]
    finish(inputs, output)
    assert_as_undisturbed(output, adapter)


def test_numbers_that_are_not_finite_stop_it(inputs: Path, tmp_path: Path) -> None:
    output = tmp_path / "a"
    overrides = ["--learning_rate", "1.0e+30", "--lr_scheduler_type", "constant", "--save_steps", "1"]
    command = start(inputs, output, *overrides)
    assert command.wait() == 1
    line = command.told[-1]
    assert line.startswith("step 2: its ") and "is not finite, questions q" in line
    assert line.count("q", line.index("questions") + 9, line.index(";")) == 6
    assert [checkpoint.name for checkpoint in checkpoints(output)] == ["checkpoint-1"]
    assert find_damage(output / "checkpoint-1") is None and not (output / WEIGHTS).exists()


def pair(inputs: Path, output: Path) -> list[Command]:
    """The two processes that a launcher would start."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [
        Command(
            ["train", "--config", inputs / "recipe.yaml", "--output_dir", output],
            output.with_name(f"{output.name}.log{rank}"),
            environment={**launch, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in (0, 1)
    ]


@pytest.mark.fault("train", "two processes, SIGKILL to one, then SIGTERM to one: bit-equal")
def test_two_processes(inputs: Path, tmp_path: Path) -> None:
    whole, output = tmp_path / "whole", tmp_path / "a"
    assert [command.wait() for command in pair(inputs, whole)] == [0, 0]
    first, second = pair(inputs, output)
    assert second.kill_when((output / "checkpoint-2").exists)
    assert first.send(signal.SIGKILL) in (1, -signal.SIGKILL)  # it may have noticed before
    assert_whole(output)
    first, second = pair(inputs, output)
    # A signal to one of them stops both, after the same step.
    assert first.signal_when((output / "checkpoint-4").exists, signal.SIGTERM) == 143, first.told
    assert second.wait() == 143, second.told
    assert_whole(output)
    again = pair(inputs, output)
    assert [command.wait() for command in again] == [0, 0], [command.told for command in again]
    assert (output / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()
    assert history(output)[-1]["step"] == STEPS
