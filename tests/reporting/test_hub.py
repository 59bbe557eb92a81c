"""Publishing: the real client against a server on loopback, which checks what it was given."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_server import TOKEN, Hub, serve
from huggingface_hub import DatasetCard, ModelCard
from safetensors.torch import load_file, save_file
from small_models import save_adapter, save_base
from small_runs import lrc

from lrc.commands.convert import convert
from lrc.commands.merge import merge
from lrc.commands.publish import publish, publish_dataset
from lrc.config.run_record import Run
from lrc.data.questions import Question
from lrc.metrics.predictions import Outcome, write_outcomes
from lrc.models.adapter import read_adapter_config
from lrc.models.fingerprint import fingerprint_base
from lrc.reporting.dataset_card import dataset_card
from lrc.reporting.hub import publish_dataset_card, publish_folder, staged
from lrc.reporting.model_card import model_card
from lrc.reporting.scrub import scrub
from lrc.runtime.errors import DataError, LrcError, ModelError, OutputError

PASSAGE = "這一段文章絕對不可以公開"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter's folder as a training run leaves it, with everything beside it that must stay at home."""
    home = tmp_path_factory.mktemp("home")
    base = save_base(home / "base")
    folder = save_adapter(home / "runs" / "adapter", base)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((base / name).read_bytes())
    Run(
        template="plain",
        answer_style="digit",
        list_options=True,
        recipe={
            "model_name_or_path": str(base),
            "train_file": str(home / "AI_train.json"),
            "learning_rate": 1e-4,
            "hub_token": TOKEN,
            "row_tokens": 512,
        },
        data={"validation_file": {"name": "AI_validation.json", "sha256": "ab" * 32, "questions": 200}},
        base=fingerprint_base(str(base), "main"),  # the revision that a recipe has by default
        versions={"trl": "1.16.0"},
    ).write(folder / "lrc_run.json")
    # Of 200 questions in the file 50 were scored, and 37 answered right; what was logged meanwhile says otherwise.
    (folder / "metrics.jsonl").write_text(json.dumps({"step": 1, "eval_accuracy": 0.5}) + "\n")
    asked = [Question(str(i), f"第{i}章", "誰？", ("甲", "乙", "丙", "丁"), 1) for i in range(50)]
    outcomes = [Outcome(one, (0.25,) * 4, 1 if i < 37 else 2) for i, one in enumerate(asked)]
    write_outcomes(folder / "validation_scores.jsonl", outcomes)
    (folder / "checkpoint-3").mkdir()
    for name in ("optimizer.pt", "training_args.bin", "AI_train.json", "checkpoint-3/optimizer.pt", ".env"):
        (folder / name).write_text(PASSAGE)
    return folder


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with serve() as server:
        yield server


EXPECTED = {
    "README.md",
    "adapter_config.json",
    "adapter_model.safetensors",
    "lrc_run.json",
    "tokenizer.json",
    "tokenizer_config.json",
}


def test_an_adapter_arrives_whole_and_nothing_else_does(trained: Path, hub: Hub) -> None:
    url = publish_folder(trained, "someone/adapter", private=True, endpoint=hub.address)
    assert url == f"{hub.address}/someone/adapter"
    assert set(hub.files) == EXPECTED
    assert hub.private == {"someone/adapter": True} and hub.commits == 1
    assert hub.files["adapter_model.safetensors"] == (trained / "adapter_model.safetensors").read_bytes()
    everything = b"".join(hub.files.values())
    for private in (PASSAGE, str(trained.parent.parent), str(Path.home()), TOKEN):
        assert private.encode() not in everything
    assert json.loads(hub.files["adapter_config.json"])["base_model_name_or_path"] == "base"
    recipe = json.loads(hub.files["lrc_run.json"])["recipe"]
    assert recipe == {
        "learning_rate": 1e-4,
        "model_name_or_path": "base",
        "row_tokens": 512,
        "train_file": "AI_train.json",
    }


def test_repeating_sends_nothing_twice(trained: Path, hub: Hub) -> None:
    for _ in range(2):
        publish_folder(trained, "someone/adapter", private=False, endpoint=hub.address)
    assert sum("/upload/" in call for call in hub.calls) == 1
    assert hub.commits == 1 and set(hub.files) == EXPECTED


