"""Merging: the model that base and adapter are, whole or nothing, and only of the base that was trained on."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from oracle import adapted, difference, log_likelihood
from safetensors.torch import load_file, save_file
from small_models import NAMES, OTHERS, PROJECTIONS, save_adapter, save_base, save_family, save_gpt2, save_tokenizer
from small_models import adapted as put_adapter
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from lrc.answering.load import load_scorer
from lrc.answering.options import ScoringOptions
from lrc.commands.merge import merge
from lrc.config.run_record import Run
from lrc.models.answering_model import load_for_answering
from lrc.models.fingerprint import fingerprint_base
from lrc.models.loading import load_config
from lrc.models.merging.tensor_sources import StreamingMerge
from lrc.packing.log_probs import sequence_scores
from lrc.packing.tree import TokenSequence
from lrc.runtime.errors import LrcError, MachineError, ModelError, OutputError

BOTH = ["embed_tokens", "lm_head"]
# What a base is and what an adapter is; the Llama of `save_base`.
STREAMED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "lora": ({}, {}),
    "lora beside tied embeddings": ({"tied": True}, {}),
    "rslora": ({}, {"use_rslora": True}),
    "modules_to_save": ({}, {"modules_to_save": BOTH}),
    "modules_to_save, tied": ({"tied": True}, {"modules_to_save": BOTH}),
    "modules_to_save of one that was tied": ({"tied": True}, {"modules_to_save": ["embed_tokens"]}),
    "modules_to_save of the head that was tied": ({"tied": True}, {"modules_to_save": ["lm_head"]}),
    "norms": ({}, {"modules_to_save": ["input_layernorm"]}),
    "embedding": ({}, {"target_modules": ["embed_tokens", "q_proj"]}),
    "embedding, tied": ({"tied": True}, {"target_modules": ["embed_tokens", "q_proj"]}),
    "head, tied": ({"tied": True}, {"target_modules": ["lm_head", "q_proj"]}),
    "embedding and head, tied": ({"tied": True}, {"target_modules": [*BOTH, "q_proj"]}),
    "embedding and head with dora, tied": ({"tied": True}, {"target_modules": BOTH, "use_dora": True}),
    "embedding with dora": ({}, {"target_modules": ["embed_tokens", "v_proj"], "use_dora": True}),
    "bias": ({"bias": True}, {"bias": "lora_only"}),
    "lora_bias": ({"bias": True}, {"target_modules": ["q_proj", "v_proj"], "lora_bias": True}),
    "shards": ({"max_shard_size": "60KB"}, {}),
}
TIED = {"ensure_weight_tying": True}
WHOLE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "pissa": ({}, {"init_lora_weights": "pissa"}),
    "trainable tokens": ({}, {"trainable_token_indices": [3, 5]}),
    "trainable tokens, tied": ({"tied": True}, {"trainable_token_indices": [3, 5]}),
    "other trainable tokens in the head": (
        {"tied": True},
        {"trainable_token_indices": {"embed_tokens": [3, 5], "lm_head": [4]}},
    ),
    "modules_to_save, tied on purpose": ({"tied": True}, {"modules_to_save": [*BOTH], **TIED}),
    "embedding, tied on purpose": ({"tied": True, "max_shard_size": "60KB"}, {"target_modules": BOTH, **TIED}),
}
FAMILIES = ("qwen3", "mistral", *OTHERS)
KINDS: dict[str, Callable[[list[str], str, str], dict[str, Any]]] = {
    "projections with dora": lambda linear, embedding, head: {"target_modules": linear, "use_dora": True},
    "patterns": lambda linear, embedding, head: {
        "target_modules": linear,
        "layers_to_transform": [0, 2],
        "rank_pattern": {linear[0]: 2},
        "alpha_pattern": {linear[1]: 32},
    },
    "embedding": lambda linear, embedding, head: {"target_modules": [embedding, linear[0]]},
    "head with rslora": lambda linear, embedding, head: {"target_modules": [head, linear[0]], "use_rslora": True},
    "embedding whole": lambda linear, embedding, head: {"target_modules": linear, "modules_to_save": [embedding]},
}


@pytest.mark.parametrize("method", STREAMED)
def test_streaming_gives_the_model_that_base_and_adapter_are(
    method: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    of_base, of_adapter = STREAMED[method]
    base = save_base(tmp_path / "base", **of_base)
    adapter = save_adapter(tmp_path / "adapter", base, **of_adapter)
    capfd.readouterr()
    merge(adapter, tmp_path / "merged", verify=False)
    assert "PEFT merges it" not in capfd.readouterr().err
    assert difference(base, adapter, tmp_path / "merged") <= 2e-6


@pytest.mark.parametrize("method", WHOLE)
def test_what_cannot_be_streamed_is_merged_by_peft_and_said(
    method: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    of_base, of_adapter = WHOLE[method]
    base = save_base(tmp_path / "base", **of_base)
    adapter = save_adapter(tmp_path / "adapter", base, **of_adapter)
    capfd.readouterr()
    merge(adapter, tmp_path / "merged", verify=False)
    told = capfd.readouterr()
    assert told.err.count("PEFT merges it with the whole model in memory") == 1 and "[transformers]" not in told.err
    assert difference(base, adapter, tmp_path / "merged", torch.float32) <= 5e-6
    before, after = (json.loads((folder / "config.json").read_text()) for folder in (base, tmp_path / "merged"))
    assert {**before, "tie_word_embeddings": None} == {**after, "tie_word_embeddings": None}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_families_and_kinds_of_adapters(family: str, kind: str, tmp_path: Path) -> None:
    base = save_family(tmp_path / "base", family)
    settings = KINDS[kind](*NAMES.get(family, (PROJECTIONS, *BOTH)))
    adapter = save_adapter(tmp_path / "adapter", base, **settings, fan_in_fan_out=family == "gpt2")
    merge(adapter, tmp_path / "merged", verify=False)
    assert difference(base, adapter, tmp_path / "merged") <= 2e-6


@pytest.mark.parametrize("method", ["embedding and head with dora, tied", "modules_to_save, tied"])
@pytest.mark.parametrize("on_purpose", [False, True])
def test_answers_are_those_of_the_model_that_was_trained(method: str, on_purpose: bool, tmp_path: Path) -> None:
    """Base + adapter and merged model, loaded as generate does, say what the trained model in memory says."""
    of_base, of_adapter = STREAMED[method]
    base = save_base(tmp_path / "base", **of_base)
    settings = {**copy.deepcopy(of_adapter), "ensure_weight_tying": on_purpose}
    trained = put_adapter(AutoModelForCausalLM.from_pretrained(base), **settings).eval()
    trained.save_pretrained(tmp_path / "adapter")
    merge(tmp_path / "adapter", tmp_path / "merged", verify=False)
    sample = list(range(10, 60)), list(range(60, 70))
    wanted = log_likelihood(trained, sample)
    sequence = TokenSequence(np.array([*sample[0], *sample[1]]), len(sample[0]))
    for folder, adapters in ((base, [tmp_path / "adapter"]), (tmp_path / "merged", [])):
        model, _ = load_for_answering(str(folder), adapters, torch.device("cpu"))
        (found,) = sequence_scores(model, [sequence], torch.device("cpu"), 1000)
        assert found == pytest.approx(wanted, abs=1e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_off_by_its_rounding_alone(dtype: torch.dtype, tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", tied=True, dtype=dtype)
    adapter = save_adapter(tmp_path / "adapter", base, target_modules=[*BOTH, "q_proj"])
    merge(adapter, tmp_path / "merged")
    assert difference(base, adapter, tmp_path / "merged") <= 4 * torch.finfo(dtype).eps


def test_the_base_of_a_bare_decoder(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", tied=True)
    tensors = load_file(base / "model.safetensors")
    bare = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    save_file(bare, base / "model.safetensors", {"format": "pt"})
    adapter = save_adapter(tmp_path / "adapter", base)
    merge(adapter, tmp_path / "merged")
    assert difference(base, adapter, tmp_path / "merged") <= 2e-6


def test_tied_embeddings_that_the_file_holds_twice_with_different_values(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", tied=True)
    tensors = load_file(base / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] + 1
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    adapter = save_adapter(tmp_path / "adapter", base, target_modules=["lm_head", "q_proj"])
    merge(adapter, tmp_path / "merged")
    assert difference(base, adapter, tmp_path / "merged") <= 2e-6
    assert json.loads((tmp_path / "merged/config.json").read_text())["tie_word_embeddings"] is False


def test_the_folder_is_an_ordinary_one(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", max_shard_size="60KB", dtype=torch.bfloat16)
    adapter = save_adapter(tmp_path / "adapter", base)
    Run("plain", "digit", True, base=fingerprint_base(str(base))).write(adapter / "lrc_run.json")
    merge(adapter, tmp_path / "merged")
    index = json.loads((base / "model.safetensors.index.json").read_text())
    merged_index = json.loads((tmp_path / "merged/model.safetensors.index.json").read_text())
    assert merged_index["weight_map"] == index["weight_map"]
    assert merged_index["metadata"]["total_size"] == index["metadata"]["total_size"]
    assert {
        tensor.dtype for file in (tmp_path / "merged").glob("*.safetensors") for tensor in load_file(file).values()
    } == {torch.bfloat16}
    assert {"config.json", "generation_config.json", "tokenizer.json", "lrc_run.json"} <= {
        file.name for file in (tmp_path / "merged").iterdir()
    }
    assert AutoTokenizer.from_pretrained(tmp_path / "merged").decode([65]) == AutoTokenizer.from_pretrained(
        base
    ).decode([65])


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base")
    adapter = save_adapter(tmp_path / "adapter", base, use_dora=True)
    for name in ("one", "two"):
        merge(adapter, tmp_path / name)
    files = sorted(file.name for file in (tmp_path / "one").iterdir())
    assert files == sorted(file.name for file in (tmp_path / "two").iterdir())
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes() for name in files)


def test_dtype_is_that_of_every_tensor_and_of_the_configuration(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base")
    adapter = save_adapter(tmp_path / "adapter", base)
    merge(adapter, tmp_path / "merged", dtype="bfloat16")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype="auto")
    # Nothing is tied here, and so PEFT's merge is right to the bit.
    expected = adapted(base, adapter, torch.float32).merge_and_unload().state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, expected[name].bfloat16())


def test_too_large_for_the_dtype_leaves_no_output(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base")
    tensors = load_file(base / "model.safetensors")
    tensors["model.norm.weight"][3] = 1e6
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    adapter = save_adapter(tmp_path / "adapter", base)
    with pytest.raises(ModelError, match=r"model\.norm\.weight: too large for float16; merge with --dtype"):
        merge(adapter, tmp_path / "merged", dtype="float16")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "base"]


@pytest.mark.parametrize("where", ["adapter", "base"])
def test_nan_leaves_no_output(where: str, tmp_path: Path) -> None:
    base = save_base(tmp_path / "base")
    adapter = save_adapter(tmp_path / "adapter", base)
    file = adapter / "adapter_model.safetensors" if where == "adapter" else base / "model.safetensors"
    tensors = load_file(file)
    next(iter(tensors.values())).view(-1)[5] = float("nan")
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(ModelError, match="holds NaN or infinity"):
        merge(adapter, tmp_path / "merged")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "base"]


def test_another_base_of_the_same_shapes_is_refused(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base")
    other = save_base(tmp_path / "other", seed=1)
    adapter = save_adapter(tmp_path / "adapter", base)
    Run("plain", "digit", True, base=fingerprint_base(str(base))).write(adapter / "lrc_run.json")
    with pytest.raises(ModelError, match=r"other: not the weights of .*\(base\); pass that one as --base-model"):
        merge(adapter, tmp_path / "merged", base_model=str(other))
    assert not (tmp_path / "merged").exists()
    shutil.move(base, tmp_path / "moved")
    merge(adapter, tmp_path / "merged", base_model=str(tmp_path / "moved"))


def test_an_adapter_from_elsewhere_merges_with_one_warning(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    base = save_base(tmp_path / "base")
    adapter = save_adapter(tmp_path / "adapter", base)
    capfd.readouterr()
    merge(adapter, tmp_path / "merged")
    assert capfd.readouterr().err.count("does not say which base it was trained on") == 1


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _quantize(base: Path) -> None:
    config = json.loads((base / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (base / "config.json").write_text(json.dumps(config))


def _want_code(base: Path) -> None:
    config = json.loads((base / "config.json").read_text())
    config |= {
        "model_type": "own",
        "auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"},
    }
    (base / "config.json").write_text(json.dumps(config))
    (base / "own.py").write_text("raise SystemExit('ran')")


def _drop_a_tensor(adapter: Path) -> None:
    tensors = load_file(adapter / "adapter_model.safetensors")
    tensors.popitem()
    save_file(tensors, adapter / "adapter_model.safetensors")


def _rename_a_tensor(adapter: Path) -> None:
    tensors = load_file(adapter / "adapter_model.safetensors")
    tensors["base_model.model.model.layers.9.q_proj.lora_A.weight"] = tensors[next(iter(tensors))].clone()
    save_file(tensors, adapter / "adapter_model.safetensors")


def _other_rank(adapter: Path) -> None:
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "r": 5}))


FAULTS: dict[str, tuple[Any, str]] = {
    "no adapter": (lambda base, adapter: shutil.rmtree(adapter), "no adapter_config.json"),
    "no weights": (
        lambda base, adapter: (adapter / "adapter_model.safetensors").unlink(),
        "no adapter_model.safetensors",
    ),
    "cut adapter": (
        lambda base, adapter: _cut(adapter / "adapter_model.safetensors"),
        "adapter_model.safetensors: damaged",
    ),
    "empty adapter": (
        lambda base, adapter: (adapter / "adapter_model.safetensors").write_bytes(b""),
        "damaged",
    ),
    "cut configuration": (
        lambda base, adapter: _cut(adapter / "adapter_config.json"),
        "not an adapter's configuration",
    ),
    "cut base": (lambda base, adapter: _cut(base / "model.safetensors"), "model.safetensors: damaged"),
    "no base": (lambda base, adapter: shutil.rmtree(base), "no such folder; .*--base-model"),
    "base without weights": (
        lambda base, adapter: (base / "model.safetensors").unlink(),
        "no model.safetensors",
    ),
    "base without configuration": (lambda base, adapter: (base / "config.json").unlink(), "no config.json"),
    "cut base configuration": (
        lambda base, adapter: _cut(base / "config.json"),
        "config.json: not a JSON object",
    ),
    "quantized base": (
        lambda base, adapter: _quantize(base),
        "is quantized on disk .gptq, 4 bits., .*; pass the unquantized",
    ),
    "base that brings code": (lambda base, adapter: _want_code(base), "base: its model comes with code"),
    "tensor missing": (lambda base, adapter: _drop_a_tensor(adapter), "the adapter lacks base_model"),
    "tensor too many": (
        lambda base, adapter: _rename_a_tensor(adapter),
        "the base model has no parameter for base_model",
    ),
    "another rank": (lambda base, adapter: _other_rank(adapter), r"has shape \(4, 32\), expected \(5, 32\)"),
}


def test_a_disk_that_is_too_small_is_said_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = save_base(tmp_path / "base")
    adapter = save_adapter(tmp_path / "adapter", base)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage._replace(free=1000))
    with pytest.raises(MachineError, match="needs .*, 1.0 kB are free"):
        merge(adapter, tmp_path / "deep" / "merged")
    assert not (tmp_path / "deep").exists()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_line_and_leaves_nothing(fault: str, tmp_path: Path) -> None:
    base = save_base(tmp_path / "base")
    adapter = save_adapter(tmp_path / "adapter", base)
    harm, message = FAULTS[fault]
    harm(base, adapter)
    with pytest.raises(LrcError, match=message) as refused:
        merge(adapter, tmp_path / "merged")
    assert len(refused.value.lines()) == 1
    assert not [path for path in tmp_path.iterdir() if path.name not in ("adapter", "base")]


def test_an_adapter_of_other_modules_is_refused(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base")
    other = save_gpt2(tmp_path / "other")
    adapter = save_adapter(tmp_path / "adapter", base)
    with pytest.raises(ModelError, match="does not fit the base model"):
        merge(adapter, tmp_path / "merged", base_model=str(other))


def test_a_base_that_is_offline_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    base = save_base(tmp_path / "base")
    adapter = save_adapter(tmp_path / "adapter", base)
    with pytest.raises(ModelError, match="not among the models fetched before") as refused:
        merge(adapter, tmp_path / "merged", base_model="nobody/nothing")
    assert len(refused.value.lines()) == 1


def test_outputs_are_not_overwritten_and_inputs_never(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base")
    adapter = save_adapter(tmp_path / "adapter", base)
    (tmp_path / "merged").mkdir()
    (tmp_path / "merged/mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="already exists"):
        merge(adapter, tmp_path / "merged")
    for inputs in (base, adapter, tmp_path):
        with pytest.raises(OutputError, match="would replace"):
            merge(adapter, inputs, force=True)
    (tmp_path / "models/other").mkdir(parents=True)
    (tmp_path / "models/other/config.json").write_text("{}")
    for others in (tmp_path / "models", Path.cwd()):
        with pytest.raises(OutputError, match="which would be removed with it"):
            merge(adapter, others, force=True)


@pytest.mark.parametrize("mine", ["mine.txt", "runs/a/b/lrc_run.json"])
def test_force_replaces_a_merged_model_and_nothing_else(mine: str, tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", max_shard_size="60KB")
    save_tokenizer(base)
    adapter, merged = save_adapter(tmp_path / "adapter", base), tmp_path / "merged"
    merge(adapter, merged)
    (merged / mine).parent.mkdir(parents=True, exist_ok=True)
    (merged / mine).write_text("mine")
    with pytest.raises(OutputError, match=f"merged: holds {Path(mine).parts[0]}, which would be removed with it"):
        merge(adapter, merged, force=True, dtype="float16")
    assert (merged / mine).read_text() == "mine"
    shutil.move(merged / Path(mine).parts[0], tmp_path / "elsewhere")
    merge(adapter, merged, force=True, dtype="float16")
    assert load_config(str(merged)).dtype == torch.float16


def test_force_does_not_replace_a_file_by_a_folder(tmp_path: Path) -> None:
    adapter = save_adapter(tmp_path / "adapter", save_base(tmp_path / "base"))
    (tmp_path / "merged").write_text("mine")
    with pytest.raises(OutputError, match="merged: is a file; name a folder"):
        merge(adapter, tmp_path / "merged", force=True)
    assert (tmp_path / "merged").read_text() == "mine"


def test_bin_weights_are_read_as_tensors_alone(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    base = save_base(tmp_path / "base")
    adapter = save_adapter(tmp_path / "adapter", base)
    recorded = fingerprint_base(str(base))
    tensors = load_file(base / "model.safetensors")
    (base / "model.safetensors").unlink()
    torch.save(tensors, base / "pytorch_model.bin")
    assert fingerprint_base(str(base)) == recorded
    capfd.readouterr()
    merge(adapter, tmp_path / "merged")
    assert difference(base, adapter, tmp_path / "merged") <= 2e-6
    assert (tmp_path / "merged/model.safetensors").is_file()


def test_bin_shards_become_safetensors_of_the_same_names(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", max_shard_size="60KB")
    adapter = save_adapter(tmp_path / "adapter", base)
    index = json.loads((base / "model.safetensors.index.json").read_text())
    for path in base.glob("*.safetensors"):
        torch.save(load_file(path), base / f"pytorch_{path.stem}.bin")
        path.unlink()
    (base / "model.safetensors.index.json").unlink()
    pickled = {name: f"pytorch_{Path(file).stem}.bin" for name, file in index["weight_map"].items()}
    (base / "pytorch_model.bin.index.json").write_text(json.dumps({**index, "weight_map": pickled}))
    merge(adapter, tmp_path / "merged")
    assert difference(base, adapter, tmp_path / "merged") <= 2e-6
    merged_index = json.loads((tmp_path / "merged/model.safetensors.index.json").read_text())
    assert merged_index["weight_map"] == index["weight_map"]


class _Calls:
    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("import pathlib; pathlib.Path('ran').write_text('ran')",))


@pytest.mark.parametrize("where", ["base", "adapter"])
def test_a_pickle_that_holds_more_is_refused(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    base = save_base(tmp_path / "base")
    adapter = save_adapter(tmp_path / "adapter", base)
    folder, stem, pickled = {
        "base": (base, "model", "pytorch_model.bin"),
        "adapter": (adapter, "adapter_model", "adapter_model.bin"),
    }[where]
    (folder / f"{stem}.safetensors").unlink()
    torch.save({"model.norm.weight": _Calls()}, folder / pickled)
    with pytest.raises(ModelError, match=f"{pickled}: damaged, or a pickle that holds more than tensors"):
        merge(adapter, tmp_path / "merged")
    assert not (tmp_path / "ran").exists() and not (tmp_path / "merged").exists()


def test_the_largest_difference_and_the_next_command(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    base = save_base(tmp_path / "base")
    adapter = save_adapter(tmp_path / "adapter", base)
    merge(adapter, tmp_path / "merged")
    line, following = capfd.readouterr().out.splitlines()[-2:]
    assert following == f"next: lrc generate --model {tmp_path / 'merged'} --data TEST.xlsx --output answer.csv"
    assert 0 < float(line.split("on 4 texts: ")[1].split()[0]) < 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_merged_model_that_says_something_else_is_refused(
    dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = save_base(tmp_path / "base", dtype=dtype)
    adapter = save_adapter(tmp_path / "adapter", base)
    # One of two layers is written as it was in the base: as much as rounding cannot explain.
    monkeypatch.setattr(
        "lrc.models.merging.tensor_sources.StreamingMerge.blocks", _without_layer_one(StreamingMerge.blocks)
    )
    with pytest.raises(ModelError, match="its logits differ by up to .* where rounding explains") as refused:
        merge(adapter, tmp_path / "merged")
    assert len(refused.value.lines()) == 1 and str(refused.value).startswith(str(tmp_path / "merged"))
    assert not (tmp_path / "merged").exists()


def _without_layer_one(blocks: Any) -> Any:
    return lambda graft, name: graft.weights.blocks(name) if ".layers.1." in name else blocks(graft, name)


def test_memory_that_does_not_allow_the_comparison_is_said(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = save_base(tmp_path / "base")
    adapter = save_adapter(tmp_path / "adapter", base)
    monkeypatch.setattr("lrc.commands.merge.available_memory", lambda: 1000)
    merge(adapter, tmp_path / "merged")
    assert "logits not compared: that needs" in capfd.readouterr().out
    assert (tmp_path / "merged/model.safetensors").is_file()


def test_every_tensor_keeps_its_own_dtype_in_memory_too(tmp_path: Path) -> None:
    base = save_family(tmp_path / "base", "mixtral", torch.bfloat16)
    tensors = load_file(base / "model.safetensors")
    kept = {name: tensor.float() for name, tensor in tensors.items() if "gate.weight" in name or "norm" in name}
    save_file({**tensors, **kept}, base / "model.safetensors", {"format": "pt"})
    adapter = save_adapter(
        tmp_path / "adapter", base, target_modules=["q_proj"], target_parameters=["mlp.experts.gate_up_proj"]
    )
    merge(adapter, tmp_path / "merged")
    merged = load_file(tmp_path / "merged/model.safetensors")
    assert len(kept) >= 3
    assert {name: tensor.dtype for name, tensor in merged.items()} == {
        name: kept.get(name, tensor).dtype for name, tensor in tensors.items()
    }
    assert difference(base, adapter, tmp_path / "merged", torch.float32) <= 4 * torch.finfo(torch.bfloat16).eps


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "layers twice": ({"layer_replication": [[0, 2], [1, 2]]}, "layer_replication repeats layers"),
    "a key of a newer PEFT": ({"lora_of_tomorrow": 3}, "lora_of_tomorrow is 3, which the installed PEFT"),
    "soft prompts": (
        {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 4},
        "peft_type is PROMPT_TUNING, which puts tokens before the prompt",
    ),
    "a random start": (
        {"init_lora_weights": "pissa_niter_4"},
        "init_lora_weights is pissa_niter_4, whose start is random",
    ),
    "invoked by a token": ({"alora_invocation_tokens": [7, 8]}, "the adapter begins at a token"),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_an_adapter_that_is_more_than_a_change_of_layers_is_refused(reason: str, tmp_path: Path) -> None:
    base = save_base(tmp_path / "base")
    adapter = save_adapter(tmp_path / "adapter", base)
    path = adapter / "adapter_config.json"
    settings, message = REFUSED[reason]
    given = json.loads(path.read_text())
    if "peft_type" in settings:
        given = {key: given[key] for key in ("base_model_name_or_path", "task_type")}
    path.write_text(json.dumps({**given, **settings, "of_tomorrow_and_unset": None}))
    with pytest.raises(ModelError, match=message) as refused:
        merge(adapter, tmp_path / "merged")
    assert len(refused.value.lines()) == 1 and not (tmp_path / "merged").exists()
    if "layer_replication" not in settings:  # repeated layers answer as well as others
        with pytest.raises(ModelError, match=message):
            load_scorer(str(base), ScoringOptions((adapter,), template="plain", answer_style="digit"))


def test_a_tokenizer_with_more_tokens_than_the_base_has_rows_is_refused(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base")
    adapter = save_adapter(tmp_path / "adapter", base)
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens([f"<{i}>" for i in range(9)])
    tokenizer.save_pretrained(adapter)
    with pytest.raises(ModelError, match=r"tokenizer: has 267 tokens, the model's embeddings have 260 rows"):
        merge(adapter, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_an_adapter_of_a_four_bit_base_merges_into_the_unquantized_one(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", hidden_size=64)
    quantized = AutoModelForCausalLM.from_pretrained(
        base,
        quantization_config=BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4"),
        dtype=torch.float32,
    )
    assert quantized.model.layers[0].self_attn.q_proj.weight.dtype == torch.uint8
    adapter = save_adapter(tmp_path / "adapter", base, model=quantized)
    merge(adapter, tmp_path / "merged")
    assert difference(base, adapter, tmp_path / "merged") <= 2e-6
