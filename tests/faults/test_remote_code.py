"""Code that comes with a base model: it runs in a training whose recipe asks for it, and nowhere else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from processes import Command

from lrc.reporting.model_card import model_card

CODE = """
from transformers import LlamaConfig, LlamaForCausalLM

open({marker!r}, "w").close()


class StrangeConfig(LlamaConfig):
    model_type = "strange"


class Strange(LlamaForCausalLM):
    config_class = StrangeConfig
"""


@pytest.fixture
def strange(inputs: Path, tmp_path: Path) -> Path:
    """A base whose code leaves a file, `ran`, beside it when it is run."""
    base = tmp_path / "base"
    shutil.copytree(inputs / "base", base)
    (base / "strange.py").write_text(CODE.format(marker=str(tmp_path / "ran")))
    config = json.loads((base / "config.json").read_text())
    own = {"AutoConfig": "strange.StrangeConfig", "AutoModelForCausalLM": "strange.Strange"}
    (base / "config.json").write_text(json.dumps({**config, "model_type": "strange", "auto_map": own}))
    return base


def test_it_runs_where_the_recipe_says_so(strange: Path, inputs: Path, tmp_path: Path) -> None:
    ran, output = tmp_path / "ran", tmp_path / "a"
    words = ["train", "--config", inputs / "recipe.yaml", "--output_dir", output, "--model_name_or_path", strange]
    cache = {"HF_MODULES_CACHE": str(tmp_path / "modules")}
    refused = Command(words, tmp_path / "log", environment=cache)
    assert refused.wait() == 1
    assert str(strange) in refused.told[-1] and "trust_remote_code" in refused.told[-1]
    assert not ran.exists() and not output.exists()

    trusted = Command([*words, "--trust_remote_code", "--max_steps", "1"], tmp_path / "log", environment=cache)
    assert trusted.wait() == 0, trusted.told
    assert f"trust_remote_code: code that comes with {strange} runs on this machine" in trusted.told
    assert ran.exists()
    assert "Trained with `trust_remote_code: true`" in str(model_card(output, "someone/strange"))

    # What was trusted in training is not trusted in answering.
    ran.unlink()
    data = ["--model", strange, "--adapter", output, "--data", inputs / "t_validation.json"]
    for verb in (
        ["generate", *data, "--output", tmp_path / "answer.csv"],
        ["evaluate", *data],
        ["merge", "--adapter", output, "--base-model", strange, "--output-dir", tmp_path / "m"],
    ):
        command = Command(verb, tmp_path / "log", environment=cache)
        assert command.wait() == 1, command.told
        assert "Traceback" not in "\n".join(command.told)
        assert str(strange) in command.told[-1] and not ran.exists()


def test_a_card_says_nothing_of_it_otherwise(adapter: Path) -> None:
    assert "trust_remote_code" not in str(model_card(adapter, "someone/adapter"))
