"""Recipes through `load_recipe`: values reach the dataclasses, mistakes come back as lines with a cure."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from lrc.config.accelerate_config import find_accelerate_config
from lrc.config.field_types import ANY, members
from lrc.config.ignored_keys import IGNORED
from lrc.config.recipe import Recipe, find_recipe, load_recipe
from lrc.config.rules import UNSUPPORTED
from lrc.config.schema import shipped_schema
from lrc.runtime.errors import RecipeError
from lrc.runtime.translation import CHINESE

BASE = "model_name_or_path: base\ntrain_file: data/AI_train.json\noutput_dir: runs/one\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "qlora.yaml"


def load(path: Path, text: str = "", *overrides: str) -> Recipe:
    path.write_text(BASE + text, encoding="utf-8")
    return load_recipe(path, overrides)


def refusal(path: Path, text: str = "", *overrides: str) -> tuple[str, ...]:
    with pytest.raises(RecipeError) as refused:
        load(path, text, *overrides)
    return refused.value.lines()


def test_keys_reach_their_dataclasses(path: Path) -> None:
    recipe = load(path, "lora_r: 4\nlearning_rate: 2e-4\noption_orders: 4\nrank_pattern: {q_proj: 8}\n")
    assert (recipe.model.lora_r, recipe.training.learning_rate, recipe.data.option_orders) == (4, 2e-4, 4)
    assert recipe.adapter.rank_pattern == {"q_proj": 8}
    assert list(recipe.given) == [
        *("model_name_or_path", "train_file", "output_dir"),
        *("lora_r", "learning_rate", "option_orders", "rank_pattern"),
    ]


def test_defaults_suit_this_work(path: Path) -> None:
    recipe = load(path)
    assert recipe.model.use_peft
    assert not recipe.training.bf16 and not recipe.training.gradient_checkpointing
    assert recipe.training.completion_only_loss and recipe.training.report_to == []
    assert recipe.data.list_options and recipe.data.tree_packing


def test_options_are_hidden_where_plain_text_is_answered(path: Path) -> None:
    assert load(path, "answer_style: text\ntemplate: plain\n").data.list_options is False
    assert load(path, "answer_style: text\ntemplate: alpaca\n").data.list_options is True
    assert load(path, "answer_style: text\ntemplate: plain\nlist_options: true\n").data.list_options is True


def test_a_fold_names_its_files(path: Path) -> None:
    data = load(path, "validation_file: data/AI_validation.json\n", "--fold", "2").data
    assert (data.train_file, data.validation_file) == (
        "data/AI_fold2_train.json",
        "data/AI_fold2_validation.json",
    )
    assert "expected a name that ends in _train.json" in refusal(path, "", "--fold", "0", "--train_file", "a.json")[0]


def test_the_command_line_overrides_the_file(path: Path) -> None:
    words = ("--lora_r", "8", "--max-length=512", "--bf16_full_eval", "false", "--no_use_peft")
    recipe = load(path, "lora_r: 4\n", *words, "--lora_target_modules", "q_proj", "v_proj", "--tree_packing", "false")
    assert (recipe.model.lora_r, recipe.training.max_length, recipe.model.use_peft) == (8, 512, False)
    assert recipe.model.lora_target_modules == ["q_proj", "v_proj"]
    assert recipe.data.tree_packing is False
    assert recipe.given["lora_r"] == 8


def test_the_command_line_can_have_every_key() -> None:
    words = [
        "--model_name_or_path",
        "base",
        "--train_file",
        "a.json",
        "--output_dir",
        "out",
        "--max_steps",
        "3",
    ]
    assert load_recipe(None, words).training.max_steps == 3


def test_null_on_the_command_line_is_null(path: Path) -> None:
    given = "validation_file: a_validation.json\nlora_target_modules: [q_proj]\n"
    words = [word for key in ("validation_file", "max_length", "lora_target_modules") for word in (f"--{key}", "null")]
    recipe = load(path, given, *words)
    assert (recipe.data.validation_file, recipe.training.max_length) == (None, None)
    assert recipe.model.lora_target_modules is None


@pytest.mark.parametrize("value", ["''", "'  '", ""])
def test_a_blank_name_is_a_missing_one(path: Path, value: str) -> None:
    text = BASE.replace("runs/one", value)
    path.write_text(text)
    with pytest.raises(RecipeError) as refused:
        load_recipe(path)
    assert refused.value.lines() == ("qlora.yaml, line 3: output_dir is missing; give the folder for the adapter",)


def test_a_text_stands_for_a_list_of_one(path: Path) -> None:
    assert load(path, "lora_target_modules: all-linear\n").model.lora_target_modules == "all-linear"


def test_every_mistake_is_named_with_its_line(path: Path) -> None:
    text = "lora_rnak: 4\nlora_r: 4.5\nlora_alpha: four\nlora_dropout: true\n"
    found = refusal(path, text + "lr_scheduler_type: cosin\ntemplate: x\n")
    assert found[:4] == (
        "qlora.yaml, line 4: unknown key 'lora_rnak'; did you mean 'lora_r'?",
        "qlora.yaml, line 5: lora_r is 4.5, expected a whole number",
        'qlora.yaml, line 6: lora_alpha is "four", expected a whole number',
        "qlora.yaml, line 7: lora_dropout is true, expected a number",
    )
    assert found[4].startswith('qlora.yaml, line 8: lr_scheduler_type is "cosin", expected linear, cosine')
    assert found[5] == 'qlora.yaml, line 9: template is "x", expected chinese-alpaca-2, alpaca, chat or plain'


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("lora_r: 0", "qlora.yaml, line 4: lora_r is 0, expected 1 or more"),
        ("lora_dropout: 1.5", "qlora.yaml, line 4: lora_dropout is 1.5, expected less than 1"),
        ("num_train_epochs: 0", "qlora.yaml, line 4: num_train_epochs is 0, expected more than 0"),
        ("learning_rate: 0", "qlora.yaml, line 4: learning_rate is 0, expected more than 0"),
        ("learning_rate: -1.0e-4", "qlora.yaml, line 4: learning_rate is -0.0001, expected more than 0"),
        ("learning_rate: .nan", 'qlora.yaml, line 4: learning_rate is ".nan", expected a number'),
        ("lora_alpha: 0", "qlora.yaml, line 4: lora_alpha is 0, expected 1 or more"),
        ("adam_epsilon: 0", "qlora.yaml, line 4: adam_epsilon is 0, expected more than 0"),
        ("torch_empty_cache_steps: 0", "qlora.yaml, line 4: torch_empty_cache_steps is 0, expected 1 or more"),
        (
            "optim_args: momentum",
            "qlora.yaml: optim_args is momentum, expected names and values, such as momentum=0.9,nesterov=true",
        ),
        ("save_steps: 0", "qlora.yaml, line 4: save_steps is 0, expected more than 0"),
        ("seed: 99999999999", "qlora.yaml, line 4: seed is 99999999999, expected less than 4294967296"),
        ("adam_beta2: 1.0", "qlora.yaml, line 4: adam_beta2 is 1.0, expected less than 1"),
        ("dataloader_num_workers: -1", "qlora.yaml, line 4: dataloader_num_workers is -1, expected 0 or more"),
        ("answer_style:", "qlora.yaml, line 4: answer_style is empty, expected digit, digit_after, text or judge"),
        ("validation_file: ''", "qlora.yaml, line 4: validation_file is empty; give one, or remove it"),
        (
            "max_steps: 0",
            "qlora.yaml: max_steps is 0, which trains nothing; give more, or -1 for all of num_train_epochs",
        ),
        (
            "warmup_steps: 2.5",
            "qlora.yaml: warmup_steps is 2.5, expected whole steps, or a fraction of all below 1",
        ),
        (
            "metric_for_best_model: f1",
            "qlora.yaml: metric_for_best_model is f1, expected loss, accuracy, ci_low or ci_high",
        ),
        ("lora_task_type: SEQ_CLS", "qlora.yaml: lora_task_type is SEQ_CLS, expected CAUSAL_LM; remove it"),
        ("report_to: [none, wandb]", "qlora.yaml: report_to is none, wandb; remove none, or everything else"),
        (
            "lora_target_modules: '['",
            "qlora.yaml: lora_target_modules has '[', which is not a valid regular expression "
            "(unterminated character set at position 0); "
            "give the names of modules",
        ),
        (
            "rank_pattern: {'(': 2}",
            "qlora.yaml: rank_pattern has '(', which is not a valid regular expression "
            "(missing ), unterminated subpattern at position 0); "
            "give the names of modules",
        ),
        ("torch_dtype: bfloat16", "qlora.yaml, line 4: unknown key 'torch_dtype'; it is now dtype"),
        ("model_revision: 123", "qlora.yaml, line 4: model_revision is 123, expected text; put it in quotes"),
        ("num_train_epochs:", "qlora.yaml, line 4: num_train_epochs is empty, expected a number"),
        ("learning_rate: 1e999", "qlora.yaml, line 4: learning_rate is Infinity, expected a number"),
        ("trust_remote_code: yes", 'qlora.yaml, line 4: trust_remote_code is "yes", expected true or false'),
        ("bnb_4bit_quant_type: fp8", 'qlora.yaml, line 4: bnb_4bit_quant_type is "fp8", expected fp4 or nf4'),
        (
            "lora_target_modules: [4]",
            "qlora.yaml, line 4: lora_target_modules is [4], expected a list of texts or nothing",
        ),
        (
            "warmup_ratio: 0.03",
            "qlora.yaml, line 4: unknown key 'warmup_ratio'; write warmup_steps: a value below 1 is a ratio",
        ),
        (
            "env: {A: b}",
            "qlora.yaml, line 4: unknown key 'env'; set environment variables where the run is started",
        ),
        ("fp16: true\nbf16: true", "qlora.yaml: fp16 and bf16 are both true; keep one"),
        (
            "answer_style: text\ntemplate: plain\noption_orders: 4",
            "qlora.yaml: option_orders is 4, but the prompt lists no options, so their order has no effect; "
            "set list_options: true, or remove it",
        ),
        (
            "list_options: false",
            "qlora.yaml: list_options is false, expected true where answer_style is digit",
        ),
        (
            "load_in_4bit: true\nload_in_8bit: true",
            "qlora.yaml: load_in_4bit and load_in_8bit are both true; keep one",
        ),
        (
            "init_lora_weights: eva",
            "qlora.yaml: init_lora_weights is eva, expected gaussian, orthogonal, pissa or pissa_niter_16",
        ),
        (
            "load_best_model_at_end: true\neval_strategy: steps\nvalidation_file: v\ngreater_is_better: true",
            "qlora.yaml: greater_is_better is true, which takes the worst loss for the best; remove it, or name "
            "another metric_for_best_model",
        ),
        (
            "metric_for_best_model: eval_accuracy\ngreater_is_better: false",
            "qlora.yaml: greater_is_better is false, which takes the worst accuracy for the best; remove it, or name "
            "another metric_for_best_model",
        ),
        (
            "packing: true",
            "qlora.yaml: packing is true, which lrc does not support; remove it: tree_packing, which is on unless a "
            "recipe says otherwise, packs questions by their passages",
        ),
        (
            "completion_only_loss: false",
            "qlora.yaml: completion_only_loss is false, which lrc does not support; remove it: the loss is always on "
            "the answer alone",
        ),
        ("use_liger_kernel: true", "qlora.yaml: use_liger_kernel is true, which lrc does not support; remove it"),
        (
            "accelerator_config: {gradient_accumulation_kwargs: {num_steps: 4}}",
            "qlora.yaml: accelerator_config is {'gradient_accumulation_kwargs': {'num_steps': 4}}, which lrc does not "
            "support; remove it",
        ),
        *(
            (given, f"qlora.yaml: {key} is given, but validation_file is not; give one, or remove it")
            for key, given in (
                ("eval_strategy", "eval_strategy: epoch"),
                ("eval_on_start", "eval_on_start: true"),
                ("eval_questions", "eval_questions: 9"),
            )
        ),
        (
            "save_strategy: best\nmetric_for_best_model: loss",
            "qlora.yaml: save_strategy is best, which needs evaluations; set eval_strategy",
        ),
        (
            "save_strategy: best\neval_strategy: epoch\nvalidation_file: v",
            "qlora.yaml: save_strategy is best, but metric_for_best_model is missing; give loss or accuracy",
        ),
        ("save_total_limit: -1", "qlora.yaml, line 4: save_total_limit is -1, expected 0 or more"),
        *(
            (
                f"{key}: {{every: 2}}",
                f"qlora.yaml: {key} has every, expected use_reentrant, preserve_rng_state, determinism_check, debug, "
                "early_stop, every_n_layers",
            )
            for key in ("gradient_checkpointing_kwargs", "activation_checkpointing_kwargs")
        ),
        (
            "use_peft: false\nload_in_4bit: true",
            "qlora.yaml: load_in_4bit is true, and use_peft is false; quantized weights cannot be trained, only an "
            "adapter",
        ),
        *(
            (
                f"lora_target_modules: {given!r}",
                f"qlora.yaml: lora_target_modules is {given!r}, which is one text; write a list, on the command line: "
                "--lora_target_modules q_proj v_proj",
            )
            for given in ("q_proj,v_proj", "[q_proj, v_proj]")
        ),
        (
            "lora_target_modules: []",
            "qlora.yaml: lora_target_modules is empty; name layers, or remove it for those of the architecture",
        ),
        (
            "rank_pattern: {q_proj: x}",
            "qlora.yaml: rank_pattern is {'q_proj': 'x'}, expected whole numbers by module name, such as {q_proj: 8}",
        ),
    ],
)
def test_a_value_that_does_not_fit_is_refused(path: Path, text: str, line: str) -> None:
    assert refusal(path, text) == (line,)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--lora_rnak", "8"), "command line: unknown key 'lora_rnak'; did you mean 'lora_r'?"),
        (("--lora_rnak=8",), "command line: unknown key 'lora_rnak'; did you mean 'lora_r'?"),
        (("--lora_r", "four"), 'command line: lora_r is "four", expected a whole number'),
        (("--learning_rate", "nan"), "command line: learning_rate is NaN, expected a number"),
        (("--lora_r",), "--lora_r: expected one argument"),
        (("eight",), "command line: 'eight' has no key before it; write --key value"),
    ],
)
def test_a_wrong_override_is_refused(path: Path, words: tuple[str, ...], line: str) -> None:
    assert refusal(path, "", *words) == (line,)


def test_required_keys_are_asked_for() -> None:
    with pytest.raises(RecipeError) as refused:
        load_recipe(None, ["--train_file", "a.json"])
    assert [line.split()[2] for line in refused.value.lines()] == ["model_name_or_path", "output_dir"]


@pytest.mark.parametrize(
    "words", [("--hub_token", "swordfish"), ("--hub-token=swordfish",), ("--run_name", "hf_" + "a1" * 17)]
)
def test_a_secret_override_is_refused_and_never_repeated(path: Path, words: tuple[str, ...]) -> None:
    (line,) = refusal(path, "", *words)
    assert line.startswith("command line: ") and "swordfish" not in line and "a1a1" not in line


def test_a_secret_key_is_refused_whatever_it_holds(path: Path) -> None:
    (line,) = refusal(path, "hub_token: swordfish\n")
    assert line.startswith("qlora.yaml, line 4: hub_token") and "swordfish" not in line


def test_an_invalid_file_is_refused_before_heavy_imports(path: Path) -> None:
    path.write_text("a: [1\n")
    code = (
        "import sys\nfrom pathlib import Path\nfrom lrc.config.recipe import load_recipe\n"
        f"try: load_recipe(Path({str(path)!r}))\nexcept Exception as error: print(error)\n"
        "print([name for name in ('torch', 'transformers', 'trl') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]" and done.stdout.startswith("qlora.yaml, line 2: ")


def test_names_find_what_ships(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    by_name = find_recipe("chinese-alpaca-2-7b/qlora")
    assert by_name.is_file() and by_name == find_recipe("recipes/chinese-alpaca-2-7b/qlora.yaml")
    assert find_accelerate_config("cpu_2").name == "cpu_2.yaml"
    (tmp_path / "own.yaml").write_text("a: 1\n")
    assert find_recipe("own.yaml") == Path("own.yaml")


def test_a_name_that_does_not_exist_gets_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no such recipe; did you mean 'chinese-alpaca-2-7b/qlora'?"):
        find_recipe("chinese-alpaca-2-7b/qlorra")
    with pytest.raises(RecipeError, match=r"no such accelerate config; .*one of cpu \(One .*\), cpu_2 \(Two "):
        find_accelerate_config("xyz")


def test_what_ships_is_described_in_the_readers_language() -> None:
    """Of the English only names are left."""
    for name, find in {"xyz": find_accelerate_config, "zero": find_accelerate_config, "qwen3-8b": find_recipe}.items():
        with pytest.raises(RecipeError) as refused:
            find(name)
        (line,) = refused.value.lines(CHINESE)
        assert "（" in line and not re.search(r"[A-Za-z]+ [a-z]{2,} [a-z]{2,}", line), line


@pytest.mark.parametrize("name", ["qwen3-8b", "recipes/qwen3-8b", "Qwen3-8B/", "recipes/qwen3-8b/"])
def test_a_name_that_matches_several_gets_each_with_its_card(name: str) -> None:
    with pytest.raises(RecipeError) as refused:
        find_recipe(name)
    (line,) = refused.value.lines()
    assert "'qwen3-8b/lora' (LoRA of Qwen3-8B-Base on one NVIDIA GPU of 24 GB)" in line
    assert "'qwen3-8b/qlora' (QLoRA of Qwen3-8B-Base on one NVIDIA GPU of 12 GB with" in line


def test_a_name_that_matches_many_gets_their_names() -> None:
    with pytest.raises(RecipeError, match="one of .*qwen3-4b/lora") as refused:
        find_recipe("qwen3")
    assert "tiny" not in str(refused.value) and "(" not in str(refused.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("packing", "true"),
        ("label_smoothing_factor", "0.1"),
        ("router_aux_loss_coef", "0.001"),
        ("bf16_full_eval", "true"),
        ("fp16_full_eval", "true"),
        ("use_cache", "true"),
        ("train_sampling_strategy", "group_by_length"),
    ],
)
def test_a_key_that_would_do_nothing_is_refused(tmp_path: Path, key: str, value: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(f"model_name_or_path: m\ntrain_file: a_train.json\noutput_dir: o\n{key}: {value}\n")
    with pytest.raises(RecipeError, match=key):
        load_recipe(path)


def test_the_balance_of_experts_may_be_left_out_or_switched_off(path: Path) -> None:
    for text in ("", "router_aux_loss_coef:\n", "router_aux_loss_coef: 0\n"):
        assert load(path, text).training.router_aux_loss_coef == 0


def test_a_push_needs_the_name_of_a_repository(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("model_name_or_path: m\ntrain_file: a_train.json\noutput_dir: o\npush_to_hub: true\n")
    with pytest.raises(RecipeError, match="hub_model_id is missing"):
        load_recipe(path)


@pytest.mark.parametrize("asked", ["bf16", "fp16", "BF16"])
def test_the_recipe_decides_on_mixed_precision_and_not_the_launch(
    path: Path, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", asked)
    recipe = load(path, "bf16: false\nuse_cpu: true\n")
    assert recipe.training.mixed_precision == "no"
    (notice,) = recipe.notices
    assert notice.startswith(f"launch: its mixed_precision {asked.lower()} is not used")


def test_best_is_what_the_metric_says(path: Path) -> None:
    for text in ("greater_is_better: false", "metric_for_best_model: ci_low\ngreater_is_better: true"):
        load(path, f"{text}\n")
    text = "early_stopping_patience: 2\neval_strategy: steps\nvalidation_file: v\ngreater_is_better: true\n"
    assert load(path, text).given


def test_keys_without_effect_are_named(path: Path) -> None:
    text = "dataset_text_field: text\ndo_train: true\nlora_r: 4\nmodel_init_kwargs: {attn_implementation: eager}\n"
    recipe = load(path, text, "--hub_strategy", "end")
    (line,) = recipe.notices  # dataset_text_field is the default
    assert line == (
        "qlora.yaml: has no effect: do_train (lrc train always trains), model_init_kwargs (the keys under Base model "
        "decide), hub_strategy (the result is sent once, at the end)"
    )
    assert not load(path, "lora_r: 4\n").notices


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (
            "use_peft: false\nlora_r: 4\nloraplus_lr_ratio: 8\n",
            "lora_r (use_peft is false), loraplus_lr_ratio (use_peft ",
        ),
        ("loraplus_lr_embedding: 0.1\n", "loraplus_lr_embedding (loraplus_lr_ratio is not given)"),
        ("loraplus_lr_ratio: 8\nloraplus_lr_embedding: 0.1\n", None),
        ("use_bnb_nested_quant: true\n", "use_bnb_nested_quant (load_in_4bit is false)"),
        ("load_in_4bit: true\nuse_bnb_nested_quant: true\n", None),
        ("answer_style: text\ncontrast_temperature: 0.1\n", "contrast_temperature (option_contrast is 0)"),
        ("answer_style: text\noption_contrast: 0.5\ncontrast_temperature: 0.1\n", None),
        ("answer_style: judge\ncontrast_temperature: 0.1\n", None),
        ("soft_label_weight: 0.1\n", "soft_label_weight (soft_labels is not given)"),
        ("pseudo_label_threshold: 0.1\n", "pseudo_label_threshold (pseudo_labels is not given)"),
        ("eval_steps: 3\nsave_steps: 9\n", "eval_steps (eval_strategy is not steps)"),
        ("eval_steps: 3\neval_strategy: steps\nvalidation_file: v\nsave_steps: 9\nsave_strategy: steps\n", None),
        (
            "save_steps: 9\nsave_strategy: epoch\nactivation_checkpointing_kwargs: {every_n_layers: 2}\n",
            "save_steps (save_strategy is not steps), activation_checkpointing_kwargs (gradient_checkpointing is fal",
        ),
        ("gradient_checkpointing: true\ngradient_checkpointing_kwargs: {use_reentrant: false}\n", None),
        ("activation_checkpointing: true\nactivation_checkpointing_kwargs: {use_reentrant: false}\n", None),
        ("optim_target_modules: all-linear\n", "optim_target_modules (optim is neither GaLore nor APOLLO)"),
        ("optim: adamw_torch\noptim_args: betas=1\n", "optim_args (this optim takes none)"),
        ("lr_scheduler_type: constant\nwarmup_steps: 5\n", "warmup_steps (this lr_scheduler_type has no warmup)"),
        (
            "lr_scheduler_type: constant_with_warmup\nwarmup_steps: 5\nlr_scheduler_kwargs: {num_cycles: 2}\n",
            "lr_scheduler_kwargs (this lr_scheduler_type takes none)",
        ),
    ],
)
def test_keys_that_need_another_are_named_without_it(path: Path, text: str, named: str | None) -> None:
    told = [line for line in load(path, text).notices if "has no effect" in line]
    assert bool(told) == bool(named) and (named is None or f"qlora.yaml: has no effect: {named}" in told[0])


def test_offloading_is_switched_off_on_a_cpu(path: Path) -> None:
    recipe = load(path, "activation_offloading: true\nuse_cpu: true\n")
    assert not recipe.training.activation_offloading
    assert recipe.notices == ("activation_offloading: there is no GPU memory that it would spare; it is off",)


def test_deepspeed_that_is_not_installed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lrc.config.rules.find_spec", lambda name: None)
    (line,) = refusal(path, "deepspeed: zero3.json\n")
    assert line.endswith("deepspeed is given, but the package is not installed; pip install deepspeed, or remove it")


def test_optimizers_of_packages_that_are_not_installed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lrc.config.optimizers.find_spec", lambda name: None)
    text = "qlora.yaml: optim is {optim}, but the package {package} is not installed; "
    for optim, package in (
        ("paged_adamw_8bit", "bitsandbytes"),
        ("grokadamw", "grokadamw"),
        ("stable_adamw", "torch-optimi"),
    ):
        (line,) = refusal(path, f"optim: {optim}\n")
        assert line.startswith(text.format(optim=optim, package=package) + f"pip install {package}, or name another")
    (line,) = refusal(path, "optim: adamw_anyprecision\n")  # PyPI does not have it
    assert line == text.format(optim="adamw_anyprecision", package="torchdistx") + "name another, such as adamw_torch"
    (line,) = refusal(path, "optim: adalomo\n")
    assert "changes the weights in the backward pass of each row, but a step has several; name another" in line
    low_rank = refusal(path, "optim: galore_adamw\n")
    assert len(low_rank) == 2 and "optim_target_modules is missing; name the layers" in low_rank[1]
    monkeypatch.undo()
    assert load(path, "optim: paged_adamw_8bit\n").given["optim"] == "paged_adamw_8bit"


def test_every_number_has_bounds_or_changes_nothing() -> None:
    numbers = {key for key, known in shipped_schema().items() if {int, float} & set(members(known.hint))}
    unbounded = {key for key in numbers if shipped_schema()[key].bounds == ANY}
    assert len(numbers) > 40 and unbounded <= {*IGNORED, *UNSUPPORTED}, unbounded - {*IGNORED, *UNSUPPORTED}
