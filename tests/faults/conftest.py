"""What the fault tests share: a small run and its inputs, how often to strike, and the table of what was struck."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from processes import Command
from small_runs import make_run, pairs
from strikes import STEPS, TABLE

_struck: dict[tuple[Any, ...], list[int]] = {}  # by verb and fault: how often, and how often it went wrong


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker that puts a test into the table."""
    config.addinivalue_line("markers", "fault(verb, what): counts in the table that `make faults` prints")


def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Count a strike, and whether lrc kept its promise."""
    marker = item.get_closest_marker("fault")
    if marker and call.when == "call":
        strikes = _struck.setdefault(marker.args, [0, 0])
        strikes[0] += 1
        strikes[1] += call.excinfo is not None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table for docs/reliability.md."""
    if TABLE and _struck:
        terminalreporter.write_line("\n| verb | fault and promise | times | broken |\n|---|---|---|---|")
        for (verb, what), (count, broken) in sorted(_struck.items()):
            terminalreporter.write_line(f"| {verb} | {what} | {count} | {broken} |")


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, questions, and a recipe of eight steps with dropout, shuffling, evaluation and rotation."""
    questions = pairs(20, name="q")
    return make_run(
        tmp_path_factory.mktemp("inputs"),
        questions,
        questions[::4],
        template="chinese-alpaca-2",
        lora_r=4,
        lora_dropout=0.2,
        lora_target_modules=["q_proj", "v_proj", "down_proj"],
        per_device_train_batch_size=6,
        max_steps=STEPS,
        learning_rate=1.0e-2,
        lr_scheduler_type="cosine",
        logging_steps=1,
        eval_strategy="steps",
        eval_steps=4,
        save_strategy="steps",
        save_steps=2,
        save_total_limit=2,
        use_cpu=True,
    )


@pytest.fixture(scope="session")
def adapter(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    command = Command(["train", "--config", inputs / "recipe.yaml", "--output_dir", folder / "a"], folder / "log")
    assert command.wait() == 0, command.told
    return folder / "a"
