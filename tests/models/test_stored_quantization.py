"""Bases that are quantized on the disk train and answer as they are, and merge into what they were made from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from oracle import difference
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from small_runs import lrc, make_run, pairs, run
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from transformers.quantizers.auto import AutoHfQuantizer

from lrc.config.run_record import RUN_FILE, read_run
from lrc.models.fingerprint import fingerprint_base
from lrc.models.loading import load_base
from lrc.models.stored_quantization import StoredQuantization
from lrc.runtime.devices import supported
from lrc.runtime.errors import MachineError, ModelError
from lrc.runtime.memory import format_size

WEIGHTS = "adapter_model.safetensors"
# What `--dtype bfloat16` loads: a machine without units for it takes float32, and says so.
LOADED = torch.bfloat16 if supported("bfloat16", "cpu") else torch.float32
NF4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": torch.bfloat16}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, the same in NF4 as bitsandbytes' repositories have it, and an adapter that was trained on that."""
    where = make_run(
        tmp_path_factory.mktemp("stored"),
        pairs(8, (2, 3)),
        pairs(4, (2,), name="v"),
        template="alpaca",
        answer_style="digit",
        lora_r=4,
        lora_dropout=0.0,
        lora_target_modules=["q_proj", "v_proj", "down_proj"],
        max_steps=2,
        per_device_train_batch_size=4,
        learning_rate=1.0e-2,
        save_strategy="no",
        use_cpu=True,
    )
    weights = load_file(where / "base/model.safetensors")
    vectors = {name: 1.0 + torch.rand(value.shape) / 2 for name, value in weights.items() if value.ndim == 1}
    save_file({**weights, **vectors}, where / "base/model.safetensors", {"format": "pt"})  # norms as trained ones are
    config = BitsAndBytesConfig(**NF4)
    quantized = AutoModelForCausalLM.from_pretrained(
        where / "base", dtype=LOADED, quantization_config=config, device_map={"": "cpu"}
    )
    quantized.save_pretrained(where / "nf4")
    AutoTokenizer.from_pretrained(where / "base").save_pretrained(where / "nf4")
    assert run(where, where / "a", "--model_name_or_path", str(where / "nf4"), "--dtype", "float32") == 0
    return where


def test_it_trains_the_adapter_of_a_base_that_is_quantized_as_it_is_loaded(folder: Path, tmp_path: Path) -> None:
    words = ["--dtype", "bfloat16", "--load_in_4bit", "--bnb_4bit_quant_type", "nf4"]
    assert run(folder, tmp_path / "loaded", *words) == 0
    stored = ["--model_name_or_path", str(folder / "nf4"), "--dtype", "bfloat16"]
    assert run(folder, tmp_path / "stored", *stored) == 0
    one, other = (load_file(tmp_path / name / WEIGHTS) for name in ("loaded", "stored"))
    assert any(tensor.any() for name, tensor in one.items() if "lora_B" in name)
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name
    told = read_run(tmp_path / "stored")
    assert told is not None and told.base["quantized"]["method"] == "bitsandbytes, 4 bits"


