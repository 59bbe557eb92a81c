"""What visitors upload, and the answers to it, do not stay."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

page = pytest.importorskip("lrc.answering.app.page", reason="gradio is not installed: pip install '.[app]'")


def test_answers_of_earlier_visitors_are_removed_and_none_that_are_being_made(tmp_path: Path) -> None:
    made = {name: tmp_path / name for name in ("old", "new", "old and being answered", "new and being answered")}
    for name, folder in made.items():
        folder.mkdir()
        if "being" not in name:
            (folder / "answer.csv").write_text("ID,Answer\n", encoding="utf-8")
        if "old" in name:
            os.utime(folder, (time.time() - page.KEPT - 1,) * 2)
    page._forget(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == made.keys() - {"old"}
    assert (made["new"] / "answer.csv").is_file()
