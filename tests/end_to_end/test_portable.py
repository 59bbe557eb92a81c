"""Where things are as on Windows, the whole way goes through all the same."""

from __future__ import annotations

import ast
import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from report_runs import make_run
from small_runs import lrc

from lrc.commands import run as way
from lrc.config.run_record import METRICS_FILE
from lrc.runtime import errors, outputs, packages, system
from lrc.runtime import locks as claim
from lrc.runtime.errors import MachineError, OutputError
from lrc.runtime.locks import left_behind, locked

ROOT = Path(__file__).parents[2]
# In one process, which lacks from its first moment on what Windows lacks; each verb through its own door. `lrc train`
# starts a second one like it. The steps of `lrc run` are taken in the same process.
PROGRAM = """
import json
from pathlib import Path
from lrc.models import tiny

def run(*words):
    try:
        main(list(words))
    except SystemExit as ended:
        return ended.code or 0
    return 0

def done(*words):
    assert run(*words) == 0, words

def step(words):
    done(*words) if words[0] != "python" else tiny.main(words[3:])
    return 0

from lrc.cli import main
from lrc.commands import run as way
way.call = step
done("init")
recipe = Path("recipes/tiny/lora.yaml")  # as Notepad saves it
recipe.write_bytes(b"\\xef\\xbb\\xbf" + recipe.read_bytes().replace(b"\\n", b"\\r\\n"))
done("check", "recipes/tiny/lora.yaml", SAMPLE)
done("check", SAMPLE, "--annotate", "checked.xlsx")
done("run", SAMPLE, TEST, "--recipe", "recipes/tiny/lora.yaml", "--output-dir", "out", "--max_steps", "2",
    "--save_steps", "1", "--save_strategy", "steps", "--eval_strategy", "no", "--load_best_model_at_end", "false")
validation = "out/data/sample_validation.json"
asked = ["--model", "out/base", "--adapter", "out/adapter"]
done("evaluate", *asked, "--data", validation, "--scores", "a.jsonl")
done("evaluate", *asked, "--data", validation, "--scores", "b.jsonl", "--votes", "2")
for scores in ("a.jsonl", "b.jsonl"):  # as a spreadsheet or an editor saves them
    text = Path(scores).read_text(encoding="utf-8")
    Path(scores).write_text(text, encoding="utf-8-sig", newline="\\r\\n")
done("vote", "a.jsonl", "b.jsonl", "--data", validation, "--output", "vote.csv")
done("compare", "a.jsonl", "b.jsonl", "--data", validation, "--output", "compare.html")
done("evaluate", "--predictions", "vote.csv", "--data", validation)
done("generate", *asked, "--data", SAMPLE, "--output", "answered.xlsx")
done("merge", "--adapter", "out/adapter", "--output-dir", "merged")
done("merge", "--adapter", "out/adapter", "--output-dir", "merged", "--force", "--no-verify")
done("generate", "--model", "merged", "--data", TEST, "--output", "merged.csv")
done("report", "out/adapter", "--output", "report.html")
done("preview", "tiny/lora", "--model_name_or_path", "out/base", "--train_file",
    "out/data/sample_train.json", "--validation_file", validation)
done("publish", "--adapter", "out/adapter", "--repo-id", "you/name", "--dry-run")
print("refused", flush=True)
again = ["generate", "--model", "merged", "--data", TEST, "--output", "merged.csv", "--votes", "2", "--force"]
with open("merged.csv") as held:
    assert run(*again) == 1
assert run(*again) == 0
long = "/".join(["x" * 100] * 2)
assert run("convert", SAMPLE, "--output-dir", long) == 1
assert run("check", long + "/" + "y" * 60 + ".xlsx") == 1
import like_windows
assert not like_windows.MODULES & set(sys.modules)
from lrc.runtime.memory import available_memory, peak_memory
assert available_memory() > 0 and peak_memory() > 0
"""


def test_the_whole_way_where_things_are_as_on_windows(tmp_path: Path) -> None:
    support = ROOT / "tests" / "support"
    (tmp_path / "start").mkdir()
    (tmp_path / "start" / "sitecustomize.py").write_text("import like_windows\n", encoding="utf-8")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tmp_path / "start"), str(support)]),
        "PYTHONIOENCODING": "cp950",
        "PYTHONUTF8": "0",
    }
    sample, test = (str(ROOT / "examples" / name) for name in ("sample.xlsx", "sample_test.xlsx"))
    program = f"import sys\nSAMPLE, TEST = {sample!r}, {test!r}\n{PROGRAM}"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, env=environment)
    told = (done.stdout + done.stderr).decode("cp950", errors="replace")
    assert done.returncode == 0, told[-3000:]
    answers = (tmp_path / "out" / "answer.csv").read_text(encoding="utf-8").splitlines()
    assert len(answers) == 13 and all(re.fullmatch("[^,]+,[1-4]", line) for line in answers[1:])
    assert (tmp_path / "merged" / "config.json").is_file() and (tmp_path / "out/adapter/checkpoint-2").is_dir()
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".part")]
    refused = [line for line in told.splitlines() if "open in another program" in line or "Windows allows 259" in line]
    assert [line.partition(":")[0].rpartition("/")[2] for line in refused], refused


