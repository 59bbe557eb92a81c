"""Several training files, each with its part of an epoch and its own account."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from small_runs import lrc, make_run, pairs, run, write_questions

from lrc.config.run_record import RUN_FILE
from lrc.data.alpaca import encode_record, to_record
from lrc.tokenization.token_dataset import Corpus, Portion, join
from lrc.training.dataloader import StepSampler

SIZES = {"num_train_epochs": 2, "per_device_train_batch_size": 4, "use_cpu": True, "save_strategy": "no"}


def drawn(sampler: StepSampler, epoch: int) -> list[int]:
    sampler.set_epoch(epoch)
    return [place for step in sampler for place, _ in step]


@pytest.mark.parametrize("seed", [None, 3])
def test_an_epoch_has_the_shares_and_continues_where_the_last_one_ended(seed: int | None) -> None:
    passages = [place // 3 for place in range(30 + 12)]
    sampler = StepSampler(passages, 4, seed=seed, portions=(Portion(30, 8), Portion(12, 12)))
    epochs = [drawn(sampler, epoch) for epoch in range(5)]
    assert len(sampler) == 5
    for places in epochs:
        assert len(places) == len(set(places)) == 20
        assert sorted(place for place in places if place >= 30) == list(range(30, 42))
    firsts = [place for places in epochs for place in places if place < 30]
    counts = Counter(firsts)
    # 40 were drawn of 30: each once, and then ten of them again.
    assert set(counts) == set(range(30)) and sorted(counts.values()) == [1] * 20 + [2] * 10
    if seed is not None:
        assert drawn(sampler, 0) == epochs[0] != sorted(epochs[0])
        # A passage is drawn whole, but where an epoch ends in the middle of one.
        halved = [
            passage
            for places in epochs
            for passage, count in Counter(passages[place] for place in places if place < 30).items()
            if count < 3
        ]
        assert len(halved) <= 2 * len(epochs)


def test_a_single_file_is_drawn_as_without_shares() -> None:
    passages = [place // 3 for place in range(30)]
    plain, said = StepSampler(passages, 4, seed=3), StepSampler(passages, 4, seed=3, portions=(Portion(30, 30),))
    assert drawn(plain, 2) == drawn(said, 2)
    random = np.random.default_rng([3, 2])
    order = random.permutation(10)
    ties = random.random(30)
    assert drawn(plain, 2) == sorted(range(30), key=lambda place: (order[place // 3], ties[place]))


def test_passages_and_shares_of_files_are_kept_apart() -> None:
    """Numbers of passages begin anew in each file; the questions of two would otherwise be drawn as one's."""
    sizes = (4, 6, 2)
    passages = [[place // 2 for place in range(size)] for size in sizes]
    records = [[to_record(question) for question in pairs(size, name=f"{size}-")] for size in sizes]
    corpora = [
        Corpus(own, [], [], Dataset.from_dict({"record": list(map(encode_record, own)), "passage": numbers}))
        for own, numbers in zip(records, passages, strict=True)
    ]
    joined = join(corpora, None)
    assert joined.dataset is not None
    assert list(joined.records) == joined.records[:] == [record for own in records for record in own]
    assert joined.records[4].id == "6-0"
    assert joined.dataset["passage"][:] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert joined.portions == ((4, 4), (6, 6), (2, 2))
    # As long as no question repeats: 4 of 4, then the others by their shares, of which each file has at least one.
    assert join(corpora, [0.8, 0.19, 0.01]).portions == ((4, 4), (6, 1), (2, 1))
    assert join(corpora, [0.2, 0.4, 0.4]).portions == ((4, 1), (6, 2), (2, 2))


def test_each_file_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_run(tmp_path, pairs(12, name="a"), **SIZES)
    long = "長" * 600
    other = write_questions(tmp_path / "other.json", pairs(8, name="b")[:7])
    asked = json.loads(other.read_text(encoding="utf-8"))
    asked[0] |= {"passage": long, "input": asked[0]["input"].replace(asked[0]["passage"], long)}
    other.write_text(json.dumps(asked, ensure_ascii=False), encoding="utf-8")
    words = ["--train_file", str(folder / "t_train.json"), str(other), "--train_shares", "0.75", "0.25"]
    words += ["--max_length", "700", "--on_too_long", "skip"]
    assert run(folder, tmp_path / "a", *words) == 0
    told = capsys.readouterr().err
    assert f"{other}: 1 question left out to fit max_length 700: b0" in told
    assert f"an epoch has 12 of 12 of {folder / 't_train.json'} and 4 of 7 of {other}" in told
    noted = json.loads((tmp_path / "a" / RUN_FILE).read_text(encoding="utf-8"))
    parts = {role: (part["name"], part["questions"], part["drawn"]) for role, part in noted["data"].items()}
    assert parts == {"train_file": ("t_train.json", 12, 12), "train_file 2": ("other.json", 7, 4)}
    lines = [json.loads(line) for line in (tmp_path / "a" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert max(line["step"] for line in lines) == 8  # two epochs of 16 questions, four a step
    assert lrc("publish", "--adapter", tmp_path / "a", "--repo-id", "a/b", "--dry-run") == 0
    assert "other.json" in capsys.readouterr().out


def test_without_shares_all_of_all_files_is_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_run(tmp_path, pairs(12, name="a"), **SIZES)
    other = write_questions(tmp_path / "other.json", pairs(8, name="b"))
    (folder / "recipe.yaml").write_text(
        (folder / "recipe.yaml")
        .read_text("utf-8")
        .replace(f"train_file: {folder / 't_train.json'}", f"train_file: [{folder / 't_train.json'}, {other}]"),
        encoding="utf-8",
    )
    assert lrc("preview", folder / "recipe.yaml", "--json", "--output_dir", tmp_path / "a") == 0
    assert json.loads(capsys.readouterr().out)["tokens"]["questions"] == 20
    assert run(folder, tmp_path / "a", "--max_steps", "1") == 0
    assert f"12 of 12 of {folder / 't_train.json'} and 8 of 8 of {other}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--train_shares", "0.5", "0.5"], "train_shares has 2 parts for 1 file of train_file"),
        (["--train_file", "FILE", "FILE"], "twice; name it once"),
        (["--train_file", "FILE", "OTHER", "--train_shares", "0.5", "0.6"], "expected numbers above 0 whose sum is 1"),
        (["--train_file", "FILE", "none.json"], "none.json"),
    ],
)
def test_what_does_not_go_together_is_refused(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_run(tmp_path, pairs(4), **SIZES)
    other = write_questions(tmp_path / "other.json", pairs(4))
    names = {"FILE": str(folder / "t_train.json"), "OTHER": str(other)}
    assert run(folder, tmp_path / "a", *[names.get(word, word) for word in words]) == 1
    told = capsys.readouterr().err
    assert said in told and "Traceback" not in told and not (tmp_path / "a").exists()
