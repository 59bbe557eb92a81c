"""`lrc preview`: it shows what training sees, without weights, and says what is missing in a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from small_runs import make_run
from transformers import AutoTokenizer

from lrc.commands.preview import preview
from lrc.data.alpaca import to_record
from lrc.data.questions import Question
from lrc.models.loading import load_tokenizer
from lrc.runtime.errors import LrcError
from lrc.tokenization.prompt import Prompt
from lrc.tokenization.token_dataset import tokenize
from lrc.training.dataloader import SequenceSource, StepLoader, StepSampler

QUESTIONS = [
    Question(
        str(i + 1),
        f"第{i // 2}章。{'小明在台北工作。' * (1 + i // 2)}",
        f"誰？{i}",
        ("甲", "乙", "丙", "丁"),
        i % 4 + 1,
        i + 2,
    )
    for i in range(12)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base without weights, twelve questions, and a recipe."""
    where = tmp_path_factory.mktemp("run")
    make_run(
        where,
        QUESTIONS,
        output_dir=str(where / "adapter"),
        lora_r=4,
        lora_target_modules=["q_proj", "v_proj"],
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        num_train_epochs=3,
        learning_rate=1.0e-3,
        lr_scheduler_type="linear",
        warmup_steps=3,
    )
    (where / "base/model.safetensors").unlink()
    return where


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))


