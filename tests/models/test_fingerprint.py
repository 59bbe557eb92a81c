"""Fingerprints of a base: the same for the same model, another for another, no path of this machine."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_models import save_base
from transformers import LlamaForCausalLM

from lrc.config.run_record import Run
from lrc.models.content_hash import contents_sum
from lrc.models.fingerprint import find_base, fingerprint_base, verify_base
from lrc.models.weights import WeightFiles
from lrc.runtime.errors import ModelError
from lrc.training.resume import differences


def test_a_folder_is_named_by_its_last_part_alone(tmp_path: Path) -> None:
    found = fingerprint_base(str(save_base(tmp_path / "some" / "base")))
    assert found["name"] == "base" and found["revision"] is None
    assert str(tmp_path) not in json.dumps(found)


def test_two_seeds_differ_in_their_weights_alone(tmp_path: Path) -> None:
    one, two = (fingerprint_base(str(save_base(tmp_path / str(seed), seed=seed))) for seed in (0, 1))
    assert {key for key in one if one[key] != two[key]} == {"name", "weights_sha256", "contents_sha256"}


def test_sharding_and_file_format_do_not_matter(tmp_path: Path) -> None:
    single = save_base(tmp_path / "single")
    sharded = save_base(tmp_path / "sharded", max_shard_size="60KB")
    assert len(list(sharded.glob("*.safetensors"))) > 1
    pickled = Path(shutil.copytree(single, tmp_path / "pickled"))
    torch.save(load_file(single / "model.safetensors"), pickled / "pytorch_model.bin")
    (pickled / "model.safetensors").unlink()
    found = [fingerprint_base(str(folder)) for folder in (single, sharded, pickled)]
    assert len({(sums["weights_sha256"], sums["contents_sha256"]) for sums in found}) == 1


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
    assert len(refused.value.lines()) == 1


def test_each_part_that_differs_is_a_finding(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base")
    recorded = fingerprint_base(str(base))
    tensors = load_file(base / "model.safetensors")
    tensors["model.norm.weight"] += 1
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    (base / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError) as refused:
        verify_base(recorded, base)
    assert ["weights" in refused.value.lines()[0], "tokenizer" in refused.value.lines()[1]] == [True, True]


def change_one_weight(base: Path, step: float = 1e-3) -> None:
    """Change one number that is in none of the samples."""
    tensors = load_file(base / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"].view(-1)[777] += step
    save_file(tensors, base / "model.safetensors", {"format": "pt"})


def test_one_weight_of_another_value_is_another_base(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base")
    recorded = fingerprint_base(str(base))
    change_one_weight(base)
    assert fingerprint_base(str(base))["weights_sha256"] == recorded["weights_sha256"]
    with pytest.raises(
        ModelError, match="not the weights of the base model that the adapter was trained on"
    ) as refused:
        verify_base(recorded, base)
    assert len(refused.value.lines()) == 1


def test_an_older_run_has_no_checksum_of_the_whole(tmp_path: Path) -> None:
    recorded = fingerprint_base(str(save_base(tmp_path / "base")))
    older = {key: value for key, value in recorded.items() if key != "contents_sha256"}
    verify_base(older, tmp_path / "base")
    one, other = (Run("plain", "digit", True, base=base) for base in (recorded, older))
    assert not differences(one, other) and not differences(other, one)
    (found,) = differences(other, Run("plain", "digit", True, base={**older, "weights_sha256": "x"}))
    assert found.what == "the base model's weights"
    assert differences(one, Run("plain", "digit", True, base={**recorded, "contents_sha256": "x"}))


def test_files_that_stay_as_they_are_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    base = save_base(tmp_path / "base", max_shard_size="60KB")
    monkeypatch.setattr("lrc.models.content_hash.UNSETTLED", -1e6)  # as if they had been there for days
    wanted = contents_sum(WeightFiles(base))

    def fail(*args: Any) -> Any:
        raise AssertionError("read again")

    with monkeypatch.context() as patched:
        patched.setattr(WeightFiles, "raw", fail)
        assert contents_sum(WeightFiles(base)) == wanted
    shard = next(base.glob("*.safetensors"))
    tensors, times = load_file(shard), shard.stat()
    tensors[next(iter(tensors))].view(-1)[5] += 1
    save_file(tensors, shard, {"format": "pt"})
    os.utime(shard, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert shard.stat().st_mtime_ns == times.st_mtime_ns and contents_sum(WeightFiles(base)) != wanted


@pytest.mark.parametrize("content", ["", "[]", '{"state": 1}', '{"tensors": {}}', "[" * 100_000])
def test_a_damaged_cache_is_read_past(content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("lrc.models.content_hash.UNSETTLED", -1e6)
    base = save_base(tmp_path / "base")
    wanted = contents_sum(WeightFiles(base))
    (entry,) = (tmp_path / "cache/lrc-checksums").glob("*.json")
    entry.write_text(content)
    assert contents_sum(WeightFiles(base)) == wanted


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = save_base(tmp_path / "base")
    wanted = contents_sum(WeightFiles(base))
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "file"))
    assert contents_sum(WeightFiles(base)) == wanted


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
