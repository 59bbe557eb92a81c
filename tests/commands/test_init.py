"""`lrc init` writes editable copies of what lrc ships, or nothing at all."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from lrc.commands.init import init
from lrc.config.accelerate_config import find_accelerate_config
from lrc.config.recipe import find_recipe, load_recipe
from lrc.runtime import system
from lrc.runtime.errors import OutputError

ROOT = Path(__file__).parents[2]
PATTERNS = (
    "recipes/*/*.yaml",
    "accelerate_configs/*.yaml",
    "examples/*.xlsx",
    "examples/sweep.yaml",
    "constraints.txt",
)
SCHEMA = Path("recipe.schema.json")
SHIPPED = sorted([SCHEMA, *(path.relative_to(ROOT) for pattern in PATTERNS for path in ROOT.glob(pattern))])


def shipped(name: Path) -> bytes:
    """What ships under a name; a recipe's copy names the schema in a line before."""
    head = b"# yaml-language-server: $schema=../../recipe.schema.json\n" if name.parts[0] == "recipes" else b""
    return head + (ROOT / name).read_bytes()


def written(folder: Path) -> list[Path]:
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


def test_the_copies_are_what_ships(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    init(tmp_path / "mine")
    assert written(tmp_path / "mine") == SHIPPED
    assert all((tmp_path / "mine" / name).read_bytes() == shipped(name) for name in SHIPPED if name != SCHEMA)
    told = capsys.readouterr().out.splitlines()
    assert sorted(told[:-1]) == sorted(f"wrote {tmp_path / 'mine' / name}" for name in SHIPPED)
    assert told[-1].startswith("next: ")


def test_the_copies_are_editable_and_what_lrc_finds_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    init(tmp_path)
    monkeypatch.chdir(tmp_path)
    recipe = Path("recipes/tiny/lora.yaml")
    recipe.write_text(recipe.read_text(encoding="utf-8").replace("lora_r: 16", "lora_r: 5"), encoding="utf-8")
    assert load_recipe(find_recipe(str(recipe))).given["lora_r"] == 5
    config = find_accelerate_config("accelerate_configs/cpu.yaml")
    assert config.samefile(tmp_path / "accelerate_configs/cpu.yaml")


def test_on_windows_the_next_command_needs_no_shell_that_joins_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(system, "WINDOWS", True)
    monkeypatch.chdir(tmp_path)
    init(Path("my runs"))
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.endswith('then, in "my runs": lrc train recipes/qwen3-8b/qlora.yaml') and "&" not in line


def test_the_next_command_names_a_recipe_that_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    init(tmp_path / "my runs")
    line = capsys.readouterr().out.splitlines()[-1]
    words = shlex.split(line.partition("then: ")[2])
    assert words[:3] == ["cd", str(tmp_path / "my runs"), "&&"] and words[3:5] == ["lrc", "train"]
    assert (tmp_path / "my runs" / words[5]).is_file()


def test_in_a_clone_everything_is_there_but_the_schema(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Who installed lrc from a clone calls `lrc init` there, as the README says."""
    for name in SHIPPED:
        if name != SCHEMA:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    init(tmp_path)
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("wrote")] == [
        f"wrote {tmp_path / SCHEMA}"
    ]
    assert all((tmp_path / name).read_bytes() == (ROOT / name).read_bytes() for name in SHIPPED if name != SCHEMA)


def test_existing_files_are_a_finding_each_and_nothing_is_written(tmp_path: Path) -> None:
    kept = [tmp_path / SHIPPED[0], tmp_path / SHIPPED[-1]]
    for path in kept:
        path.parent.mkdir(parents=True)
        path.write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError) as refused:
        init(tmp_path)
    assert sorted(line.partition(": ")[0] for line in refused.value.lines()) == sorted(map(str, kept))
    assert all("--force" in line for line in refused.value.lines())
    assert written(tmp_path) == sorted(path.relative_to(tmp_path) for path in kept)
    assert kept[0].read_text(encoding="utf-8") == "mine"
    init(tmp_path, force=True)
    assert written(tmp_path) == SHIPPED and kept[0].read_bytes() == shipped(SHIPPED[0])


def test_a_file_in_the_place_of_a_folder_is_a_line_and_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "recipes").write_text("mine", encoding="utf-8")
    done = subprocess.run([sys.executable, "-m", "lrc", "init", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(str(tmp_path / "recipes"))
    assert written(tmp_path) == [Path("recipes")]


def test_the_default_is_the_folder_where_it_runs(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "lrc", "init"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert written(tmp_path) == SHIPPED
    assert "cd " not in done.stdout
