"""A `~` in paths, which a shell does not expand everywhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_runs import lrc, make_run, pairs

from lrc.runtime import system

KEYS = {"template": "plain", "answer_style": "digit", "max_steps": 1, "save_strategy": "no", "lora_r": 2}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    return tmp_path


def test_a_recipe_and_flags_with_a_tilde(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_run(home / "mine", pairs(8), pairs(2, name="v"), **KEYS)
    text = (folder / "recipe.yaml").read_text(encoding="utf-8").replace(str(home), "~")
    assert text.count("~/mine/") == 3
    (folder / "recipe.yaml").write_text(text, encoding="utf-8")
    assert lrc("preview", "~/mine/recipe.yaml", "--output_dir=~/mine/run", "--json") == 0
    assert json.loads(capsys.readouterr().out)
    asked = ["--model=~/mine/base", "--data=~/mine/t_validation.json", "--output=~/mine/a.csv"]
    assert lrc("generate", *asked, "--template", "plain", "--answer-style", "digit") == 0
    assert (home / "mine" / "a.csv").read_text(encoding="utf-8").startswith("ID,Answer\n")


def test_a_name_that_begins_with_a_tilde_is_no_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert system.expand_home("~") == str(home) and system.expand_home("~/a") == f"{home}/a"
    for name in ("~backup.xlsx", "~tmp/AI.xlsx", "a~", "data/~/b", ""):
        assert system.expand_home(name) == name
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.delenv(name)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as where there is no user of that number
    assert system.expand_home("~/a") == "~/a"
