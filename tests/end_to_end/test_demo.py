"""What `lrc demo` says of itself, and the tiny base that it makes. The whole of it takes minutes: `make demo`."""

from __future__ import annotations

import subprocess
from pathlib import Path

import fork_server

from lrc.commands.demo import describe_accuracy


def test_it_claims_that_the_questions_are_known_by_heart_only_where_they_are() -> None:
    assert "memorised its" in describe_accuracy(1.0) and "not memorised" not in describe_accuracy(1.0)
    assert describe_accuracy(0.25).startswith("The training questions were not memorised")


def test_making_a_base_in_a_pipe_tells_nothing(tmp_path: Path) -> None:
    program = (
        "from pathlib import Path; from lrc.models.tiny import make_base; make_base(Path('base'), ['文章', '問題'])"
    )
    done = subprocess.run(
        [fork_server.python(), "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert (tmp_path / "base" / "model.safetensors").is_file() and done.stderr == ""
