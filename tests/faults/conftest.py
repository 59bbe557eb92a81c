"""What the fault tests share: a small run and its inputs, how often to strike, and the table of what was struck."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from processes import Command
from strikes import STEPS, TABLE

from lrc.alpaca import dump_records, to_record
from lrc.questions import Question
from lrc.tinybase import make_base

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
    folder = tmp_path_factory.mktemp("inputs")
    records = [
        to_record(
            Question(
                f"q{i}", f"第{i // 2}章。{'小明在台北工作。' * (1 + i // 2)}", f"誰？{i}", tuple("甲乙丙丁"), i % 4 + 1
            )
        )
        for i in range(20)
    ]
    make_base(folder / "base", [record.input for record in records])
    for name, some in (("t_train", records), ("t_validation", records[::4])):
        (folder / f"{name}.json").write_text("".join(dump_records(some)), encoding="utf-8")
    recipe = {
        "model_name_or_path": str(folder / "base"),
        "train_file": str(folder / "t_train.json"),
        "validation_file": str(folder / "t_validation.json"),
        "template": "chinese-alpaca-2",
        "lora_r": 4,
        "lora_dropout": 0.2,
        "lora_target_modules": ["q_proj", "v_proj", "down_proj"],
        "per_device_train_batch_size": 6,
        "max_steps": STEPS,
        "learning_rate": 1.0e-2,
        "lr_scheduler_type": "cosine",
        "logging_steps": 1,
        "eval_strategy": "steps",
        "eval_steps": 4,
        "save_strategy": "steps",
        "save_steps": 2,
        "save_total_limit": 2,
        "use_cpu": True,
        "report_to": "none",
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def adapter(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    command = Command(["train", "--config", inputs / "recipe.yaml", "--output_dir", folder / "a"], folder / "log")
    assert command.wait() == 0, command.told
    return folder / "a"
