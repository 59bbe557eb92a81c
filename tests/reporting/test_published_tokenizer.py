"""What is published answers as what was trained: the tokenizer arrives whole, and no secret does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_server import TOKEN, Hub, serve
from small_runs import make_run, pairs, run
from transformers import AutoTokenizer

from lrc.commands.merge import merge
from lrc.config.run_record import read_run
from lrc.config.yaml_reader import refuse_tokens
from lrc.reporting.hub import publish_folder, staged
from lrc.runtime.errors import LrcError, ModelError, OutputError
from lrc.tokenization.chat_template import DATE

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}"
    "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
TURNS = [{"role": "user", "content": "貓在哪裡？"}, {"role": "assistant", "content": "2"}]
# One of each kind, none of them real.
SECRETS = {
    "hugging face": "hf_" + "aB3dE5gH7jK9mN1pQ3sT5vX7z",
    "hugging face organization": "api_org_" + "aB3dE5gH7jK9mN1pQ3",
    "wandb": "0123456789abcdef" * 2 + "01234567",
    "wandb, new": "wandb_v1_" + "aB3dE5gH7jK9mN1pQ3sT_5vX7z",
    "aws id": "AKIA" + "IOSFODNN7EXAMPLE",
    "aws secret": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "openai": "sk-proj-" + "aB3-dE5gH7jK9mN1pQ3s_T5vX7z",
    "openai, old": "sk-" + "abcdefghijklmnopqrstuvwx",
    "anthropic": "sk-ant-api03-" + "aB3dE5gH7jK9-mN1pQ3sT5",
    "github": "ghp_" + "aB3dE5gH7jK9mN1pQ3sT5vX7z",
    "github, fine-grained": "github_pat_" + "11ABCDEFG0aB3dE5gH7j",
    "gitlab": "glpat-" + "aB3dE5gH7jK9mN1pQ3sT",
    "google": "AIza" + "SyA1234567890abcdefghijklmnopqrstuv",
    "slack": "xoxb-" + "1234567890-abcdefgh",
    "jwt": "eyJhbGciOiJIUzI1NiJ9." + "eyJzdWIiOiIxMjM0In0." + "c2lnbmF0dXJl",
    "password in an address": "https://me:" + "swordfish@example.com/x",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base whose every control token is another one and whose chat template writes two of them."""
    made = make_run(
        tmp_path_factory.mktemp("run"),
        pairs(4),
        template="chat",
        max_steps=1,
        lora_target_modules=["q_proj"],
        save_strategy="no",
    )
    tokenizer = AutoTokenizer.from_pretrained(made / "base")
    names = iter("ĀāĂ")  # in the vocabulary already: bytes that no text has
    tokenizer.add_special_tokens({"unk_token": next(names), "pad_token": next(names), "sep_token": next(names)})
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(made / "base")
    return made


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with serve() as server:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.address)
        yield server


@pytest.fixture
def trained(folder: Path, hub: Hub) -> Path:
    """An adapter that training published by itself."""
    assert run(folder, folder / "adapter", "--push_to_hub", "true", "--hub_model_id", "someone/pushed") == 0
    return folder / "adapter"


def facts(place: Path) -> dict[str, Any]:
    tokenizer = AutoTokenizer.from_pretrained(place)
    ids = [f"{tokenizer.bos_token}甲乙{tokenizer.eos_token}", f"{tokenizer.pad_token}Ab 1{tokenizer.sep_token}"]
    return {
        "special": tokenizer.special_tokens_map,
        "ids": [tokenizer(text)["input_ids"] for text in ids],
        "control": (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id),
        "chat": tokenizer.apply_chat_template(TURNS, tokenize=False),
        "asked": tokenizer.apply_chat_template(TURNS[:1], add_generation_prompt=True, return_dict=False),
        "added": {k: str(token) for k, token in tokenizer.added_tokens_decoder.items()},
    }


def received(hub: Hub, place: Path) -> Path:
    place.mkdir()
    for name, content in hub.files.items():
        (place / name).write_bytes(content)
    return place


def test_the_published_tokenizer_is_the_trained_one(trained: Path, folder: Path, hub: Hub, tmp_path: Path) -> None:
    wanted = facts(folder / "base")
    assert {"bos_token", "eos_token", "pad_token", "unk_token", "sep_token"} <= wanted["special"].keys()
    assert facts(trained) == wanted
    assert facts(received(hub, tmp_path / "pushed")) == wanted
    merge(trained, tmp_path / "merged")
    for place in (trained, tmp_path / "merged"):
        run_file = read_run(place)
        assert run_file is not None and run_file.chat_date == DATE
        hub.files.clear()
        publish_folder(place, f"someone/{place.name}", private=False)
        assert facts(received(hub, tmp_path / f"{place.name} from the hub")) == wanted