def test_nothing_of_an_earlier_model_is_left_that_would_be_loaded(
    trained: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    """transformers takes model.safetensors before an index, and an adapter_config.json before either."""
    stale = {
        *("model.safetensors", "model-00001-of-00002.safetensors", "model.safetensors.index.json", "config.json"),
        *("pytorch_model.bin", "pytorch_model-00002-of-00002.bin", "adapter_model.bin", "chat_template.jinja"),
    }
    own = {"notes.txt", "gguf/model.gguf", "old/model.safetensors", "LICENSE", "model-q4.gguf", ".gitattributes"}
    hub.files |= {name: b"before" for name in stale | own | {"adapter_model.safetensors"}}
    with pytest.raises(
        OutputError, match="me/adapter: holds another model, which lrc has not published .*choose another"
    ):
        publish_folder(trained, "me/adapter", private=False, endpoint=hub.address)
    assert hub.commits == 0 and all(content == b"before" for content in hub.files.values())
    hub.files["lrc_run.json"] = b"{}"  # as lrc leaves it
    publish_folder(trained, "me/adapter", private=False, endpoint=hub.address)
    now = set(hub.files)
    assert hub.commits == 1 and not now & (stale - {"chat_template.jinja"}) and own <= now
    assert hub.files["adapter_model.safetensors"] == (trained / "adapter_model.safetensors").read_bytes()
    told = capsys.readouterr().err
    assert "me/adapter: removes files of the model that was published there before: " in told
    assert all(name in told for name in stale & set(told.split()) | {"pytorch_model.bin"}) and "notes.txt" not in told
    publish_folder(trained, "me/adapter", private=False, endpoint=hub.address)
    assert set(hub.files) == now and "removes" not in capsys.readouterr().err


def test_a_merged_model_arrives(trained: Path, hub: Hub, tmp_path: Path) -> None:
    merge(trained, tmp_path / "merged")
    publish_folder(tmp_path / "merged", "someone/merged", private=False, endpoint=hub.address)
    assert {"config.json", "generation_config.json", "model.safetensors", "README.md"} <= set(hub.files)
    (tmp_path / "got").write_bytes(hub.files["model.safetensors"])
    assert load_file(tmp_path / "got").keys() == load_file(tmp_path / "merged/model.safetensors").keys()
    assert "library_name: transformers" in hub.files["README.md"].decode()


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("/api/", 401, "rejected the token"),
        ("/commit/", 401, "rejected the token"),
        ("/api/", 403, "has no write access there"),
        ("/preupload/", 403, "has no write access there"),
        ("/upload/", 403, "has no write access there"),
        ("/commit/", 412, "the Hub answered 412"),
    ],
)
def test_a_refusal_is_one_line_and_can_be_repeated(
    path: str, status: int, message: str, trained: Path, hub: Hub
) -> None:
    hub.refuse = {path: status}
    with pytest.raises(OutputError, match=message) as refused:
        publish_folder(trained, "someone/adapter", private=False, endpoint=hub.address)
    assert len(refused.value.lines()) == 1 and TOKEN not in str(refused.value)
    assert not hub.files
    hub.refuse = {}
    publish_folder(trained, "someone/adapter", private=False, endpoint=hub.address)
    assert set(hub.files) == EXPECTED


