"""Inputs that somebody made to do harm: each is refused in a line, runs nothing and leaves nothing."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from processes import Command
from safetensors.torch import load_file, save_file

SAMPLE = Path(__file__).parents[2] / "examples" / "sample.xlsx"
HEADER = "ID,文章,問題,選項1,選項2,選項3,選項4,正確答案\n"
RECORD = {"id": "1", "instruction": "", "input": "", "passage": "甲。", "question": "誰？", "options": ["甲", "乙"]}
Words = list[Any]


class Evil:
    """Unpickled, it makes a file named `owned`."""

    def __init__(self, home: Path) -> None:
        self.command = f"touch {home / 'owned'}"

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


def recipe(text: str | bytes = "", **keys: Any) -> Callable[[Path], Words]:
    """Train from the good recipe with other keys, or with more text at its end."""

    def make(home: Path) -> Words:
        good = yaml.safe_load((home / "recipe.yaml").read_text(encoding="utf-8"))
        body = yaml.safe_dump({**good, "output_dir": str(home / "out"), **keys}, allow_unicode=True).encode()
        (home / "bad.yaml").write_bytes(body + (text if isinstance(text, bytes) else text.encode()))
        return ["train", "--config", home / "bad.yaml"]

    return make


def raw_recipe(content: bytes) -> Callable[[Path], Words]:
    def make(home: Path) -> Words:
        (home / "bad.yaml").write_bytes(content)
        return ["train", "--config", home / "bad.yaml"]

    return make


def data(content: bytes, verb: str = "generate", name: str = "bad.json") -> Callable[[Path], Words]:
    """Answer, train on or convert a file of this content."""

    def make(home: Path) -> Words:
        (home / name).write_bytes(content)
        if verb == "train":
            return [
                "train",
                "--config",
                home / "recipe.yaml",
                "--output_dir",
                home / "out",
                "--train_file",
                home / name,
            ]
        if verb == "convert":
            return ["convert", home / name, "--output-dir", home / "out"]
        return answering(home, home / "base", home / "adapter", home / name)

    return make


def record(**changes: Any) -> bytes:
    return json.dumps([{**RECORD, **changes}]).encode()


def answering(home: Path, model: Path, adapter: Path, questions: Path) -> Words:
    return ["generate", "--model", model, "--adapter", adapter, "--data", questions, "--output", home / "out"]


def workbook(**parts: bytes) -> Callable[[Path], Words]:
    """Convert the sample workbook with other parts."""

    def make(home: Path) -> Words:
        with zipfile.ZipFile(SAMPLE) as package:
            content = {name: package.read(name) for name in package.namelist()}
        content |= {name.replace("__", "/"): part for name, part in parts.items()}
        with zipfile.ZipFile(home / "bad.xlsx", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as package:
            for name, part in content.items():
                package.writestr(name, part)
        return ["convert", home / "bad.xlsx", "--output-dir", home / "out"]

    return make


def spoilt(folder: str, verb: str, spoil: Callable[[Path], Any]) -> Callable[[Path], Words]:
    """Merge, answer with or train on an adapter or a base that `spoil` has changed."""

    def make(home: Path) -> Words:
        spoil(home / folder)
        if verb == "merge":
            return ["merge", "--adapter", home / "adapter", "--base-model", home / "base", "--output-dir", home / "out"]
        if verb == "train":
            return ["train", "--config", home / "recipe.yaml", "--output_dir", home / "out"]
        return answering(home, home / "base", home / "adapter", home / "t_validation.json")

    return make


def settings(file: str, **changes: Any) -> Callable[[Path], None]:
    """Change a JSON file."""

    def spoil(folder: Path) -> None:
        content = json.loads((folder / file).read_text(encoding="utf-8"))
        (folder / file).write_text(json.dumps({**content, **changes}), encoding="utf-8")

    return spoil


def text(file: str, content: bytes) -> Callable[[Path], Any]:
    return lambda folder: (folder / file).write_bytes(content)


def header(change: Callable[[dict[str, Any]], Any], length: int | None = None) -> Callable[[Path], None]:
    """Let a safetensors header lie."""

    def spoil(folder: Path) -> None:
        path = next(folder.glob("*model.safetensors"))
        content = path.read_bytes()
        size = int.from_bytes(content[:8], "little")
        head = json.loads(content[8 : 8 + size])
        change(head)
        told = json.dumps(head).encode()
        path.write_bytes((length or len(told)).to_bytes(8, "little") + told + content[8 + size :])

    return spoil


def first(head: dict[str, Any]) -> Any:
    return head[next(name for name in head if name != "__metadata__")]


def tensors(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = next(folder.glob("*model.safetensors"))
        save_file({name: change(tensor) for name, tensor in load_file(path).items()}, path, {"format": "pt"})

    return spoil


def without(part: str) -> Callable[[Path], None]:
    """Leave out a tensor; upstream would take a random one for it."""

    def spoil(folder: Path) -> None:
        path = folder / "adapter_model.safetensors"
        found = load_file(path)
        del found[next(name for name in found if part in name)]
        save_file(found, path, {"format": "pt"})

    return spoil


def with_another(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    save_file({**load_file(path), "another": torch.zeros(2)}, path, {"format": "pt"})


def pipe(verb: str) -> Callable[[Path], Words]:
    """A pipe that nobody writes to."""

    def make(home: Path) -> Words:
        words = data(b"", verb, "bad.csv" if verb == "convert" else "bad.json")(home)
        (file,) = home.glob("bad.[cj]s*")
        file.unlink()
        os.mkfifo(file)
        return words

    return make


def recipe_is_a_pipe(home: Path) -> Words:
    os.mkfifo(home / "bad.yaml")
    return ["train", "--config", home / "bad.yaml"]


def output_is_data(home: Path) -> Words:
    words = data(record())(home)
    return [*words, "--output", home / "bad.json", "--force"]


def output_is_folder(home: Path) -> Words:
    return [*data(record())(home), "--output", home / "base", "--force"]


def scores_are_output(home: Path) -> Words:
    return [*data(record())(home), "--scores", home / "out"]


def pickled(name: str, *, wrapped: bool) -> Callable[[Path], None]:
    """Put a pickle that runs a command in the place of the weights."""

    def spoil(folder: Path) -> None:
        next(folder.glob("*model.safetensors")).unlink()
        evil = Evil(folder.parent)
        if wrapped:
            torch.save({"x": evil}, folder / name)
        else:
            (folder / name).write_bytes(pickle.dumps({"x": evil}))

    return spoil


def index(shard: str) -> Callable[[Path], None]:
    """An index whose every tensor is in a file elsewhere."""

    def spoil(folder: Path) -> None:
        names = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").rename(folder.parent / "elsewhere.safetensors")
        content = {"metadata": {}, "weight_map": dict.fromkeys(names, shard)}
        (folder / "model.safetensors.index.json").write_text(json.dumps(content))

    return spoil


def bomb() -> bytes:
    return b'<?xml version="1.0"?><worksheet>' + b" " * 600_000_000 + b"</worksheet>"


ENTITIES = (
    b'<?xml version="1.0"?><!DOCTYPE w [<!ENTITY a "aaaaaaaaaa">'
    + b"".join(b'<!ENTITY %c "%s">' % (98 + i, b"&%c;" % (97 + i) * 10) for i in range(9))
    + b"]><worksheet><sheetData><row r='1'><c t='inlineStr'><is><t>&j;</t></is></c></row></sheetData></worksheet>"
)
CODE = {"auto_map": {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}, "model_type": "no_such_type"}
LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [*{chr(97 + i)}, *{chr(97 + i)}]\n" for i in range(20)
)

HOSTILE: dict[str, Callable[[Path], Words]] = {
    "recipe: alias bomb": raw_recipe(LAUGHS.encode()),
    "recipe: merge key": recipe("x: {<<: {a: 1}}\n"),
    "recipe: object tag": recipe("run_name: !!python/object/apply:os.system ['touch owned']\n"),
    "recipe: doubled key": recipe("lora_r: 5\n"),
    "recipe: learning_rate is not a number": recipe("", learning_rate=float("nan")),
    "recipe: learning_rate is infinite": recipe("", learning_rate=float("inf")),
    "recipe: hub_token": recipe("", hub_token="hf_" + "a" * 34),
    "recipe: token in a name": recipe("", run_name="hf_" + "a" * 34),
    "recipe: env": recipe("", env={"LD_PRELOAD": "/x.so"}),
    "recipe: endless rank": recipe("", lora_r=10**30),
    "recipe: endless number": recipe("max_length: " + "9" * 6000 + "\n"),
    "recipe: endless length": recipe("", max_length=10**30),
    "recipe: output_dir is a list": recipe("", output_dir=["a"]),
    "recipe: not UTF-8": recipe(b"run_name: \xff\xfe\n"),
    "recipe: nul": recipe(b"run_name: a\x00b\n"),
    "recipe: deep": raw_recipe(b"a: " + b"[" * 100_000),
    "recipe: too large": raw_recipe(b"# " + b"x" * 2_000_000),
    "recipe: empty": raw_recipe(b""),
    "recipe: target_modules never ends": recipe("", lora_target_modules="(a+)+$"),
    "recipe: a pipe": recipe_is_a_pipe,
    "recipe: no name": lambda home: ["train", "--config", ""],
    "recipe: two documents": recipe("---\na: 1\n"),
    "recipe: a tab": recipe("rank_pattern:\n\tq_proj: 8\n"),
    "recipe: UTF-16": raw_recipe("lora_r: 8\n".encode("utf-16")),
    "recipe: output_dir is blank": recipe("", output_dir=" "),
    "recipe: output_dir is a file": lambda home: recipe("", output_dir=str(home / "t_train.json"))(home),
    "recipe: output_dir is in a file": lambda home: recipe("", output_dir=str(home / "t_train.json" / "out"))(home),
    "recipe: output_dir is the base": lambda home: recipe("", output_dir=str(home / "base"))(home),
    "recipe: resumes from a base": lambda home: recipe("", resume_from_checkpoint=str(home / "base"))(home),
    "recipe: another vocabulary": recipe("", expected_vocab_size=5),
    "recipe: base is not there": recipe("", model_name_or_path="./nowhere"),
    "recipe: target_modules has a typo": recipe("", lora_target_modules=["q_proj", "v_porj"]),
    "recipe: modules_to_save has a typo": recipe("", lora_modules_to_save=["lm_haed"]),
    "recipe: rank_pattern of nothing": recipe("", rank_pattern={"w_proj": 8}),
    "recipe: a scheduler without its setting": recipe("", lr_scheduler_type="cosine_with_min_lr"),
    "recipe: another scheduler's setting": recipe("", lr_scheduler_kwargs={"nope": 1}),
    "recipe: an optimizer's setting is none": recipe("", optim_args="zzz"),
    "recipe: an optimizer that is not installed": recipe("", optim="galore_adamw", optim_target_modules=["q_proj"]),
    "recipe: an attention that is not there": recipe("", attn_implementation="flash"),
    "recipe: train_file is a folder": recipe("", train_file="/"),
    "recipe: train_file has a nul": recipe("", train_file="a\x00b"),
    "recipe: a base with a nul": recipe("", model_name_or_path="a\x00b"),
    "json: lone surrogate in an id": data(record(id="\ud800")),
    "json: lone surrogate in a passage": data(record(passage="\udfff甲"), "train"),
    "json: deep": data(b"[" * 200_000),
    "json: endless number": data(b'[{"id": ' + b"9" * 6000 + b"}]"),
    "json: not a number": data(b'[{"id": NaN}]'),
    "json: cut": data(record()[:-9]),
    "json: UTF-16": data(record().decode().encode("utf-16")),
    "json: an object": data(b"{}"),
    "json: options are a text": data(record(options="甲乙丙丁")),
    "json: answer out of range": data(record(output="9"), "train"),
    "workbook: zip bomb": lambda home: workbook(xl__worksheets__sheet1=b"", **{"xl__worksheets__sheet1.xml": bomb()})(
        home
    ),
    "workbook: entities": workbook(**{"xl__worksheets__sheet1.xml": ENTITIES}),
    "workbook: cut": data(SAMPLE.read_bytes()[:9000], "convert", "bad.xlsx"),
    "workbook: a text": data(b"not a workbook", "convert", "bad.xlsx"),
    "workbook: an old one": data(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "convert", "bad.xls"),
    "csv: nul": data((HEADER + "1,\x00,b,c,d,e,f,1\n").encode(), "convert", "bad.csv"),
    "csv: endless field": data((HEADER + '1,"' + "x" * 300_000).encode(), "convert", "bad.csv"),
    "json: a pipe": pipe("generate"),
    "workbook: a pipe": pipe("convert"),
    "json: a pipe for train": pipe("train"),
    "output: is the data": output_is_data,
    "output: is a folder": output_is_folder,
    "output: scores, too": scores_are_output,
    "adapter: of another base of the same shape": spoilt("base", "generate", tensors(lambda tensor: tensor * 1.5)),
    "adapter: lacks a tensor": spoilt("adapter", "generate", without("lora_A")),
    "adapter: has a tensor too many": spoilt("adapter", "generate", with_another),
    "adapter: endless alpha": spoilt("adapter", "merge", settings("adapter_config.json", lora_alpha=10**400)),
    "adapter: endless alpha for generate": spoilt(
        "adapter", "generate", settings("adapter_config.json", lora_alpha=10**400)
    ),
    "adapter: endless header": spoilt("adapter", "merge", header(lambda head: None, 2**62)),
    "adapter: overlapping tensors": spoilt(
        "adapter", "merge", header(lambda head: first(head).update(data_offsets=[0, 4]))
    ),
    "adapter: shape lies": spoilt("adapter", "generate", header(lambda head: first(head).update(shape=[10**12, 4]))),
    "adapter: negative shape": spoilt("adapter", "merge", header(lambda head: first(head).update(shape=[-1, 4]))),
    "adapter: not a number": spoilt("adapter", "merge", tensors(lambda tensor: tensor * float("nan"))),
    "adapter: scores of no number": spoilt("adapter", "generate", tensors(lambda tensor: tensor * float("nan"))),
    "adapter: pickle for merge": spoilt("adapter", "merge", pickled("adapter_model.bin", wrapped=True)),
    "adapter: pickle for generate": spoilt("adapter", "generate", pickled("adapter_model.bin", wrapped=True)),
    "adapter: bare pickle": spoilt("adapter", "generate", pickled("adapter_model.bin", wrapped=False)),
    "adapter: config is a list": spoilt("adapter", "merge", text("adapter_config.json", b"[]")),
    "adapter: config is no JSON": spoilt("adapter", "generate", text("adapter_config.json", b"{")),
    "adapter: endless rank": spoilt("adapter", "merge", settings("adapter_config.json", r=10**12)),
    "adapter: endless rank for generate": spoilt("adapter", "generate", settings("adapter_config.json", r=10**12)),
    "adapter: another kind": spoilt("adapter", "merge", settings("adapter_config.json", peft_type="NO_SUCH")),
    "adapter: megatron": spoilt(
        "adapter", "generate", settings("adapter_config.json", megatron_config={"a": 1}, megatron_core="this")
    ),
    "adapter: run file is a list": spoilt("adapter", "generate", text("lrc_run.json", b"[]")),
    "adapter: run file is deep": spoilt("adapter", "merge", text("lrc_run.json", b"[" * 200_000)),
    "adapter: run file of other types": spoilt("adapter", "generate", settings("lrc_run.json", template=[1], recipe=3)),
    "model: shard above": spoilt("base", "merge", index("../elsewhere.safetensors")),
    "model: shard above for generate": spoilt("base", "generate", index("../elsewhere.safetensors")),
    "model: shard above for train": spoilt("base", "train", index("../elsewhere.safetensors")),
    "model: shard is a system file": spoilt("base", "merge", index("../../../../../../etc/passwd")),
    "model: pickle for merge": spoilt("base", "merge", pickled("pytorch_model.bin", wrapped=True)),
    "model: pickle for generate": spoilt("base", "generate", pickled("pytorch_model.bin", wrapped=True)),
    "model: pickle for train": spoilt("base", "train", pickled("pytorch_model.bin", wrapped=False)),
    "model: code for train": spoilt("base", "train", settings("config.json", **CODE)),
    "model: code for generate": spoilt("base", "generate", settings("config.json", **CODE)),
    "model: code for merge": spoilt("base", "merge", settings("config.json", **CODE)),
    "model: endless vocabulary": spoilt("base", "generate", settings("config.json", vocab_size=10**13)),
    "model: config of other types": spoilt("base", "merge", settings("config.json", hidden_size="x")),
    "model: config is deep": spoilt("base", "merge", text("config.json", b"[" * 200_000)),
    "model: cut weights": spoilt("base", "generate", lambda home: os.truncate(home / "model.safetensors", 5000)),
    "model: tokenizer is no JSON": spoilt("base", "train", text("tokenizer.json", b"{")),
}


@pytest.fixture
def home(inputs: Path, adapter: Path, tmp_path: Path) -> Path:
    """Copies that may be spoilt."""
    where = tmp_path / "home"
    shutil.copytree(inputs, where)
    shutil.copytree(adapter, where / "adapter", ignore=shutil.ignore_patterns("checkpoint-*"))
    (where / "base" / "evil.py").write_text(f"open({str(where / 'owned')!r}, 'w')\n")
    words = (where / "recipe.yaml").read_text(encoding="utf-8").replace(str(inputs), str(where))
    (where / "recipe.yaml").write_text(words, encoding="utf-8")
    return where


@pytest.mark.fault("all", "hostile input: refused in one line, nothing run, nothing left")
@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE.keys())
def test_it_is_refused(make: Callable[[Path], Words], home: Path, tmp_path: Path) -> None:
    words = make(home)
    before = {path for path in home.rglob("*")}
    command = Command(words, tmp_path / "log")
    assert command.wait() == 1, command.told
    told = "\n".join(command.told)
    assert "Traceback" not in told, told
    assert "hf_aaaa" not in told
    assert len(command.told[-1]) < 600 and ": " in command.told[-1], told
    left = {path for path in home.rglob("*")} - before
    assert not left, left