def test_what_takes_things_away_takes_them_away(tmp_path: Path) -> None:
    code = """
import os, sys
sys.path.insert(0, TESTS)
import like_windows
refused = []
def attempt(what, *args):
    try:
        what(*args)
    except (OSError, ImportError, AttributeError, ValueError) as error:
        refused.append(type(error).__name__)
held = open("held", "w")
attempt(os.replace, "held", "other")
attempt(os.unlink, "held")
attempt(os.open, ".", os.O_RDONLY)
attempt(open, "a:b", "w")
attempt(os.symlink, "held", "link")
attempt(__import__, "fcntl")
held.close()
os.replace("held", "other")
with open("text", "w") as file:
    file.write("\\u7532\\n")
assert open("text", "rb").read() == "\\u7532\\r\\n".encode("cp950")
print(*refused)
"""
    program = f"TESTS = {str(ROOT / 'tests/support')!r}\n{code}"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    errors = ["PermissionError"] * 3 + ["OSError", "PermissionError", "ModuleNotFoundError"]
    assert done.stdout.split() == errors


def test_without_locks_a_part_belongs_to_whom_its_name_tells_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claim, "LOCKS", False)
    monkeypatch.setattr(os, "open", lambda *_: pytest.fail("opens a folder"))
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        part = tmp_path / f".a.{other.pid}-0123abcd.part"
        part.mkdir()
        assert left_behind(tmp_path, "a") == []
        with pytest.raises(OutputError, match=f"process {other.pid} is writing it"), locked(tmp_path / "a"):
            pass
        other.communicate(b"\n")
    assert left_behind(tmp_path, "a") == [part]
    with locked(tmp_path / "a", folder=True):
        assert left_behind(tmp_path, "a") == [part]


def test_a_part_is_not_that_of_a_later_process_with_its_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim, "LOCKS", False)
    part = tmp_path / f".a.{os.getppid()}-0123abcd.part"
    part.touch()
    assert left_behind(tmp_path) == []
    os.utime(part, (1, 1))  # written long before that process began
    assert left_behind(tmp_path) == [part]


@pytest.mark.parametrize("encoding", ["cp950", "ascii", "cp1252"])
def test_a_console_that_knows_not_all_characters(encoding: str, tmp_path: Path) -> None:
    from openpyxl import Workbook

    book = Workbook()
    book.active.append(["編號", "文章", "問題", "選項1", "選項2", "選項3", "選項4", "正確答案"])
    book.active.append([1, "简体🙂ß", "?", "a", "b", "c", "d", 9])
    book.save(tmp_path / "简🙂.xlsx")
    done = subprocess.run(
        [sys.executable, "-m", "lrc", "check", "简🙂.xlsx"],
        cwd=tmp_path,
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"},
    )
    told = done.stdout.decode(encoding) + done.stderr.decode(encoding)
    assert done.returncode == 1 and "Traceback" not in told and "9" in told


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [("cp950", "[[甲]]\\n_→ \\u7b80"), ("ascii", "[[\\u7532]]\\n_-> \\u7b80"), ("utf-8", "⟦甲⟧⏎␣→ 简")],
)
def test_signs_that_a_console_lacks_are_letters(encoding: str, shown: str) -> None:
    told = ascii("⟦甲⟧⏎␣→ 简")
    code = f"from lrc.runtime.progress import escape_unencodable\nescape_unencodable()\nprint({told})"
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=True)
    assert done.stdout.decode(encoding).strip() == shown


# Verbs, with the file that another program has open among what they read.
READ = {
    "check": ("book.xlsx", ["check", "book.xlsx"]),
    "convert": ("book.xlsx", ["convert", "book.xlsx", "--output-dir", "data"]),
    "run": ("book.xlsx", ["run", "book.xlsx", "book.csv", "--output-dir", "out", "--recipe", "tiny/lora"]),
    "evaluate": ("a.csv", ["evaluate", "--predictions", "a.csv", "--data", "book.csv"]),
    "preview": ("mine.yaml", ["preview", "mine.yaml"]),
}


