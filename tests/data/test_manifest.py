"""A set of files appears whole, and what a killed writer left is told from everything else."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lrc.data.manifest import refuse_incomplete, refuse_set, source_of, write_set
from lrc.runtime.errors import DataError, OutputError
from lrc.runtime.outputs import checksum, new_file

NAMES = ["a_train.json", "a_validation.json"]
TEXTS = {"a_train.json": ["[1]", "\n"], "a_validation.json": ["[2]\n"]}


def kill_between_the_renames(folder: Path, after: int, *, force: bool = False) -> None:
    """Run the writer in a process that is killed after so many of its files have their own names."""
    code = f"""
import os, signal
from pathlib import Path
from lrc.data import manifest
replace, done = os.replace, 0
def replace_or_die(*names):
    global done
    if done == {after}:
        os.kill(os.getpid(), signal.SIGKILL)
    done += 1
    replace(*names)
os.replace = replace_or_die
manifest.write_set(Path({str(folder)!r}), "a", {TEXTS!r}, {{}}, force={force})
"""
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": ":".join(sys.path)})
    assert done.returncode == -signal.SIGKILL


def test_the_manifest_lists_every_file(tmp_path: Path) -> None:
    write_set(tmp_path, "a", TEXTS, {"seed": 42, "名": "文"})
    document = json.loads((tmp_path / "a_manifest.json").read_text(encoding="utf-8"))
    assert document["seed"] == 42 and document["名"] == "文"
    for name in NAMES:
        data = (tmp_path / name).read_bytes()
        assert data == "".join(TEXTS[name]).encode()
        assert document["files"][name] == {"sha256": hashlib.sha256(data).hexdigest()}
        assert checksum(tmp_path / name) == document["files"][name]["sha256"]
        refuse_incomplete(tmp_path / name)
    assert len(list(tmp_path.iterdir())) == 3


def test_an_error_while_writing_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> Iterator[str]:
        yield "["
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        write_set(tmp_path, "a", TEXTS | {"a_validation.json": broken()}, {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", [*NAMES, "a_manifest.json"])
def test_an_existing_file_is_kept_without_force(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(OutputError, match=name):
        write_set(tmp_path, "a", TEXTS, {})
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]
    write_set(tmp_path, "a", TEXTS, {}, force=True)
    refuse_incomplete(tmp_path / NAMES[0])


def test_a_link_is_replaced_and_never_written_through(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("mine")
    (tmp_path / NAMES[0]).symlink_to(target)
    with pytest.raises(OutputError):
        write_set(tmp_path, "a", TEXTS, {})
    write_set(tmp_path, "a", TEXTS, {}, force=True)
    assert target.read_text() == "mine" and not (tmp_path / NAMES[0]).is_symlink()


@pytest.mark.parametrize("after", [0, 1, 2])
def test_what_a_killed_writer_left_is_refused_and_replaced(tmp_path: Path, after: int) -> None:
    kill_between_the_renames(tmp_path, after)
    left = [name for name in NAMES if (tmp_path / name).exists()]
    assert len(left) == after
    for name in left:
        with pytest.raises(DataError, match=f"{name}: left behind by a convert that was killed; run"):
            refuse_incomplete(tmp_path / name)
    write_set(tmp_path, "a", TEXTS, {})
    for name in NAMES:
        refuse_incomplete(tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*NAMES, "a_manifest.json"])


def test_what_a_killed_writer_left_is_removed_with_the_next_set(tmp_path: Path) -> None:
    kill_between_the_renames(tmp_path, 2)
    assert write_set(tmp_path, "a", {"a.json": ["[]"]}, {}) == NAMES
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a_manifest.json"]


def test_a_set_half_replaced_is_refused(tmp_path: Path) -> None:
    old = {name: ["old"] for name in NAMES}
    write_set(tmp_path, "a", old, {})
    kill_between_the_renames(tmp_path, 1, force=True)
    states = []
    for name in NAMES:
        try:
            refuse_incomplete(tmp_path / name)
            states.append((tmp_path / name).read_text())
        except DataError:
            states.append("refused")
    assert sorted(states) == ["old", "refused"]


def test_a_file_changed_since_is_refused_and_kept(tmp_path: Path) -> None:
    write_set(tmp_path, "a", TEXTS, {})
    (tmp_path / NAMES[0]).write_text("changed")
    with pytest.raises(DataError, match=r"a_train\.json: not the file that a_manifest\.json lists; run .* or delete"):
        refuse_incomplete(tmp_path / NAMES[0])
    with pytest.raises(OutputError):
        refuse_set(tmp_path, NAMES, force=False)
    (tmp_path / "a_manifest.json").unlink()
    refuse_incomplete(tmp_path / NAMES[0])


def test_a_file_without_a_manifest_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text("[]")
    write_set(tmp_path, "a", TEXTS, {})
    for name, text in {
        "b_manifest.json": "no json",
        "c_manifest.json": "[1]",
        "d_manifest.json": '{"files": 1}',
    }.items():
        (tmp_path / name).write_text(text)
    refuse_incomplete(path)


def test_a_file_that_a_killed_writer_was_to_replace_is_kept(tmp_path: Path) -> None:
    (tmp_path / NAMES[0]).write_text("mine")
    kill_between_the_renames(tmp_path, 0, force=True)
    refuse_incomplete(tmp_path / NAMES[0])
    with pytest.raises(OutputError):
        write_set(tmp_path, "a", TEXTS, {})
    assert (tmp_path / NAMES[0]).read_text() == "mine"
    # Nor is a whole set given up because a killed writer has listed the same bytes again.
    write_set(tmp_path, "a", TEXTS, {}, force=True)
    kill_between_the_renames(tmp_path, 0, force=True)
    with pytest.raises(OutputError):
        refuse_set(tmp_path, NAMES, force=False)


def test_the_source_of_a_file_is_known_while_its_checksum_matches(tmp_path: Path) -> None:
    source = {"name": "AI.xlsx", "sha256": "ab" * 32, "sheet": "一"}
    write_set(tmp_path, "a", TEXTS, {"source": source})
    write_set(tmp_path, "b", {"b_train.json": ["[]"]}, {})  # says nothing of a source
    assert source_of(tmp_path / "a_train.json") == {"name": "AI.xlsx", "sha256": "ab" * 32}
    assert source_of(tmp_path / "b_train.json") is None
    (tmp_path / "a_train.json").write_text("[3]")
    assert source_of(tmp_path / "a_train.json") is None


def test_a_file_that_appears_while_another_is_written_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    with pytest.raises(OutputError, match=r"a.csv: already exists"), new_file(path) as temporary:
        temporary.write_text("ours")
        path.write_text("theirs")
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("a.csv", "theirs")]
