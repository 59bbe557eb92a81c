"""Fingerprints of a base: the same for the same model, another for another, no path of this machine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_models import save_base
from transformers import LlamaForCausalLM

from lrc.errors import ModelError
from lrc.fingerprint import find_base, fingerprint_base, verify_base


def test_a_folder_is_named_by_its_last_part_alone(tmp_path: Path) -> None:
    found = fingerprint_base(str(save_base(tmp_path / "some" / "base")))
    assert found["name"] == "base" and found["revision"] is None
    assert str(tmp_path) not in json.dumps(found)


def test_two_seeds_differ_in_their_weights_alone(tmp_path: Path) -> None:
    one, two = (fingerprint_base(str(save_base(tmp_path / str(seed), seed=seed))) for seed in (0, 1))
    assert {key for key in one if one[key] != two[key]} == {"name", "weights_sha256"}


def test_sharding_and_file_format_do_not_matter(tmp_path: Path) -> None:
    single = save_base(tmp_path / "single")
    sharded = save_base(tmp_path / "sharded", max_shard_size="60KB")
    assert len(list(sharded.glob("*.safetensors"))) > 1
    pickled = Path(shutil.copytree(single, tmp_path / "pickled"))
    torch.save(load_file(single / "model.safetensors"), pickled / "pytorch_model.bin")
    (pickled / "model.safetensors").unlink()
    sums = {fingerprint_base(str(folder))["weights_sha256"] for folder in (single, sharded, pickled)}
    assert len(sums) == 1


def test_a_dtype_is_part_of_the_weights(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base")
    LlamaForCausalLM.from_pretrained(base, dtype=torch.float16).save_pretrained(tmp_path / "half")
    assert fingerprint_base(str(base))["weights_sha256"] != fingerprint_base(str(tmp_path / "half"))["weights_sha256"]


def test_who_wrote_the_configuration_does_not_matter(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base")
    recorded = fingerprint_base(str(base))
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "transformers_version": "9.9"}))
    verify_base(recorded, base)
    (base / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.5}))
    with pytest.raises(ModelError, match="not the config of") as refused:
        verify_base(recorded, base)
    assert len(refused.value.findings) == 1


def test_each_part_that_differs_is_a_finding(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base")
    recorded = fingerprint_base(str(base))
    tensors = load_file(base / "model.safetensors")
    tensors["model.norm.weight"] += 1
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    (base / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError) as refused:
        verify_base(recorded, base)
    assert ["weights" in refused.value.findings[0], "tokenizer" in refused.value.findings[1]] == [True, True]


def test_a_base_without_tokenizer_is_not_refused_for_that(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base")
    recorded = fingerprint_base(str(base))
    (base / "tokenizer.json").unlink()
    verify_base(recorded, base)


@pytest.mark.parametrize("name", ["/nowhere/base", "./nowhere", "a/b/c"])
def test_a_folder_that_is_not_there_is_not_looked_for_on_the_hub(name: str) -> None:
    with pytest.raises(ModelError, match="no such folder"):
        find_base(name)


def test_a_base_that_is_not_there_is_asked_for_by_the_name_that_the_caller_has_for_it() -> None:
    with pytest.raises(ModelError, match="say where the base model is with --model$"):
        find_base("./nowhere", flag="--model")
    with pytest.raises(ModelError, match="say where the base model is with model_name_or_path$"):
        fingerprint_base("someone/nothing", flag="model_name_or_path")


def test_a_name_on_the_hub_is_found_in_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--someone--base"
    save_base(repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    found = fingerprint_base("someone/base")
    assert (found["name"], found["revision"]) == ("someone/base", commit)
    with pytest.raises(ModelError, match="someone/other: .*not among the models fetched before"):
        fingerprint_base("someone/other")
