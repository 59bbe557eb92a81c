"""The scores kept while answering: what a new start takes from them, and what it leaves."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from small_models import save_adapter, save_base, save_tokenizer

from lrc.answering.answer import facts
from lrc.answering.options import ScoringOptions
from lrc.answering.partial_scores import PartialScores, remove_partial_scores
from lrc.metrics.option_scores import OptionScores
from lrc.runtime.outputs import checksum

SCORES = {
    place: OptionScores((-0.1 * place, -1 / 3, float("-inf")), (0.7, 0.3, 0.0), 1, place % 2 == 0) for place in range(5)
}


def begun(output: Path) -> PartialScores:
    side = PartialScores.for_output(output, ["model", 1, None])
    assert not side.exists and side.start() == {}
    side.append({place: SCORES[place] for place in (0, 3)})
    side.append({4: SCORES[4]})
    return side


def test_what_was_scored_comes_back_exactly(tmp_path: Path) -> None:
    begun(tmp_path / "answer.csv")
    again = PartialScores.for_output(tmp_path / "answer.csv", ["model", 1, None])
    assert again.exists
    assert again.start() == {place: SCORES[place] for place in (0, 3, 4)}
    again.append({1: SCORES[1]})
    assert again.start().keys() == {0, 1, 3, 4}
    remove_partial_scores(tmp_path / "answer.csv")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("facts", [["other", 1, None], ["model", 1, 0], ["model", 1]])
def test_another_run_takes_nothing(facts: list[object], tmp_path: Path) -> None:
    begun(tmp_path / "answer.csv")
    other = PartialScores.for_output(tmp_path / "answer.csv", facts)
    assert not other.exists and other.start() == {}


def test_scores_that_were_computed_otherwise_are_not_mixed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whether a model fits in 16 bits depends on what else is on the GPU, so a new start may compute in others."""
    side = PartialScores.for_output(tmp_path / "answer.csv", ["model"])
    assert side.start("bfloat16, 4 bits") == {} and capsys.readouterr().err == ""
    side.append({place: SCORES[place] for place in (0, 3)})
    assert side.start("bfloat16, 4 bits").keys() == {0, 3} and capsys.readouterr().err == ""
    again = PartialScores.for_output(tmp_path / "answer.csv", ["model"])
    assert again.exists and again.start("bfloat16") == {}
    told = "2 questions were answered in bfloat16, 4 bits, and now again in bfloat16"
    assert told in capsys.readouterr().err
    again.append({1: SCORES[1]})
    assert again.start("bfloat16") == {1: SCORES[1]}


def test_a_line_cut_short_is_left_out(tmp_path: Path) -> None:
    side = begun(tmp_path / "answer.csv")
    side.path.write_bytes(side.path.read_bytes()[:-20])
    assert side.start().keys() == {0, 3}
    side.path.write_bytes(b"\xff\xfe")
    assert side.start() == {}


def test_each_process_has_its_own(tmp_path: Path) -> None:
    paths = {PartialScores.for_output(tmp_path / "answer.csv", [], process).path.name for process in range(3)}
    assert paths == {".answer.csv.partial.jsonl", ".answer.csv.partial.1.jsonl", ".answer.csv.partial.2.jsonl"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, an adapter and questions."""
    home = tmp_path_factory.mktemp("facts")
    save_tokenizer(save_base(home / "base"))
    save_adapter(home / "adapter", home / "base")
    run = {"template": "plain", "answer_style": "text", "list_options": True, "recipe": {}, "base": {}, "data": {}}
    (home / "adapter" / "lrc_run.json").write_text(json.dumps(run), encoding="utf-8")
    (home / "asked.json").write_text("[]", encoding="utf-8")
    return home


def key_of(home: Path, options: ScoringOptions, output: Path) -> str:
    return PartialScores.for_output(output, facts(str(home / "base"), options, checksum(home / "asked.json"))).key


OPTIONS = {
    "votes": 2,
    "template": "alpaca",
    "answer_style": "digit",
    "list_options": False,
    "row_tokens": 99,
    "score_normalisation": "token",
    "load_in_4bit": True,
    "dtype": "bfloat16",
    "average_weights": True,
}


def test_scores_of_other_options_are_not_gone_on_with(folder: Path, tmp_path: Path) -> None:
    options = ScoringOptions((folder / "adapter",))
    assert OPTIONS.keys() == {field.name for field in fields(ScoringOptions)} - {"adapters"}
    others = [options, *(replace(options, **{name: value}) for name, value in OPTIONS.items())]
    keys = [key_of(folder, one, tmp_path / "a.csv") for one in others]
    assert len(set(keys)) == len(keys) == len(OPTIONS) + 1
    assert key_of(folder, options, tmp_path / "a.csv") == keys[0] == key_of(folder, options, tmp_path / "b.csv")


def change_weights(file: Path) -> None:
    tensors = load_file(file)
    name = min(tensors)
    tensors[name].view(-1)[7] += 1e-3
    save_file(tensors, file, metadata={"format": "pt"})


def change_text(file: Path) -> None:
    file.write_text(file.read_text(encoding="utf-8").replace('"plain"', '"alpaca"') + "\n", encoding="utf-8")


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("base/model.safetensors", change_weights),
        ("adapter/adapter_model.safetensors", change_weights),
        ("adapter/lrc_run.json", change_text),
        ("asked.json", change_text),
    ],
)
def test_scores_of_other_files_are_not_gone_on_with(
    file: str, change: Callable[[Path], None], folder: Path, tmp_path: Path
) -> None:
    """An adapter that is trained again is in the same folder, and so are questions that are corrected."""
    home = Path(shutil.copytree(folder, tmp_path / "home"))
    options = ScoringOptions((home / "adapter",))
    before = key_of(home, options, tmp_path / "a.csv")
    change(home / file)
    assert key_of(home, options, tmp_path / "a.csv") != before
