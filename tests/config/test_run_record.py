"""What is in a run file is what later commands can use, or it is refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lrc.config.run_record import RUN_FILE, Run, read_run
from lrc.runtime.errors import ModelError

FILE = {"name": "a_train.json", "sha256": "ab" * 32, "questions": 60}
QUANTIZED = {"method": "4 bits", "model_type": "llama", "dtype": "bfloat16", "vectors_sha256": "cd" * 32}
FIGURES = {"n": 60.0, "accuracy": 1, "ci_low": 0.9, "ci_high": 1.0, "baseline": "majority", "baseline_accuracy": 0.25}


def whole() -> Run:
    return Run(
        template="chat",
        answer_style="digit",
        list_options=True,
        recipe={"lora_r": 16, "dataset_name": None},
        data={"train_file": FILE},
        base={"name": "org/base", "revision": None, "tokenizer_sha256": None, "quantized": QUANTIZED},
        temperature=2,
        validation={**FIGURES, "verdict": "100%"},
        launch={"command": "lrc train a", "workbooks": {"train_file": {"name": "a.xlsx", "sha256": "ef" * 32}}},
        chat_date="2020-01-02",
    )


def test_what_was_written_is_read(tmp_path: Path) -> None:
    whole().write(tmp_path / RUN_FILE)
    assert read_run(tmp_path) == whole()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"temperature": 0}, "temperature is 0, expected a number from 1e-06 to 1000000.0"),
        ({"temperature": -1.0}, "temperature is -1.0, expected a number"),
        ({"temperature": float("nan")}, "temperature is nan, expected a number"),
        ({"temperature": 10**400}, "temperature is 1000"),
        ({"temperature": True}, "temperature is True, which is of another type"),
        ({"score_normalisation": "foo"}, "score_normalisation is 'foo', expected one of character, token, sum"),
        ({"template": "foo"}, "template is 'foo', expected one of chinese-alpaca-2, "),
        ({"answer_style": ["digit"]}, "answer_style is ['digit'], expected one of digit, "),
        ({"base": {"quantized": "x"}}, "base.quantized is 'x', which is of another type"),
        ({"base": {"quantized": {"method": "4 bits"}}}, "base.quantized.model_type is missing"),
        ({"base": {"name": 1}}, "base.name is 1, which is of another type"),
        ({"data": {"validation_file": 5}}, "data.validation_file is 5, which is of another type"),
        ({"data": {"x": {}}}, "data.x.name is missing"),
        ({"launch": {"workbooks": []}}, "launch.workbooks is [], which is of another type"),
        ({"launch": {"workbooks": {"train_file": {"name": "a"}}}}, "launch.workbooks.train_file.sha256 is missing"),
        ({"recipe": {"dataset_name": 5}}, "recipe.dataset_name is 5, which is of another type"),
        ({"validation": {"n": 3}}, "validation.accuracy is missing"),
        ({"chat_date": "today"}, "Invalid isoformat string: 'today'"),
        ({"seed": 1}, "seed is unknown"),
    ],
    ids=str,
)
def test_what_no_command_can_use_is_refused(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    path = tmp_path / RUN_FILE
    whole().write(path)
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **change}), encoding="utf-8")
    with pytest.raises(ModelError) as refused:
        read_run(tmp_path)
    (line,) = refused.value.lines()
    assert line.startswith(f"{path}: not a run file of lrc ({reason}") and line.endswith(
        "; train again, or remove the file"
    )