@pytest.mark.parametrize("verb", READ)
def test_an_input_that_another_program_has_open_is_a_line(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    held, words = READ[verb]
    monkeypatch.chdir(tmp_path)
    book = "ID,文章,問題,選項1,選項2,選項3,選項4,正確答案\n1,甲,乙,丙,丁,戊,己,1\n"
    for name in ("book.xlsx", "book.csv", "a.csv", "mine.yaml"):
        (tmp_path / name).write_text(book, encoding="utf-8")
    real = io.open

    def refuse(file: Any, *rest: Any, **more: Any) -> Any:
        if str(file).endswith(held):
            raise PermissionError(13, "Permission denied", str(file))
        return real(file, *rest, **more)

    monkeypatch.setattr(errors, "WINDOWS", True)
    monkeypatch.setattr(io, "open", refuse)
    monkeypatch.setattr("builtins.open", refuse)
    monkeypatch.setattr(way, "call", lambda words: lrc(*words))
    assert lrc(*words) == 1
    told = capfd.readouterr()
    (line,) = (line for line in (told.out + told.err).splitlines() if held in line and "denied" in line)
    assert "(is it open in another program? close it there)" in line and "Traceback" not in told.err


def test_an_output_that_another_program_has_open_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*paths: object) -> None:
        raise PermissionError(13, "The process cannot access the file", *map(str, paths))

    monkeypatch.setattr(errors, "WINDOWS", True)
    (tmp_path / "answer.csv").write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError) as refused, outputs.new_file(tmp_path / "answer.csv", force=True) as file:
        file.write_text("new", encoding="utf-8")
        monkeypatch.setattr(os, "replace", refuse)
    monkeypatch.undo()
    (line,) = refused.value.lines()
    assert line.startswith(f"{tmp_path / 'answer.csv'}: ") and "close it there" in line
    assert [path.read_text("utf-8") for path in tmp_path.iterdir()] == ["mine"]


def test_two_names_of_one_file_are_one_where_case_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file system that ignores case finds a file by both names, as this one does by those of a hard link."""
    monkeypatch.chdir(tmp_path)
    for name, other in {"book.xlsx": "Book.XLSX", "été.csv": "ÉTÉ.csv"}.items():
        Path(name).write_text("mine", encoding="utf-8")
        os.link(name, other)
        assert outputs.is_same(Path(name), Path(other)) and outputs.is_in(Path(other), Path())
        with pytest.raises(OutputError, match="is named twice"):
            outputs.refuse_file(Path(other), Path(name), force=True)
    assert outputs.is_same(Path("neu/甲.csv"), Path("NEU/甲.CSV"))  # neither is there yet
    assert outputs.is_same(Path("caf\u00e9.csv"), Path("cafe\u0301.csv"))
    Path("other.xlsx").write_text("mine", encoding="utf-8")
    assert not outputs.is_same(Path("other.xlsx"), Path("OTHER.xlsx"))  # only one of them is there: case counts
    run = make_run(tmp_path / "run")
    before = (run / METRICS_FILE).read_bytes()
    os.link(run / METRICS_FILE, run / METRICS_FILE.upper())
    assert lrc("report", run, "--output", run / METRICS_FILE.upper(), "--force") == 1
    assert "is named twice" in capsys.readouterr().err and (run / METRICS_FILE).read_bytes() == before


# What cmd.exe or PowerShell would take apart is in double quotes, which both know.
PASTED = {
    ("lrc", "check", r"my data\a.xlsx", "b.xlsx"): r'lrc check "my data\a.xlsx" b.xlsx',
    ("lrc", "check", r"C:\資料\甲.xlsx", "--max_steps", "8"): r"lrc check C:\資料\甲.xlsx --max_steps 8",
    ("pip", "install", "torch<3,>=2.9"): 'pip install "torch<3,>=2.9"',
    ("pip", "install", "lora[app]"): 'pip install "lora[app]"',
    ("lrc", "check", "R&D\\", "a;b(1).xlsx"): r'lrc check "R&D\\" "a;b(1).xlsx"',
}


@pytest.mark.parametrize("words", PASTED)
def test_a_command_that_is_shown_can_be_pasted(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    assert shlex.split(system.command_line(words)) == list(words)
    monkeypatch.setattr(system, "WINDOWS", True)
    assert system.command_line(words) == PASTED[words]


def test_a_package_that_is_missing_has_a_command_for_this_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "WINDOWS", True)
    monkeypatch.setattr(packages, "installed_version", lambda name: None)
    with pytest.raises(MachineError) as refused:
        packages.check_installed()
    told = [*refused.value.lines(), packages.install_extra("app")]
    assert 'pip install "torch<3,>=2.9"' in "\n".join(told) and not [line for line in told if "'" in line]


def without_encoding(source: str) -> list[int]:
    """The lines that read or write text in whatever encoding the system has."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or any(word.arg == "encoding" for word in node.keywords):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        given = [one.value if isinstance(one, ast.Constant) else None for one in node.args]
        builtin = isinstance(node.func, ast.Name)
        mode = next(iter(given[1:] if builtin else given), "r" if builtin else None)
        text = isinstance(mode, str) and re.fullmatch("[rwaxt+]+", mode) is not None
        if name == "write_text" or name == "read_text" and not node.args or name == "open" and text:
            found.append(node.lineno)
    return found


def test_text_files_have_an_encoding_of_their_own() -> None:
    files = [path for part in ("src", "examples", "docs", "setup.py") for path in sorted(ROOT.glob(f"{part}/**/*.py"))]
    assert len(files) > 150
    assert not {str(path): lines for path in files if (lines := without_encoding(path.read_text("utf-8")))}
    wrong = 'open("a")\nPath("a").open("w")\np.read_text()\np.write_text("b")\nopen("a", "r+")\n'
    right = 'open("a", "rb")\np.open("wb")\np.read_text("utf-8")\np.write_text("b", encoding="utf-8")\n'
    assert without_encoding(wrong) == [1, 2, 3, 4, 5] and without_encoding(right) == []
