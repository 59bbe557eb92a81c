"""Tokens are made once for all runs and processes, and never used again for anything that they were not made of."""

from __future__ import annotations

import ast
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datasets
import fork_server
import pytest
import workbooks
from questions import ask
from small_models import save_tokenizer
from transformers import AutoTokenizer

import lrc
from lrc import sft
from lrc.data.alpaca import dump_records, to_record
from lrc.models.tiny import make_base
from lrc.runtime.errors import DataError, LrcError, OutputError
from lrc.tokenization import token_cache as tokencache
from lrc.tokenization.max_length import LengthPolicy
from lrc.tokenization.prompt import Prompt
from lrc.tokenization.token_dataset import Corpus, read_corpus

FORKED = multiprocessing.get_context("fork")
HEADERS = (*workbooks.LABELLED, "備註")
COUNT = 300  # more than a worker gets at a time


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of this test alone."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "cache/lrc"


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(folder)
    return folder


def write(path: Path, count: int = COUNT, **changes: Any) -> Path:
    """Two questions a passage, each third one with a longer passage."""
    questions = (
        ask(row, passage=f"第{row // 2}篇。" + "小明在公園裡。" * (1 if row % 3 else 9), **changes)
        for row in range(2, count + 2)
    )
    path.write_text("".join(dump_records(map(to_record, questions))), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def opened() -> Iterator[Callable[[Path], int]]:
    """How often a file was opened so far, by the interpreter's own account."""
    paths: list[str] | None = []

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and paths is not None and isinstance(arguments[0], str):
            paths.append(arguments[0])

    sys.addaudithook(note)
    yield lambda path: (paths or []).count(str(path))
    paths = None  # an audit hook cannot be taken away again


@dataclass(frozen=True)
class Reading:
    """All that the tokens of a file depend on."""

    path: Path
    tokenizer: Any
    template: str = "alpaca"
    answer_style: str = "digit"
    list_options: bool = True
    max_length: int | None = 540
    on_too_long: str = "shorten"

    def __call__(self, **how: Any) -> Corpus:
        prompt = Prompt(self.tokenizer, self.template, self.answer_style, self.list_options)
        how = {"stage": "tokenize", **how}
        return read_corpus(self.path, prompt, LengthPolicy(self.max_length, self.on_too_long), **how)


@pytest.fixture
def reading(tmp_path: Path, tokenizer_folder: Path, cache: Path) -> Reading:
    return Reading(write(tmp_path / "a.json"), AutoTokenizer.from_pretrained(tokenizer_folder))


def content(corpus: Corpus) -> tuple[Any, ...]:
    assert corpus.dataset is not None
    return corpus.dataset[:], list(corpus.records), corpus.shortened, corpus.skipped, corpus.count


def entries(cache: Path) -> list[Path]:
    return sorted(path for path in cache.iterdir() if path.is_dir())


def test_a_second_run_reuses_the_tokens_of_the_first(reading: Reading, cache: Path) -> None:
    first, second = reading(), reading()
    assert (first.reused, second.reused) == (False, True)
    assert content(first) == content(second)
    assert len(entries(cache)) == 1
    assert len(first.shortened) == COUNT // 3 and first.count == COUNT
    # A file of the same content under another name is the same data.
    copy = shutil.copy(reading.path, reading.path.with_name("b.json"))
    assert replace(reading, path=Path(copy))().reused


def test_findings_about_the_file_are_printed_each_time(
    reading: Reading, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = workbooks.write_xlsx(tmp_path / "a.xlsx", [[*workbooks.row(1), "x"], [*workbooks.row(2), ""]], HEADERS)
    reading = replace(reading, path=path)
    assert [reading().reused, reading().reused] == [False, True]
    assert replace(reading, path=path.rename(tmp_path / "b.xlsx"))().reused
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note:")]
    assert said == [f"note: {name}: columns not read: 備註" for name in ("a.xlsx", "a.xlsx", "b.xlsx")]


def test_tokens_and_records_are_those_of_the_prompt(reading: Reading) -> None:
    corpus = reading()
    prompt = Prompt(reading.tokenizer, "alpaca", "digit")
    assert corpus.dataset is not None and corpus.dataset.cache_files  # mapped from a file
    for row, record in zip(corpus.dataset, corpus.records, strict=True):
        sequence = prompt.sequence(record)
        assert (row["tokens"], row["prompt_length"]) == (sequence.tokens.tolist(), sequence.prompt_length)
        assert len(row["tokens"]) <= 540 and row["id"] == record.id
    passages = [record.question.source_passage for record in corpus.records if record.question]
    firsts = list(dict.fromkeys(passages))
    assert 1 < len(firsts) < len(passages)
    assert corpus.dataset["passage"][:] == [firsts.index(passage) for passage in passages]


def test_several_processes_make_the_same(reading: Reading, cache: Path) -> None:
    alone = content(reading(processes=1))
    shutil.rmtree(cache)
    together = reading(processes=2)
    assert not together.reused and content(together) == alone


@pytest.mark.parametrize(
    "change",
    [
        {"template": "chinese-alpaca-2"},
        {"answer_style": "text"},
        {"list_options": False},
        {"max_length": 500},
        {"max_length": None},
        {"on_too_long": "skip"},
    ],
    ids=str,
)
def test_another_prompt_is_tokenized_anew(reading: Reading, change: dict[str, Any]) -> None:
    if "list_options" in change:  # which digits need
        reading = replace(reading, answer_style="text")
    before = content(reading())
    other = replace(reading, **change)
    made = other()
    assert not made.reused and other().reused
    assert content(made) != before
    assert reading().reused


def test_changed_data_is_tokenized_anew(reading: Reading) -> None:
    before = content(reading())
    text = reading.path.read_text(encoding="utf-8")
    reading.path.write_text(text.replace("小明在公園裡", "小華在公園裡"), encoding="utf-8")
    state = reading.path.stat()
    os.utime(reading.path, ns=(state.st_atime_ns, state.st_mtime_ns - 10**12))
    assert not reading().reused and content(reading()) != before


@pytest.mark.parametrize("what", ["token", "template"])
def test_a_changed_tokenizer_tokenizes_anew(reading: Reading, tokenizer_folder: Path, what: str) -> None:
    reading()
    other = AutoTokenizer.from_pretrained(tokenizer_folder)
    assert replace(reading, tokenizer=other)().reused
    if what == "token":
        other.add_tokens(["小明"])
    else:
        other.chat_template = "{{ messages[0]['content'] }}"
    assert not replace(reading, tokenizer=other)().reused


def test_another_version_of_lrc_tokenizes_anew(reading: Reading, monkeypatch: pytest.MonkeyPatch) -> None:
    reading()
    monkeypatch.setattr(lrc, "__version__", "999")
    assert not reading().reused


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of lrc's source, which counts as the one that is installed."""
    copy = shutil.copytree(Path(lrc.__file__).parent, tmp_path / "lrc", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(lrc, "__file__", str(copy / "__init__.py"))
    return copy


def edit(path: Path) -> None:
    assert path.is_file()
    with path.open("a") as file:
        file.write("\n# changed\n")


@pytest.mark.parametrize(
    "module",
    ["tokenization/prompt.py", "tokenization/chat_template.py", "data/alpaca.py", "data/tables/cleaning.py"]
    + ["packing/tree.py", "config/run_record.py"],
)
def test_source_that_decides_tokens_tokenizes_anew(reading: Reading, source: Path, module: str) -> None:
    before = tokencache.entry_name({})
    edit(source / module)
    assert tokencache.entry_name({}) != before
    if module == "tokenization/prompt.py":
        assert not reading().reused


@pytest.mark.parametrize("module", ["reporting/page.py", "cli.py", "training/trainer.py", "packing/attention.py"])
def test_a_change_to_other_source_keeps_the_tokens(source: Path, module: str) -> None:
    before = tokencache.entry_name({})
    edit(source / module)
    assert tokencache.entry_name({}) == before


def test_every_module_that_tokenizing_imports_is_listed() -> None:
    """What is imported, from module to module, by what tokenizes a file; `runtime` has no part in what it gives."""
    root = Path(lrc.__file__).parent

    def file_of(name: str) -> Path | None:
        path = root.joinpath(*name.split(".")[1:])
        return path.with_suffix(".py") if path.with_suffix(".py").is_file() else None

    found, waiting = set(), [root / "tokenization/token_dataset.py"]
    while waiting:
        path = waiting.pop()
        found.add(path)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lrc."):
                names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
                waiting += {file for name in names if (file := file_of(name))} - found
    listed = [root / name for name in tokencache.DECIDE_TOKENS]
    others = {path for path in found if not any(path.is_relative_to(one) for one in listed)}
    assert len(found) > 30
    assert {path.parent for path in others} == {root / "runtime"}


@pytest.mark.parametrize("damage", ["cut", "flipped", "report", "lost", "seal", "emptied"])
def test_a_damaged_entry_is_made_again(reading: Reading, cache: Path, damage: str) -> None:
    before = content(reading())
    (entry,) = entries(cache)
    tokens, report, seal = entry / "tokens.arrow", entry / "length_report.json", entry / "seal.json"
    data = tokens.read_bytes()
    if damage == "cut":
        tokens.write_bytes(data[: len(data) // 2])
    elif damage == "flipped":
        middle = len(data) // 2
        tokens.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    elif damage == "report":
        report.write_text('{"shortened": [], "skipped": []}')
    elif damage == "lost":
        tokens.unlink()
    else:
        seal.write_text("{}" if damage == "emptied" else "{")
    again = reading()
    assert not again.reused and content(again) == before
    assert reading().reused


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"max_length": 500, "on_too_long": "refuse"}, "record 2: longer than max_length 500"),
        ({"max_length": 20, "on_too_long": "skip"}, "no record fits max_length 20"),
    ],
)
def test_what_is_refused_leaves_nothing(reading: Reading, cache: Path, change: dict[str, Any], fault: str) -> None:
    for _ in range(2):
        with pytest.raises(DataError, match=fault):
            replace(reading, **change)()
        assert not entries(cache)


def test_mistakes_in_the_data_are_found_before_tokenizing(reading: Reading, capsys: pytest.CaptureFixture[str]) -> None:
    text = reading.path.read_text(encoding="utf-8")
    reading.path.write_text(text.replace('"row": 300', '"row": "x"').replace('"row": 301', '"row": "y"'), "utf-8")
    with pytest.raises(DataError) as caught:
        reading()
    assert [line.split(":")[0] for line in caught.value.lines()] == ["a.json, record 299", "a.json, record 300"]
    assert "tokenize" not in capsys.readouterr().err


def test_a_file_is_hashed_once_and_parsed_once(reading: Reading, opened: Callable[[Path], int]) -> None:
    """With a manifest, which lists what the file's checksum has to be."""
    listed = {"files": {"a.json": {"sha256": hashlib.sha256(reading.path.read_bytes()).hexdigest()}}}
    reading.path.with_name("a_manifest.json").write_text(json.dumps(listed))
    before = opened(reading.path)
    reading()
    assert opened(reading.path) == before + 2
    reading()
    assert opened(reading.path) == before + 3  # hashed, to know that nothing has changed


def test_an_incomplete_file_is_refused_also_when_it_was_tokenized(reading: Reading) -> None:
    reading()
    reading.path.with_name("a_manifest.json").write_text('{"files": {"a.json": {"sha256": "0"}}}')
    with pytest.raises(DataError, match="not the file that a_manifest"):
        reading()


def test_a_cache_that_cannot_be_written_is_reported_in_a_line(reading: Reading, cache: Path) -> None:
    cache.parent.write_text("a file where the folder should be")
    with pytest.raises(OutputError, match="HF_DATASETS_CACHE") as caught:
        reading()
    assert len(caught.value.lines()) == 1


def started(work: Callable[[], Any]) -> Any:
    process = FORKED.Process(target=work)
    process.start()
    return process


def until(moment: Callable[[], Any]) -> None:
    end = time.monotonic() + 60
    while not moment():
        assert time.monotonic() < end
        time.sleep(0.001)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_killed_run_leaves_nothing_that_is_used(reading: Reading, cache: Path, processes: int) -> None:
    path = write(reading.path, 3000)
    process = started(lambda: reading(processes=processes))
    until(lambda: [file for file in cache.glob(".*.part/tokens.arrow") if file.stat().st_size > 50_000])
    workers = children(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not entries_that_count(cache) and list(cache.glob(".*.part"))
    assert len(workers) == (0 if processes == 1 else 2)
    until(lambda: not [worker for worker in workers if alive(worker)])
    write(path)
    assert not reading().reused  # another file's tokens: the leftover goes all the same
    assert not list(cache.glob(".*.part")) and len(entries_that_count(cache)) == 1


def entries_that_count(cache: Path) -> list[Path]:
    return [path for path in entries(cache) if not path.name.startswith(".")]


def children(process: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def in_processes(works: list[Callable[[], Any]]) -> list[Any]:
    """What each of the works returns, or the lines of what it refuses, all at the same time."""
    queue = FORKED.Queue()

    def run(place: int) -> None:
        try:
            queue.put((place, works[place]()))
        except LrcError as error:
            queue.put((place, error.lines()))

    processes = [started(lambda place=place: run(place)) for place in range(len(works))]
    found = dict(queue.get(timeout=60) for _ in works)
    for process in processes:
        process.join()
    return [found[place] for place in range(len(works))]


def test_two_runs_at_once_make_it_once(reading: Reading, cache: Path) -> None:
    def run() -> tuple[bool, Any]:
        corpus = reading()
        return corpus.reused, content(corpus)

    (one, what), (other, the_same) = in_processes([run, run])
    assert sorted((one, other)) == [False, True] and what == the_same
    assert len(entries(cache)) == 1 and not list(cache.glob(".*.part"))


def test_the_other_processes_wait_for_the_first(reading: Reading) -> None:
    def first() -> bool:
        time.sleep(1.0)
        return reading().reused

    assert in_processes([lambda: reading(first=False).reused, first]) == [True, False]


def test_without_a_first_process_another_does_the_work(reading: Reading, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokencache, "GRACE", 0.3)
    assert not reading(first=False).reused


def test_what_the_first_process_refuses_the_others_refuse(reading: Reading, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokencache, "GRACE", 0.3)
    refusing = replace(reading, max_length=500, on_too_long="refuse")
    one, other = in_processes([refusing, lambda: refusing(first=False)])
    assert one == other and one[0].startswith("record 2: longer")


@pytest.fixture
def recipe(tmp_path: Path, cache: Path) -> Iterator[list[str]]:
    """The words of a run of two steps."""
    data = write(tmp_path / "t_train.json", 12)
    make_base(tmp_path / "base", ["小明在公園裡放風箏"])
    keys = {
        "model_name_or_path": tmp_path / "base",
        "train_file": data,
        "validation_file": data,
        "max_steps": 2,
        "per_device_train_batch_size": 4,
        "option_orders": 2,
        "lora_target_modules": ".*q_proj",
        "report_to": "none",
        "save_strategy": "no",
    }
    yield [str(word) for key, value in keys.items() for word in (f"--{key}", value)]


def test_a_run_on_cached_tokens_gives_the_same_adapter(
    recipe: list[str], tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapters = []
    for name in ("new", "cached"):
        capsys.readouterr()
        sft.main([*recipe, "--output_dir", str(tmp_path / name)])
        told = capsys.readouterr().err
        # Training and validation are the same file here.
        assert told.count("12 questions, tokenized by an earlier run") == (2 if name == "cached" else 1)
        adapters.append((tmp_path / name / "adapter_model.safetensors").read_bytes())
    assert adapters[0] == adapters[1] and len(entries(cache)) == 1


def test_two_processes_of_a_run_read_one_entry(recipe: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [
            str(fork_server.python()),
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc_per_node",
            "2",
            "-m",
            "lrc.sft",
        ]
        + [*recipe, "--output_dir", str(tmp_path / "out"), "--use_cpu", "true"],
        env={**os.environ, "HF_DATASETS_CACHE": str(tmp_path / "shared")},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    # Of training and validation, which are the same file here, the first process tells that it read the second again.
    assert done.stderr.count("12 questions, tokenized by an earlier run") == 1
    assert len(entries(tmp_path / "shared/lrc")) == 1
    assert (tmp_path / "out/adapter_model.safetensors").is_file()


def test_findings_about_records_are_printed_again(reading: Reading, capsys: pytest.CaptureFixture[str]) -> None:
    items = [
        {**item, "output": "選項1", "level": "易"} for item in json.loads(reading.path.read_text(encoding="utf-8"))
    ]
    reading.path.write_text(json.dumps(items), encoding="utf-8")
    first, again = reading(), reading()
    assert again.reused and {record.output for record in first.records} == {"1"}
    assert [line for line in capsys.readouterr().err.splitlines() if "a.json" in line and "/" not in line] == 2 * [
        f'repaired: a.json: output was read as a number in {COUNT} records, first in record 1: "選項1" as 1',
        f"warning: a.json: fields not read: level (in {COUNT} of {COUNT} records, first in record 1)",
    ]