def test_a_wrong_token_is_one_line_without_the_token(trained: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_" + "w" * 30)
    with pytest.raises(OutputError, match="rejected the token") as refused:
        publish_folder(trained, "someone/adapter", private=False, endpoint=hub.address)
    assert "hf_w" not in str(refused.value)


@pytest.mark.parametrize("where", ["/create", "/commit/"])
def test_an_interrupted_upload_is_one_line_and_can_be_repeated(where: str, trained: Path, hub: Hub) -> None:
    hub.hang_up = where
    with pytest.raises(OutputError, match="the connection to .* failed .*; repeat the command"):
        publish_folder(trained, "someone/adapter", private=False, endpoint=hub.address)
    assert not hub.files
    publish_folder(trained, "someone/adapter", private=False, endpoint=hub.address)
    assert set(hub.files) == EXPECTED


def test_a_connection_lost_while_sending_weights_is_taken_up_again(trained: Path, hub: Hub) -> None:
    hub.hang_up = "/upload/"
    publish_folder(trained, "someone/adapter", private=False, endpoint=hub.address)
    assert set(hub.files) == EXPECTED


def test_a_server_that_is_not_there_is_one_line(trained: Path, hub: Hub) -> None:
    with serve() as gone:
        address = gone.address
    with pytest.raises(OutputError, match="the connection to .* failed") as refused:
        publish_folder(trained, "someone/adapter", private=False, endpoint=address)
    assert len(refused.value.lines()) == 1


def test_private_is_not_promised_of_a_public_repository(trained: Path, hub: Hub) -> None:
    hub.private["someone/adapter"] = False
    with pytest.raises(OutputError, match="is public"):
        publish_folder(trained, "someone/adapter", private=True, endpoint=hub.address)
    assert not hub.files


def test_offline_connects_to_nothing(trained: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(OutputError, match="HF_HUB_OFFLINE is set"):
        publish_folder(trained, "someone/adapter", private=False, endpoint=hub.address)
    assert not hub.calls


def test_the_command_publishes_and_prints_the_address(
    trained: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.address)  # as HF_ENDPOINT sets it
    assert lrc("publish", "--adapter", trained, "--repo-id", "someone/adapter") == 0
    told = capfd.readouterr()
    url = f"{hub.address}/someone/adapter"
    assert told.out == f"published: {url}\nnext: hf download someone/adapter --local-dir adapter\n"
    assert set(hub.files) == EXPECTED and TOKEN not in told.out + told.err


def test_a_dry_run_shows_card_and_files_and_sends_nothing(
    trained: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(trained, repo_id="someone/adapter", private=True, dry_run=True)
    shown = capsys.readouterr().out
    assert not hub.calls
    card, _, files = shown.partition("6 files would go to someone/adapter (private):\n")
    *files, following = files.splitlines()
    assert {line.split()[-1] for line in files} == EXPECTED
    assert following == f"next: lrc publish --adapter {trained} --repo-id someone/adapter --private"
    assert ModelCard(card).data.library_name == "peft"


def test_the_card_says_how_well_it_answers(trained: Path) -> None:
    card = model_card(trained, "someone/adapter")
    again = ModelCard(str(card))
    (result,) = again.data.eval_results
    assert (result.metric_type, result.metric_value, result.dataset_name) == (
        "accuracy",
        0.74,
        "AI_validation.json",
    )
    # Wilson's interval of 37 of 50, worked out by hand; the answer is always 1, so the most frequent one is right.
    assert result.metric_args == {
        "questions": 50,
        "ci_low": 0.6045,
        "ci_high": 0.8413,
        "baseline": "majority",
        "baseline_accuracy": 1.0,
        "sha256": "ab" * 32,
    }
    assert "| AI_validation.json, 50 | 0.7400 | 0.6045 to 0.8413 | 1.0000 (majority) |" in str(card)
    assert result.dataset_revision is None  # which is a commit of a repository, and the file is in none
    assert again.data.language == "zh" and again.data.pipeline_tag == "text-generation"
    assert again.data.base_model is None  # a folder of this machine is not a model on the Hub


def test_a_base_on_the_hub_is_in_the_metadata(tmp_path: Path) -> None:
    adapter = save_adapter(tmp_path / "adapter", save_base(tmp_path / "base"))
    settings = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**settings, "base_model_name_or_path": "org/base"}))
    assert ModelCard(str(model_card(adapter, "someone/adapter"))).data.base_model == "org/base"
    with staged(adapter, "someone/adapter") as stage:
        assert json.loads((stage / "adapter_config.json").read_text())["base_model_name_or_path"] == "org/base"


