"""An adapter that starts with PiSSA: trained on a changed base, saved for the base as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from one_step import config, tree_trainer
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from small_models import PROJECTIONS, make_model
from small_runs import make_run, pairs, run
from token_trees import questions

from lrc.commands.merge import merge
from lrc.models.loading import load_base
from lrc.models.pissa import Pissa
from lrc.packing.log_probs import sequence_scores
from lrc.runtime.errors import RecipeError
from lrc.training.callbacks import MetricsCallback
from lrc.training.trainer import TreeTrainer


def trainer(folder: Path, *, steps: int = 3, **settings: Any) -> TreeTrainer:
    """A trainer of a small Llama with an untrained adapter."""
    settings = {"r": 4, "lora_alpha": 8, "target_modules": PROJECTIONS, "task_type": "CAUSAL_LM", **settings}
    model = get_peft_model(make_model("llama"), LoraConfig(**settings))
    sequences, passages = questions()
    return tree_trainer(model, sequences, passages, config(folder, max_steps=steps, learning_rate=3e-3))


def said(model: Any) -> torch.Tensor:
    """The log-likelihoods of some completions."""
    return torch.from_numpy(sequence_scores(model.eval(), questions()[0], torch.device("cpu"), 4096))


def on_untouched_base(adapter: Path) -> torch.Tensor:
    return said(PeftModel.from_pretrained(make_model("llama"), str(adapter)))


@pytest.mark.parametrize("method", ["pissa", "pissa_niter_4"])
def test_the_start_changes_the_base_and_not_what_the_model_says(tmp_path: Path, method: str) -> None:
    made, before = trainer(tmp_path), said(make_model("llama"))
    made.start_with_pissa(method, None)
    layer = made.model.base_model.model.model.layers[0].mlp.up_proj
    original = make_model("llama").model.layers[0].mlp.up_proj.weight
    largest = torch.linalg.svdvals(original)
    left = torch.linalg.svdvals(layer.base_layer.weight)
    assert left[0] < largest[3] + 0.05 < largest[0]  # its four principal components are gone
    assert torch.allclose(layer.base_layer.weight + layer.get_delta_weight("default"), original, atol=1e-5)
    assert torch.allclose(said(made.model), before, atol=1e-3)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_rslora": True},
        {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"up_proj": 3}},
        {"modules_to_save": ["lm_head"], "target_modules": ["q_proj", "down_proj"]},
    ],
    ids=["plain", "rslora", "patterns", "with a whole module"],
)
def test_what_is_saved_is_an_ordinary_adapter_of_the_untouched_base(tmp_path: Path, settings: dict[str, Any]) -> None:
    made = trainer(tmp_path, **settings)
    made.start_with_pissa("pissa", None)
    made.train()
    made.save_model(str(tmp_path / "adapter"))
    saved = json.loads((tmp_path / "adapter/adapter_config.json").read_text(encoding="utf-8"))
    assert (saved["r"], saved["init_lora_weights"]) == (8, True)
    learnt = (said(made.model) - said(make_model("llama"))).abs().max()
    assert learnt > 0.1
    assert torch.allclose(on_untouched_base(tmp_path / "adapter"), said(made.model), atol=1e-3)


def test_it_is_refused_where_it_would_be_wrong(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="PiSSA needs linear layers in 16 or 32 bit, .*embed_tokens is not one"):
        trainer(tmp_path, target_modules=["embed_tokens"]).start_with_pissa("pissa", None)
    tied = get_peft_model(make_model("llama-tied"), LoraConfig(target_modules=["lm_head"]))
    with pytest.raises(RecipeError, match="PiSSA would change what .*lm_head is tied to"):
        Pissa.begin(tied, "pissa")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, eight questions, and a recipe of four steps with PiSSA."""
    questions = pairs(8, (1,))
    return make_run(
        tmp_path_factory.mktemp("run"),
        questions,
        questions,
        template="alpaca",
        init_lora_weights="pissa_niter_2",
        lora_r=4,
        lora_dropout=0.1,
        lora_target_modules=["q_proj", "down_proj"],
        per_device_train_batch_size=4,
        max_steps=4,
        learning_rate=3.0e-3,
        logging_steps=1,
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=1,
    )


def said_of(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model.eval()(input_ids=torch.arange(5, 25)[None]).logits


def lines(output: Path, name: str) -> list[float]:
    told = map(json.loads, (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return [line[name] for line in told if name in line]


def test_a_run_that_was_cut_off_goes_on_exactly(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(folder, tmp_path / "whole") == 0

    def cut(self: MetricsCallback, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MetricsCallback, "on_step_end", cut)
        assert run(folder, tmp_path / "cut") == 130
    assert run(folder, tmp_path / "cut") == 0
    whole, resumed = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole) and whole.keys() == resumed.keys()
    assert lines(tmp_path / "cut", "loss") == lines(tmp_path / "whole", "loss")

    merge(tmp_path / "whole", tmp_path / "merged", verify=True)
    told = capsys.readouterr()
    assert "whole model in memory" not in told.err and "largest difference of a logit" in told.out
    merged, base = load_base(str(tmp_path / "merged")), load_base(str(folder / "base"))
    answered = said_of(PeftModel.from_pretrained(base, str(tmp_path / "whole")))
    assert torch.allclose(said_of(merged), answered, atol=1e-4)


def test_the_best_checkpoint_is_loaded_at_the_end(folder: Path, tmp_path: Path) -> None:
    best = ["--load_best_model_at_end", "--metric_for_best_model", "accuracy", "--learning_rate", "0.5"]
    assert run(folder, tmp_path / "a", *best) == 0
    accuracies = lines(tmp_path / "a", "eval_accuracy")[:4]
    step = accuracies.index(max(accuracies)) + 1
    assert step < 4  # at so high a rate it only gets worse
    final, kept = (
        load_file(tmp_path / "a" / name / "adapter_model.safetensors") for name in (".", f"checkpoint-{step}")
    )
    assert all(torch.allclose(final[name], kept[name]) for name in kept)


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["--load_in_4bit"], "init_lora_weights is pissa_niter_2, which changes the base that load_in_4bit freezes"),
        (["--use_dora"], "init_lora_weights is pissa_niter_2, and use_dora is true"),
        (["--use_rslora", "--rank_pattern", '{"q_proj": 2}'], "excludes use_rslora with a rank or alpha pattern"),
        (["--init_lora_weights", "pissa_niter_0"], "init_lora_weights is pissa_niter_0, expected gaussian, orthogonal"),
    ],
)
def test_keys_that_do_not_go_together(
    folder: Path, tmp_path: Path, overrides: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(folder, tmp_path / "a", *overrides) == 1
    assert line in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "a").exists()


def test_a_checkpoint_of_another_kind_of_run_is_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(folder, tmp_path / "plain", "--init_lora_weights", "gaussian") == 0
    named = ["--resume_from_checkpoint", str(tmp_path / "plain/checkpoint-1")]
    assert run(folder, tmp_path / "a", *named) == 1
    assert (
        "belongs to another run: init_lora_weights was gaussian and is pissa"
        in capsys.readouterr().err.splitlines()[-1]
    )