def test_it_answers_and_merges_into_the_original(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, adapter = ["--data", folder / "t_validation.json"], ["--adapter", folder / "a"]
    assert lrc("evaluate", "--model", folder / "nf4", *adapter, *data, "--output", tmp_path / "nf4.json") == 0
    assert lrc("merge", *adapter, "--base-model", folder / "base", "--output-dir", tmp_path / "merged") == 0
    assert "was trained on nf4 (bitsandbytes, 4 bits)" in capsys.readouterr().err
    assert difference(folder / "base", folder / "a", tmp_path / "merged") <= 2e-6
    assert lrc("evaluate", "--model", tmp_path / "merged", *data, "--output", tmp_path / "merged.json") == 0
    assert lrc("evaluate", "--model", folder / "base", *adapter, *data, "--output", tmp_path / "base.json") == 0


def test_an_adapter_of_an_awq_base_fits_no_other_and_it_takes_no_adapter_of_others(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if the norms are the same: what the scales of other layers were moved into cannot be seen."""
    monkeypatch.setattr("lrc.models.stored_quantization.find_spec", lambda name: True)
    awq = declare(folder / "base", tmp_path / "awq", {"quant_method": "awq", "bits": 4})
    assert run(folder, tmp_path / "original") == 0
    adapter = shutil.copytree(tmp_path / "original", tmp_path / "adapter")
    record = json.loads((adapter / RUN_FILE).read_text())
    record["base"] = fingerprint_base(str(awq))
    (adapter / RUN_FILE).write_text(json.dumps(record))
    capsys.readouterr()

    merge = ["merge", "--adapter", adapter, "--output-dir", tmp_path / "merged", "--base-model", folder / "base"]
    data = ["--data", folder / "t_validation.json", "--output", tmp_path / "a.json"]
    for words in (merge, ["evaluate", "--model", folder / "base", "--adapter", adapter, *data]):
        assert lrc(*words) == 1
        told = f"{folder / 'base'}: the adapter was trained on awq (awq, 4 bits), whose layers have rescaled inputs"
        assert f"{told}, and fits no other model; answer with --model awq --adapter" in capsys.readouterr().err
    assert lrc("evaluate", "--model", awq, "--adapter", tmp_path / "original", *data) == 1
    assert "was trained on base; answer with that one" in capsys.readouterr().err
    assert not (tmp_path / "merged").exists() and not (tmp_path / "a.json").exists()


def test_another_model_of_its_shapes_is_not_its_original(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = shutil.copytree(folder / "base", tmp_path / "other")
    weights = load_file(other / "model.safetensors")
    weights["model.norm.weight"] += 0.1
    save_file(weights, other / "model.safetensors", {"format": "pt"})
    words = ["merge", "--adapter", folder / "a", "--output-dir", tmp_path / "merged"]
    assert lrc(*words, "--base-model", other) == 1
    assert "not the model of which nf4 was made" in capsys.readouterr().err
    assert lrc(*words) == 1
    told = capsys.readouterr().err
    assert "nf4: is quantized on disk (bitsandbytes, 4 bits)" in told and "--base-model" in told
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--load_in_8bit"], "nf4: its weights are quantized already (bitsandbytes, 4 bits), and load_in_8bit asks"),
        (["--use_peft", "false"], "nf4 is quantized on the disk (bitsandbytes, 4 bits), and use_peft is false"),
    ],
)
def test_what_it_cannot_do_is_refused(
    words: list[str], line: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(folder, tmp_path / "a", "--model_name_or_path", str(folder / "nf4"), *words) == 1
    assert line in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(("method", "package"), [("gptq", "gptqmodel"), ("awq", "gptqmodel")])
def test_a_method_whose_package_is_missing_is_told_with_the_cure(
    method: str,
    package: str,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("lrc.models.stored_quantization.find_spec", lambda name: None)
    base = shutil.copytree(folder / "base", tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    config["quantization_config"] = {"quant_method": method, "bits": 4, "group_size": 128}
    (base / "config.json").write_text(json.dumps(config))
    assert run(folder, tmp_path / "a", "--model_name_or_path", str(base)) == 1
    (told,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith(str(base))]
    assert f"quantized ({method}, 4 bits)" in told and f"pip install {package}" in told and "load_in_4bit" in told


TILE = 128
FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [TILE, TILE], "fmt": "e4m3"}


def declare(base: Path, place: Path, settings: object, key: str = "quantization_config") -> Path:
    """A copy of a base whose config.json declares that its weights are quantized."""
    shutil.copytree(base, place)
    config = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps({**config, key: settings}))
    return place


def save_fp8(base: Path, place: Path, *, scales: bool = True) -> tuple[Path, dict[str, torch.Tensor]]:
    """A base in FP8, with a scale for each tile as DeepSeek's and Qwen3's repositories have it, and its weights."""
    declare(base, place, FP8)
    written, exact = {}, {}
    for name, weight in load_file(base / "model.safetensors").items():
        written[name] = exact[name] = weight.bfloat16()
        if "_proj" not in name:
            continue
        rows, columns = (-(-size // TILE) for size in weight.shape)
        scale = torch.ones(rows, columns)
        for i in range(rows):
            for j in range(columns):
                scale[i, j] = weight[i * TILE : (i + 1) * TILE, j * TILE : (j + 1) * TILE].abs().max() / 448
        wide = scale.repeat_interleave(TILE, 0).repeat_interleave(TILE, 1)[: weight.shape[0], : weight.shape[1]]
        written[name] = (weight / wide).to(torch.float8_e4m3fn)
        exact[name] = written[name].float() * wide
        written |= {f"{name}_scale_inv": scale} if scales else {}
    save_file(written, place / "model.safetensors", {"format": "pt"})
    return place, exact


def test_fp8_that_is_dequantized_is_told_and_has_one_dtype(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, exact = save_fp8(folder / "base", tmp_path / "fp8")
    assert run(folder, tmp_path / "a", "--model_name_or_path", str(base), "--dtype", "float32") == 0
    line = f"{base}: its weights are quantized (fp8), and are dequantized here: in float32 they take "
    assert [told.startswith(line) for told in capsys.readouterr().err.splitlines()].count(True) == 1
    for dtype in (torch.float32, torch.bfloat16):
        loaded = load_base(str(base), dtype=dtype).state_dict()
        assert {weight.dtype for weight in loaded.values()} == {dtype}
        for name, weight in exact.items():
            torch.testing.assert_close(loaded[name].float(), weight.float(), rtol=2**-7, atol=0.0)
    words = ["merge", "--adapter", tmp_path / "a", "--output-dir", tmp_path / "merged"]
    assert lrc(*words, "--base-model", folder / "base") == 0


def test_fp8_is_dequantized_on_a_gpu_that_computes_in_it(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """There transformers has layers that fail in the first forward unless it can fetch kernels from the Hub."""
    base, exact = save_fp8(folder / "base", tmp_path / "fp8")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda *device: (9, 0))
    model = load_base(str(base), dtype=torch.float32)
    assert "fp8), and are dequantized here: in float32" in capsys.readouterr().err
    assert {type(one) for name, one in model.named_modules() if name.endswith("_proj")} == {torch.nn.Linear}
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(weight, exact[name].float(), rtol=2**-7, atol=0.0)
    model(torch.arange(8)[None])["logits"].sum().backward()


@pytest.mark.parametrize(
    ("settings", "loaded"),
    [
        (FP8, {"dequantize": True, "weight_block_size": [TILE, TILE]}),
        ({"quant_method": "mxfp4"}, {"dequantize": True}),
        ({"quant_method": "gptq", "bits": 8, "group_size": 32}, {"backend": "auto_trainable", "bits": 8}),
        ({"quant_method": "awq", "bits": 4, "group_size": 32}, {"backend": "auto_trainable", "group_size": 32}),
    ],
)
def test_what_is_loaded_takes_an_adapter(settings: dict[str, object], loaded: dict[str, object]) -> None:
    """Of GPTQ and AWQ the fastest kernels refuse to be trained on; everything else is as the files say."""
    stored = StoredQuantization.of({"quantization_config": settings})
    assert stored is not None
    merged = AutoHfQuantizer.merge_quantization_configs(settings, stored.loading)
    assert {key: getattr(merged, key) for key in loaded} == loaded


@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_a_package_that_is_missing_beside_gptqmodel_is_told(
    method: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = declare(folder / "base", tmp_path / "base", {"quant_method": method, "bits": 4})
    monkeypatch.setattr("lrc.models.stored_quantization.find_spec", lambda name: name == "gptqmodel" or None)
    with pytest.raises(ModelError, match=r"which takes optimum; pip install optimum, or name the 16-bit model"):
        load_base(str(base))


@pytest.mark.parametrize(
    "where", ["transformers.integrations.finegrained_fp8.Fp8Dequantize.convert", "transformers.PreTrainedModel.to"]
)
def test_fp8_that_does_not_fit_when_it_is_dequantized(
    where: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    base, exact = save_fp8(folder / "base", tmp_path / "fp8")
    monkeypatch.setattr(where, fail)
    needed = format_size(sum(2 * weight.numel() for weight in exact.values()))
    with pytest.raises(MachineError, match=rf"fp8: cannot be loaded, out of memory \(its weights take {needed}, "):
        load_base(str(base), dtype=torch.bfloat16)


def test_fp8_without_scales_is_refused(folder: Path, tmp_path: Path) -> None:
    base, _ = save_fp8(folder / "base", tmp_path / "fp8", scales=False)
    with pytest.raises(ModelError, match=r"quantized \(fp8\), and their scales are missing; download them again"):
        load_base(str(base))


def test_an_adapter_of_an_8_bit_base_merges_into_the_original(folder: Path, tmp_path: Path) -> None:
    config = BitsAndBytesConfig(load_in_8bit=True)
    quantized = AutoModelForCausalLM.from_pretrained(
        folder / "base", dtype=torch.bfloat16, quantization_config=config, device_map={"": "cpu"}
    )
    quantized.save_pretrained(tmp_path / "int8")
    AutoTokenizer.from_pretrained(folder / "base").save_pretrained(tmp_path / "int8")
    with safe_open(tmp_path / "int8/model.safetensors", "pt") as file:
        assert any(name.endswith(".SCB") for name in set(file.keys()))
    assert run(folder, tmp_path / "a", "--model_name_or_path", str(tmp_path / "int8")) == 0
    words = ["merge", "--adapter", tmp_path / "a", "--output-dir", tmp_path / "merged"]
    assert lrc(*words, "--base-model", folder / "base") == 0


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"quant_method": "modelopt", "quant_algo": "FP8"}, "(modelopt), which transformers"),
        ({"bits": 4}, "(an unknown method, 4 bits), which transformers"),
        ({"quant_method": "fbgemm_fp8"}, "(fbgemm_fp8), and cannot be loaded here ("),
        ("awq", 'config.json: quantization_config is "awq", expected a JSON object'),
        ([1], "config.json: quantization_config is [1], expected a JSON object"),
    ],
)
@pytest.mark.parametrize("verb", ["train", "generate", "merge", "preview"])
def test_what_cannot_be_read_is_refused_in_a_line(
    verb: str, settings: object, told: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a method that it does not know, transformers would read the packed numbers as if they were the weights."""
    base, data = declare(folder / "base", tmp_path / "base", settings), ["--data", folder / "t_validation.json"]
    recipe = [folder / "recipe.yaml", "--output_dir", tmp_path / "a", "--model_name_or_path", base]
    status = {
        "train": lambda: run(folder, tmp_path / "a", "--model_name_or_path", str(base)),
        "generate": lambda: lrc("generate", "--model", base, *WITHOUT_RUN, *data, "--output", tmp_path / "a.csv"),
        "merge": lambda: lrc("merge", "--adapter", folder / "a", "--base-model", base, "--output-dir", tmp_path / "m"),
        "preview": lambda: lrc("preview", *recipe),
    }[verb]()
    lines = capsys.readouterr().err.splitlines()
    if verb == "merge":
        assert status == 1 and "quantized on disk" in lines[-1] and "--base-model" in lines[-1]
    elif verb == "preview" and "here" in told:  # another machine may be able to
        assert status == 0 and any("the plan counts them in float32, an upper bound" in line for line in lines)
    else:
        assert status == 1 and any(told in line for line in lines), lines
    assert not [line for line in lines if "Traceback" in line]
    assert not any((tmp_path / name).exists() for name in ("a", "a.csv", "m"))


WITHOUT_RUN = ["--template", "alpaca", "--answer-style", "digit"]


def test_a_preview_refuses_what_a_training_would(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = declare(folder / "base", tmp_path / "base", {"quant_method": "gptq", "bits": 4})
    words = ["preview", folder / "recipe.yaml", "--output_dir", tmp_path / "a", "--model_name_or_path", base]
    assert lrc(*words, "--load_in_4bit", "true") == 1
    assert "its weights are quantized already (gptq, 4 bits), and load_in_4bit" in capsys.readouterr().err


def test_the_text_part_of_a_configuration_may_declare_it() -> None:
    nested = {"model_type": "gemma3", "text_config": {"quantization_config": {"quant_method": "gptq", "bits": 4}}}
    assert str(StoredQuantization.of(nested)) == "gptq, 4 bits"
    assert StoredQuantization.of({"text_config": {}}) is None and StoredQuantization.of({"text_config": None}) is None


def test_weights_that_the_files_lack_are_not_made_up(folder: Path, tmp_path: Path) -> None:
    base = shutil.copytree(folder / "base", tmp_path / "base")
    weights = load_file(base / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"lack 1 of the model's weights, such as model\.layers\.1\.mlp\.up_proj"):
        load_base(str(base))


def without(key: str, base: Path) -> Path:
    settings = json.loads((base / "config.json").read_text())
    settings.pop(key)
    (base / "config.json").write_text(json.dumps(settings))
    return base


@pytest.mark.parametrize("claimed", [{"load_in_4bit": True}, {"load_in_8bit": True}])
@pytest.mark.parametrize("stored", ["base", "nf4"])
def test_weights_that_are_not_quantized_as_the_configuration_says(
    stored: str, claimed: dict[str, bool], folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """As where a base was dequantized or merged, and its configuration was not changed."""
    base = declare(folder / stored, tmp_path / "base", {"quant_method": "bitsandbytes", **claimed})
    if stored == "nf4" and "load_in_4bit" in claimed:
        load_base(str(base))
        return
    with pytest.raises(ModelError) as refused:
        load_base(str(base))
    (line,) = refused.value.lines()
    assert line.startswith(f"{base}: its config.json says that weights are quantized (bitsandbytes, ")
    cure = "is not; remove quantization_config there" if stored == "base" else "does not belong to; download its files"
    assert "_proj.weight" in line and cure in line
    assert "LOAD REPORT" not in capfd.readouterr().err


def test_quantized_weights_whose_configuration_does_not_say_so(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    base = without("quantization_config", Path(shutil.copytree(folder / "nf4", tmp_path / "nf4")))
    with pytest.raises(ModelError, match=r"its config\.json does not say how: it has no quantization_config; download"):
        load_base(str(base))
    assert "LOAD REPORT" not in capfd.readouterr().err


def test_weights_of_other_shapes_and_weights_that_are_not_used(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    base = Path(shutil.copytree(folder / "base", tmp_path / "base"))
    weights = load_file(base / "model.safetensors")
    save_file({**weights, "vision.weight": torch.ones(2)}, base / "model.safetensors", {"format": "pt"})
    load_base(str(base))
    assert capfd.readouterr().err == f"{base}: 1 weights of its files are not used, such as vision.weight\n"
    name = "model.layers.0.self_attn.q_proj.weight"
    save_file({**weights, name: weights[name][:8].clone()}, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=rf"{name} has shape \(8, \d+\), expected \(\d+, \d+\); download"):
        load_base(str(base))
    assert "LOAD REPORT" not in capfd.readouterr().err