def test_the_base_that_was_recorded_is_the_one_that_is_published(tmp_path: Path) -> None:
    """It may have been read from the Hub's cache, where its folder is named by a commit."""
    adapter = save_adapter(tmp_path / "adapter", save_base(tmp_path / "snapshots" / "0123abcd"))
    recipe = {"model_name_or_path": str(tmp_path / "snapshots" / "0123abcd")}
    Run("plain", "digit", True, recipe=recipe, base={"name": "org/base"}).write(adapter / "lrc_run.json")
    with staged(adapter, "someone/adapter") as stage:
        settings, run = (json.loads((stage / name).read_text()) for name in ("adapter_config.json", "lrc_run.json"))
    assert settings["base_model_name_or_path"] == run["recipe"]["model_name_or_path"] == "org/base"


@pytest.mark.parametrize("name", ["tokenizer_config.json", "adapter_config.json"])
def test_a_token_that_hides_in_a_file_is_found(name: str, trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    for file in EXPECTED - {"README.md"}:
        (folder / file).write_bytes((trained / file).read_bytes())
    settings = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**settings, TOKEN: 1}))
    with (
        pytest.raises(OutputError, match=f"{name}: holds what looks like a token") as refused,
        staged(folder, "a/b"),
    ):
        pass
    assert TOKEN not in str(refused.value)


