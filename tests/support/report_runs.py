"""Makes the folder of a run for a report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from questions import ask

from lrc.config.run_record import Run
from lrc.metrics.predictions import OUTCOMES_FILE, Outcome, write_outcomes

ATTACK = '"><img src=x onerror="window.broken=1"><script>window.broken=1</script>&lt;'
HOME = "/home/someone/models/tiny"
TOKEN = "hf_" + "a1B2" * 6


def outcome(row: int, answer: int, prediction: int, confidence: float, **changes: Any) -> Outcome:
    """The model gives `confidence` to its choice and shares the rest."""
    rest = (1 - confidence) / 3
    probabilities = tuple(confidence if number == prediction else rest for number in range(1, 5))
    return Outcome(ask(row, answer=answer, **changes), probabilities, prediction)


OUTCOMES = [
    outcome(2, answer=1, prediction=1, confidence=0.9),
    outcome(3, answer=2, prediction=2, confidence=0.55, passage="長" * 300),
    outcome(4, answer=3, prediction=1, confidence=0.97, passage=ATTACK, question="攻擊題"),
    outcome(5, answer=4, prediction=2, confidence=0.4, options=("甲", "乙", ATTACK, "")),
    outcome(6, answer=2, prediction=1, confidence=0.7, passage="燈塔在海邊。"),
]
LINES = [
    {"step": 10, "loss": 2.5, "learning_rate": 1e-4, "epoch": 1.0},
    {"step": 20, "loss": 1.25, "learning_rate": 2e-4, "epoch": 2.0},
    {"step": 20, "eval_loss": 1.5, "eval_accuracy": 0.4, "eval_ci_low": 0.1176, "eval_ci_high": 0.7693},
    {"step": 30, "loss": float("nan"), "learning_rate": 0.0, "epoch": 3.0},
    {"step": 30, "train_runtime": 120.0, "train_questions_per_second": 5.0, "train_loss": 1.5},
]


def make_run(folder: Path) -> Path:
    """Make a run's folder, with what a page must neither show nor stumble over."""
    folder.mkdir()
    Run(
        template="plain",
        answer_style="digit",
        list_options=True,
        recipe={"model_name_or_path": HOME, "deepspeed": f"{HOME}/zero.json", "lora_r": 16, "hub_token": TOKEN},
        data={"train_file": {"name": f"{HOME}/AI_train.json", "sha256": "ab" * 32, "questions": 60}},
        base={"name": "tiny", "weights_sha256": "cd" * 32},
        versions={"trl": "1.16.0"},
        finished=True,
    ).write(folder / "lrc_run.json")
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES))
    write_outcomes(folder / OUTCOMES_FILE, OUTCOMES)
    return folder
