"""What the fault tests share: a small run and its inputs, how often to strike, and the table of what was struck."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from processes import Command

from lrc.alpaca import dump_records, to_record
from lrc.questions import Question
from lrc.tinybase import make_base

LONG = os.environ.get("LRC_FAULTS") == "long"
STEPS = 8
_struck: Counter[tuple[str, str]] = Counter()


def times(short: int, long: int) -> range:
    """How often to strike, in the suite and in `make faults`."""
    return range(long if LONG else short)


@pytest.fixture
def struck(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """Give it `verb` and `fault` for the table; they count when the test passes."""
    row: list[str] = []
    failed = request.session.testsfailed
    yield row
    if row and request.session.testsfailed == failed:
        _struck[(row[0], row[1])] += 1


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table for docs/reliability.md."""
    if LONG and _struck:
        terminalreporter.write_line("\n| verb | fault | times | not as promised |\n|---|---|---|---|")
        for (verb, fault), count in sorted(_struck.items()):
            terminalreporter.write_line(f"| {verb} | {fault} | {count} | 0 |")


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