def test_what_is_no_model_or_no_name_is_refused(trained: Path, tmp_path: Path) -> None:
    for folder, name, message in (
        (tmp_path, "someone/x", "no adapter_config.json and no config.json"),
        (trained, "some one/x", "cannot be a name on the Hub"),
        (trained, "a/b/c", "cannot be a name on the Hub"),
    ):
        with pytest.raises(LrcError, match=message), staged(folder, name):
            pass
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"not an adapter's configuration \(peft_type is missing\)"):
        model_card(tmp_path, "someone/x")
    with pytest.raises(ModelError, match=r"not an adapter's configuration \(peft_type is missing\)"):
        read_adapter_config(tmp_path)
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(ModelError, match="only safetensors are published"), staged(tmp_path, "someone/x"):
        pass


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"output_dir": "runs/a"}, {"output_dir": "a"}),
        ({"train_file": "C:\\Users\\me\\AI.json"}, {"train_file": "AI.json"}),
        (
            {"model_name_or_path": "hfl/chinese-alpaca-2-7b"},
            {"model_name_or_path": "hfl/chinese-alpaca-2-7b"},
        ),
        ({"model_name_or_path": "/data/models/base"}, {"model_name_or_path": "base"}),
        ({"nested": [{"cache_dir": "~/x/y"}]}, {"nested": [{"cache_dir": "y"}]}),
        ({"deepspeed": "../王小明/ds.json"}, {"deepspeed": "ds.json"}),
        ({"run_name": "at /home/wang/x, ~/a/b"}, {"run_name": "at x, b"}),
        ({"run_name": "file:///home/wang/x/y"}, {"run_name": "y"}),
        ({"run_name": r"\\srv\share\ds.json"}, {"run_name": "ds.json"}),
        ({"run_name": "https://a.org/b/c", "lora_target_modules": [r".*\.(q|v)_proj"]},) * 2,
        ({"hub_token": "anything", "row_tokens": 5, "eos_token": None}, {"row_tokens": 5, "eos_token": None}),
        ({"note": TOKEN, "list": [TOKEN, 1]}, {"list": [1]}),
        (
            {"chat_template": "{{ '</s>' }}", "content": "/"},
            {"chat_template": "{{ '</s>' }}", "content": "/"},
        ),
    ],
)
def test_scrubbing(before: object, after: object) -> None:
    assert scrub(before) == after


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"format": "pt", "dataset": "AI.xlsx"}, "has a note on its tensors, which is published, too: dataset"),
        ({"format": "pt", "dataset": "{home}/AI.xlsx"}, "adapter_model.safetensors: holds the local path"),
        ({"format": "pt", "notes": TOKEN}, "adapter_model.safetensors: holds what looks like a token"),
    ],
)
def test_what_is_written_beside_the_tensors_is_searched(
    metadata: dict[str, str], said: str, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = trained / "adapter_model.safetensors"
    texts = {key: text.replace("{home}", str(trained.resolve().parent)) for key, text in metadata.items()}
    save_file(load_file(file), file, metadata=texts)
    status = lrc("publish", "--adapter", trained, "--repo-id", "me/x", "--dry-run")
    assert status == int("holds" in said) and said in capsys.readouterr().err


def test_damaged_weights_are_not_published(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (trained / "adapter_model.safetensors").write_bytes(b"what is no tensor")
    assert lrc("publish", "--adapter", trained, "--repo-id", "me/x", "--dry-run") == 1
    told = capsys.readouterr().err
    assert "adapter_model.safetensors: damaged (" in told and "Traceback" not in told


def make_manifest(folder: Path) -> Path:
    """What `lrc convert` writes of three passages with two questions each, of which one has no options."""
    passages = (PASSAGE, "燈塔在海邊，夜裡為船隻照路。", "奶奶煮豆漿時要不停攪拌。")
    questions = [(passages[i // 2], f"第{i}題？", "甲", "乙", "丙", "丁", 1) for i in range(6)]
    lines = ["文章,問題,選項1,選項2,選項3,選項4,正確答案", *(",".join(map(str, one)) for one in questions)]
    (folder / "table.csv").write_text("\n".join([*lines, f"{PASSAGE}9,第7題？,,,,,1"]) + "\n", encoding="utf-8")
    convert(folder / "table.csv", output_dir=folder / "data", on_error="skip")
    return folder / "data" / "table_manifest.json"


def test_the_card_of_a_data_set_has_counts_and_checksums_and_no_row(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = make_manifest(tmp_path)
    url = publish_dataset_card(manifest, "someone/reading", private=True, endpoint=hub.address)
    assert url == f"{hub.address}/datasets/someone/reading" and hub.private == {"someone/reading": True}
    assert set(hub.files) == {"README.md"} and hub.commits == 1
    text = hub.files["README.md"].decode()
    assert PASSAGE not in text and "題？" not in text and str(tmp_path) not in text
    for file in (tmp_path / "table.csv", *(tmp_path / "data").glob("*_*.json")):
        if file != manifest:
            assert hashlib.sha256(file.read_bytes()).hexdigest() in text, file
    card = DatasetCard(text).data
    assert card.language == "zh" and card.size_categories == ["n<1K"] and "multiple-choice" in card.task_categories
    publish_dataset(manifest, repo_id="someone/reading", dry_run=True)
    following = f"next: lrc publish --dataset {manifest} --repo-id someone/reading\n"
    assert capsys.readouterr().out.endswith(f"{text}\n1 file would go to someone/reading: README.md\n{following}")


def test_the_card_tells_every_split_and_one_of_questions_without_answers_tells_none(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    make_manifest(tmp_path)
    convert(table, output_dir=tmp_path / "folds", folds=2, validation_fraction=0.5, on_error="skip")
    text = str(dataset_card(tmp_path / "folds" / "table_manifest.json", "someone/reading"))
    assert "50% of the\nquestions validate, seed 42" in text and "into 2 folds, seed 42" in text
    lines = [line.rpartition(",")[0] for line in table.read_text(encoding="utf-8").splitlines()[:-1]]
    numbered = [f"{number or 'ID'},{line}" for number, line in enumerate(lines)]
    (tmp_path / "test.csv").write_text("\n".join(numbered), encoding="utf-8")
    convert(tmp_path / "test.csv", output_dir=tmp_path / "test")
    text = str(dataset_card(tmp_path / "test" / "test_manifest.json", "someone/reading"))
    assert "| test.json | 6 |" in text and "Split" not in text


@pytest.mark.parametrize("damage", [{"files": {"a.json": {}}}, {"files": {"a.json": 1}}, {"split": {"seed": 1}}])
def test_a_manifest_with_a_part_missing_is_refused(damage: dict[str, Any], tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path)
    manifest.write_text(json.dumps(json.loads(manifest.read_bytes()) | damage))
    with pytest.raises(DataError, match=r"table_manifest.json: not a manifest .*; give the file"):
        dataset_card(manifest, "someone/reading")


@pytest.mark.parametrize("content", ["[]", "{}", "nonsense", '{"files": {}, "source": {}}'])
def test_what_is_no_manifest_is_refused(content: str, hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(DataError, match=r"a.json: not .*; give the file \*_manifest.json that `lrc convert` wrote"):
        publish_dataset_card(tmp_path / "a.json", "someone/reading", private=False, endpoint=hub.address)
    assert not hub.calls
