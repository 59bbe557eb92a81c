"""The list of upstream methods that the trainers override is the one that whoever allows another version reads."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from trl import SFTTrainer

from lrc.runtime.packages import constraints_file
from lrc.training import base_trainer
from lrc.training.base_trainer import OVERRIDDEN, DurableTrainer
from lrc.training.run import main
from lrc.training.trainer import TreeTrainer


def test_every_overridden_method_of_upstream_is_listed() -> None:
    own = {name: value for one in (DurableTrainer, TreeTrainer) for name, value in vars(one).items()}
    overridden = {name for name in own if callable(getattr(SFTTrainer, name, None)) and not name.startswith("__")}
    assert len(OVERRIDDEN) == len(set(OVERRIDDEN)) and set(OVERRIDDEN) == overridden


@pytest.mark.parametrize("name", ["_get_grad_norm", "_maybe_log_save_evaluate"])
def test_a_version_without_one_of_them_is_refused_before_anything_is_read(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(SFTTrainer, name, None)
    keys = {"model_name_or_path": tmp_path, "train_file": tmp_path / "none.json", "output_dir": tmp_path / "out"}
    with pytest.raises(SystemExit, match="1"):
        main([word for key, value in keys.items() for word in (f"--{key}", str(value))])
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert f"SFTTrainer has no {name}, on which lrc relies; install the tested versions" in line


def test_the_versions_named_are_those_that_lrc_is_tested_with() -> None:
    pinned = dict(re.findall(r"^(transformers|trl)==(\d+\.\d+)", constraints_file().read_text(encoding="utf-8"), re.M))
    said = " ".join((base_trainer.__doc__ or "").split())
    assert f"tested with transformers {pinned['transformers']} and TRL {pinned['trl']}." in said