def test_what_the_hub_refused_is_published_by_the_same_command(folder: Path, hub: Hub, tmp_path: Path) -> None:
    words = ["--push_to_hub", "true", "--hub_model_id", "someone/again"]
    hub.refuse = {"/commit/": 412}
    assert run(folder, tmp_path / "a", *words) == 1 and not hub.files
    hub.refuse = {}
    assert run(folder, tmp_path / "a", *words) == 0
    assert facts(received(hub, tmp_path / "pushed")) == facts(folder / "base")


@pytest.mark.parametrize("merged", [False, True])
def test_a_tokenizer_with_more_tokens_than_rows_is_not_published(trained: Path, merged: bool, tmp_path: Path) -> None:
    place = tmp_path / "place"
    if merged:
        merge(trained, place, verify=False)
    else:
        place.mkdir()
        for file in filter(Path.is_file, trained.iterdir()):
            (place / file.name).write_bytes(file.read_bytes())
    tokenizer = AutoTokenizer.from_pretrained(place)
    tokenizer.add_tokens([f"<more {number}>" for number in range(1024)])
    tokenizer.save_pretrained(place)
    with pytest.raises(ModelError, match="use the tokenizer and the base model of the same release"):
        publish_folder(place, "someone/more", private=False)


@pytest.mark.parametrize("kind", SECRETS)
def test_no_secret_survives_wherever_it_stands(
    kind: str, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    secret, place = SECRETS[kind], tmp_path / "adapter"
    for name in ("adapter_config.json", "lrc_run.json", "tokenizer_config.json", "tokenizer.json"):
        place.mkdir(exist_ok=True)
        for file in trained.iterdir():
            if file.is_file():
                (place / file.name).write_bytes(file.read_bytes())
        settings = json.loads((place / name).read_text(encoding="utf-8"))
        planted = {"note": secret, "list": [{"deep": [secret, "kept"]}], "wandb_api_key": secret}
        (settings["recipe"] if name == "lrc_run.json" else settings).update(planted)
        (place / name).write_text(json.dumps(settings), encoding="utf-8")
        (place / "README.md").write_text(f"# mine\n\n{secret}\n", encoding="utf-8")
        try:
            with staged(place, "someone/adapter") as stage:
                everything = "".join(
                    file.read_text(encoding="utf-8") for file in stage.iterdir() if file.suffix != ".safetensors"
                )
                assert secret not in everything and "kept" in everything
                assert facts(stage)["special"] == facts(trained)["special"]
            within = "recipe." if name == "lrc_run.json" else ""
            keys = ", ".join(f"{within}{key}" for key in ("note", "list.deep", "wandb_api_key"))
            assert f"{name}: left out {keys}, which looks like a secret" in capsys.readouterr().err
        except OutputError as refused:  # what cannot be taken out is not sent
            assert name == "tokenizer.json" and secret not in str(refused)


@pytest.mark.parametrize("kind", [kind for kind in SECRETS if kind not in ("wandb", "aws secret")])
def test_recipes_are_refused_by_the_same_list(kind: str) -> None:
    with pytest.raises(LrcError, match="holds an access token or password") as refused:
        refuse_tokens("a.yaml", f"seed: 1\nrun_name: {SECRETS[kind]}\n")
    assert SECRETS[kind] not in str(refused.value)


@pytest.mark.parametrize("key", ["WANDB_API_KEY: ", "wandb_key: '", "aws_secret_access_key="])
def test_keys_that_look_like_checksums_are_told_by_what_stands_before_them(key: str) -> None:
    with pytest.raises(LrcError, match="holds an access token"):
        refuse_tokens("a.yaml", key + SECRETS["aws secret" if "aws" in key else "wandb"])


@pytest.mark.parametrize(
    "text",
    [
        "model_revision: 0123456789abcdef0123456789abcdef01234567",
        "run_name: task-tokenizer-of-something-1234567890",
        "train_file: data/hf_train.json",
        "note: https://example.com/a:b@c",
        "lora_target_modules: all-linear",
    ],
)
def test_what_is_no_secret_is_let_through(text: str) -> None:
    refuse_tokens("a.yaml", text)


def test_a_vocabulary_may_have_words_that_look_like_this_machine(trained: Path, tmp_path: Path) -> None:
    place = tmp_path / "adapter"
    place.mkdir()
    for file in trained.iterdir():
        if file.is_file():
            (place / file.name).write_bytes(file.read_bytes())
    settings = json.loads((place / "tokenizer.json").read_text(encoding="utf-8"))
    # As vocabularies of large bases have them, packed without spaces.
    settings["more"] = {str(Path.home()): 1, "://": 2, "a": 3, "@": 4, "task-": 5, "asia": 6}
    (place / "tokenizer.json").write_text(json.dumps(settings, separators=(",", ":")), encoding="utf-8")
    with staged(place, "someone/adapter") as stage:
        assert (stage / "tokenizer.json").read_bytes() == (place / "tokenizer.json").read_bytes()
