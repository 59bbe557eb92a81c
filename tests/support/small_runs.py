"""Makes all that a small training run needs: a tiny base, files of questions, and a recipe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from lrc import cli, sft
from lrc.data.alpaca import dump_records, to_record
from lrc.data.questions import Question
from lrc.models.tiny import make_base


def pairs(count: int, lengths: Sequence[int] = range(1, 1000), *, name: str = "") -> list[Question]:
    """Questions of which two share a passage each.

    Args:
        lengths: sentences of each passage, in turn.
        name: what their ids begin with.
    """
    return [
        Question(
            f"{name}{i}",
            f"第{i // 2}章。{'小明在台北工作。' * lengths[i // 2 % len(lengths)]}",
            f"誰？{i}",
            ("甲", "乙", "丙", "丁"),
            i % 4 + 1,
        )
        for i in range(count)
    ]


def write_questions(path: Path, questions: Sequence[Question]) -> Path:
    """Write what `lrc convert` would."""
    path.write_text("".join(dump_records(map(to_record, questions))), encoding="utf-8")
    return path


def make_run(
    folder: Path, train: Sequence[Question], validation: Sequence[Question] | None = None, **keys: Any
) -> Path:
    """Write `base/`, `t_train.json`, `t_validation.json` and a `recipe.yaml` with `keys` beside the three paths.

    Returns:
        The folder.
    """
    make_base(folder / "base", [to_record(question).input for question in train])
    files = {"train_file": write_questions(folder / "t_train.json", train)}
    if validation is not None:
        files["validation_file"] = write_questions(folder / "t_validation.json", validation)
    recipe = {"model_name_or_path": str(folder / "base"), **{key: str(file) for key, file in files.items()}, **keys}
    (folder / "recipe.yaml").write_text(yaml.safe_dump({"report_to": "none", **recipe}), encoding="utf-8")
    return folder


def run(folder: Path, output: Path, *overrides: str) -> int:
    """Run training's entrypoint in this process on what `make_run` wrote; its exit status."""
    return _status(sft.main, ["--config", str(folder / "recipe.yaml"), "--output_dir", str(output), *overrides])


def lrc(*words: str | Path) -> int:
    """Run a command of lrc in this process; its exit status."""
    return _status(cli.main, [str(word) for word in words])


def _status(main: Callable[[list[str]], None], words: list[str]) -> int:
    try:
        main(words)
    except SystemExit as end:
        return int(end.code or 0)
    return 0