def seen(folder: Path, capsys: pytest.CaptureFixture[str], *overrides: str, **options: Any) -> dict[str, Any]:
    capsys.readouterr()
    config = options.pop("accelerate_config", None)
    preview(str(folder / "recipe.yaml"), config, overrides, as_json=True, **options)
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_what_is_shown_is_what_is_trained(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = seen(folder, capsys, count=2)
    tokens = found["tokens"]
    prompt = Prompt(load_tokenizer(str(folder / "base")), "chinese-alpaca-2", "digit")
    records = [to_record(question) for question in QUESTIONS]
    dataset = tokenize(records, prompt, stage="tokenize")
    draw = SequenceSource(dataset, records, prompt, 1, 42)
    steps = list(StepLoader(draw, StepSampler(dataset["passage"][:], 4, seed=42), found["row_tokens"]))
    rows = [row for step in steps for row in step.rows]
    sequences = [prompt.sequence(record) for record in records]
    assert (tokens["steps_per_epoch"], tokens["steps"], tokens["step_questions"]) == (3, 9, 4)
    assert tokens["rows_per_epoch"] == len(rows) and tokens["longest_row"] == max(map(len, rows))
    assert tokens["unique_tokens"] == sum(map(len, rows)) < tokens["separate_tokens"]
    assert tokens["separate_tokens"] == sum(len(sequence.inputs) for sequence in sequences)
    assert tokens["sharing"] == tokens["separate_tokens"] / tokens["unique_tokens"] > 1.5
    assert tokens["supervised_tokens"] == sum(len(row.targets) for row in rows)
    lengths = sorted(len(sequence.tokens) for sequence in sequences)
    assert (tokens["lengths"]["0"], tokens["lengths"]["100"]) == (lengths[0], lengths[-1])
    assert tokens["tokenizer"] == "tokenizers"
    first, second = tokens["examples"]
    assert (first["id"], first["row"], second["id"]) == ("1", 2, "2")
    assert first["ids"] == sequences[0].tokens.tolist() and len(first["pieces"]) == len(first["ids"])
    supervised = [token for token, mask in zip(first["ids"], first["mask"], strict=True) if mask]
    assert supervised == sequences[0].tokens[sequences[0].prompt_length :].tolist()
    rates = tokens["learning_rates"]
    assert rates["1"] == 0 and rates["4"] == pytest.approx(1e-3) and rates["9"] == pytest.approx(1e-3 / 6)
    assert found["memory"]["fits"] is True and found["launch"]["device"] == "cpu"
    assert not (folder / "adapter").exists()


def test_the_page(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    preview(str(folder / "recipe.yaml"), None, [], count=1)
    out = capsys.readouterr().out
    (example,) = [line for line in out.splitlines() if "⟦" in line]
    assert example.endswith("⟦</s>⟧") and "⟦1⟧" in example and example.startswith("[|I|N|S|T|]|␣|")
    assert example.count("⟦") == 2 and "|⏎|1|:|␣甲|⏎|" in example
    assert "id 1 (row 2): " in out and "fits: " in out and "\x1b[" not in out
    for word in ("tokenizer", "template chinese-alpaca-2", "steps", "lengths", "linear", "weights", "optimizer"):
        assert word in out


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        (
            ["--lr_scheduler_type", "cosine_with_min_lr"],
            "lr_scheduler_type: One of min_lr or min_lr_rate should be set",
        ),
        (
            ["--dataloader_drop_last", "--per_device_train_batch_size", "9"],
            "dataloader_drop_last: leaves no step, with 12 questions in an epoch and 18 in a step; remove it, or lower",
        ),
    ],
)
def test_what_training_would_refuse(
    folder: Path, keys: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(LrcError) as refused:
        seen(folder, capsys, *keys)
    assert str(refused.value).startswith(told) and not capsys.readouterr().out


def test_what_is_shortened_and_left_out(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = seen(folder, capsys)["tokens"]
    limit = whole["lengths"]["75"]
    shortened = seen(folder, capsys, "--max_length", str(limit))["tokens"]
    assert shortened["shortened"] and shortened["questions"] == 12 and shortened["lengths"]["100"] <= limit
    skipped = seen(folder, capsys, "--max_length", str(limit), "--on_too_long", "skip")["tokens"]
    assert skipped["skipped"] == shortened["shortened"] and skipped["questions"] == 12 - len(skipped["skipped"])
    preview(str(folder / "recipe.yaml"), None, ["--max_length", str(limit)], count=0)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("shortened")]
    assert line.endswith(", ".join(shortened["shortened"]))


def test_orders_packing_and_processes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = seen(folder, capsys)["tokens"]
    orders = seen(folder, capsys, "--option_orders", "2")["tokens"]
    assert orders["steps"] == one["steps"] and orders["supervised_tokens"] == 2 * one["supervised_tokens"]
    apart = seen(folder, capsys, "--tree_packing", "false")
    assert apart["not_shared"] == "tree_packing is false"
    assert apart["tokens"]["rows_per_epoch"] == 12 and apart["tokens"]["sharing"] == 1
    two = seen(folder, capsys, accelerate_config="cpu_2")
    assert two["launch"]["processes"] == 2
    assert (two["tokens"]["steps_per_epoch"], two["tokens"]["step_questions"]) == (2, 8)


def test_what_keeps_pefts_dropout_is_planned_with_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Which in 16 bits keeps a copy of each input in float32, and a mask."""
    asked = ["--bf16", "true", "--dtype", "bfloat16", "--lora_dropout", "0.1", "--gradient_checkpointing", "false"]

    def held(*more: str) -> int:
        return int(seen(folder, capsys, *asked, *more, gpu="A100 40GB")["memory"]["parts"]["activations"])

    assert held("--torch_compile", "true") > 1.02 * held()


def test_dtypes_here_and_on_an_assumed_gpu(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ["--fp16", "true", "--dtype", "float16"]
    for units, taken in ((False, "float32"), (True, "bfloat16")):
        monkeypatch.setattr("torch.cpu.get_capabilities", lambda units=units: {"avx512_bf16": units}, raising=False)
        here = seen(folder, capsys, *asked, "--use_cpu", "true")["dtypes"]
        assert (here["weights"], here["mixed_precision"]) == (taken, taken if units else None)
        refused = f"this machine does not support float16 (cpu): {taken}"
        assert f"fp16: float16 is asked for, but {refused}" in here["reasons"]
        assert f"dtype: float16 is asked for, but {refused}" in here["reasons"]
    alone = seen(folder, capsys, "--dtype", "float16", gpu="T4")["dtypes"]
    assert (alone["weights"], alone["mixed_precision"]) == ("float16", "float16")
    assert "fp16: mixed precision, since weights in float16 need a gradient scaler" in alone["reasons"]
    there = seen(folder, capsys, *asked, gpu_memory="12GB")
    assert (there["dtypes"]["weights"], there["dtypes"]["mixed_precision"]) == ("float16", "float16")
    assert there["launch"]["device"] == "cuda" and there["memory"]["capacity"] == 12 * 1024**3


def test_a_card_by_its_name(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--bf16", "true", "--dtype", "bfloat16"]
    turing = seen(folder, capsys, *asked, gpu="T4")
    assert (turing["dtypes"]["weights"], turing["dtypes"]["mixed_precision"]) == ("float16", "float16")
    assert "bf16: bfloat16 is asked for, but a T4 has no bfloat16 units: float16" in turing["dtypes"]["reasons"]
    assert turing["memory"]["capacity"] == int(14.56 * 1024**3) and turing["launch"]["name"] == "single_gpu"
    hopper = seen(folder, capsys, *asked, gpu="H100")
    assert (hopper["dtypes"]["weights"], hopper["dtypes"]["mixed_precision"]) == ("bfloat16", "bfloat16")
    assert hopper["computed_tokens_a_second"] > turing["computed_tokens_a_second"] > 0
    smaller = seen(folder, capsys, *asked, gpu="RTX 2080", gpu_memory="12GB")  # a card with more memory soldered on
    assert smaller["memory"]["capacity"] == 12 * 1024**3 and smaller["dtypes"]["weights"] == "float16"
    plain = seen(folder, capsys, gpu="T4")
    assert plain["dtypes"]["weights"] == "float32" and plain["computed_tokens_a_second"] is None


def test_several_cards(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = (seen(folder, capsys, "--fp16", "true", gpu=name) for name in ("T4", "T4x2"))
    launch = two["launch"]
    assert (launch["name"], launch["kind"], launch["processes"]) == ("multi_gpu", "DDP", 2)
    assert two["tokens"]["step_questions"] == 2 * one["tokens"]["step_questions"]
    assert two["computed_tokens_a_second"] == pytest.approx(2 * one["computed_tokens_a_second"])
    divided = seen(folder, capsys, gpu="T4x4", accelerate_config="fsdp")["launch"]
    assert (divided["kind"], divided["processes"]) == ("FSDP", 4)
    preview(str(folder / "recipe.yaml"), None, ["--fp16", "true"], count=0, gpu="T4x2")
    out = capsys.readouterr().out
    assert "card          T4: 14.56 GiB, compute capability 7.5, float16, no bfloat16" in out
    assert "speed, computed: " in out and " hours an epoch and " in out


def test_a_gpu_that_is_too_small(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    total = seen(folder, capsys, gpu_memory="1GB")["memory"]["total"]
    tight = (total - 1024) // 1024
    found = seen(folder, capsys, gpu_memory=f"{tight}KB")["memory"]
    assert found["fits"] is False and found["cure"]["total"] <= tight * 1024
    assert found["cure"]["changes"] == ["gradient_checkpointing: true"] or found["cure"]["changes"][0].startswith("row")
    preview(str(folder / "recipe.yaml"), None, [], count=0, gpu_memory=f"{tight}KB")
    out = capsys.readouterr().out
    assert "does not fit: " in out and f"with {found['cure']['changes'][0]} it takes " in out


def test_the_reference_run_fits(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 5120,
        "num_hidden_layers": 40,
        "intermediate_size": 13824,
        "vocab_size": 55296,
        "num_attention_heads": 40,
        "max_position_embeddings": 4096,
        "dtype": "float16",
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    preview("chinese-alpaca-2-13b/qlora", None, ["--model_name_or_path", str(tmp_path)], gpu_memory="12GB")
    told = capsys.readouterr()
    first, *_others, last = told.out.splitlines()
    assert first.startswith("fits: ") and first.endswith("of 12.00 GiB")
    assert last == "next: lrc convert TRAIN.xlsx --output-dir data"
    assert "data/AI_train.json: no such file; no token figures without it" in told.err


def test_tokens_without_the_bases_configuration(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    AutoTokenizer.from_pretrained(folder / "base").save_pretrained(tmp_path / "tokenizer")
    preview(str(folder / "recipe.yaml"), None, ["--model_name_or_path", str(tmp_path / "tokenizer")])
    told = capsys.readouterr()
    (line,) = [line for line in told.err.splitlines() if "no memory plan without it" in line]
    assert str(tmp_path / "tokenizer") in line
    assert "⟦</s>⟧" in told.out and "fits" not in told.out


@pytest.mark.parametrize(
    ("gpu", "config", "fault"),
    [
        ("T5", None, "--gpu: 'T5' is not in the table of cards"),
        ("T4", "cpu", "--gpu: T4, but cpu is an accelerate config without a GPU"),
    ],
)
def test_cards_that_cannot_be(
    folder: Path, gpu: str, config: str | None, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(LrcError) as refused:
        preview(str(folder / "recipe.yaml"), config, [], gpu=gpu)
    assert fault in refused.value.lines()[-1] and capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("overrides", "gpu_memory", "fault"),
    [
        (["--lora_rnak", "8"], None, "did you mean 'lora_r'?"),
        (
            ["--model_name_or_path", "missing/base"],
            None,
            "neither its configuration nor its tokenizer is available here",
        ),
        (["--lora_target_modules", "no_such_proj"], None, "no_such_proj"),
        (["--max_length", "20"], None, "max_length 20"),
        ([], "plenty", "--gpu-memory: 'plenty' is not a memory size; write 12GB"),
    ],
)
def test_what_is_wrong_is_said_in_lines(
    folder: Path, overrides: list[str], gpu_memory: str | None, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(LrcError) as refused:
        preview(str(folder / "recipe.yaml"), None, overrides, gpu_memory=gpu_memory)
    assert fault in refused.value.lines()[-1]
    assert capsys.readouterr().out == ""
