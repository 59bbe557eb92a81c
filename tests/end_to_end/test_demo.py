"""What `lrc demo` says of itself, and the tiny base of `lrc run`. The whole of it takes minutes: `make demo`."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import fork_server

from lrc.commands.demo import BASE, summary
from lrc.data.questions import Question
from lrc.metrics.verdict import judge

ROOT = Path(__file__).parents[2]


def figures(right: int) -> dict[str, Any]:
    """The figures of 120 questions, of which the first are answered rightly; no option has more in common with it."""
    questions = [
        Question(str(i), f"第{i // 3}篇甲乙丙丁", f"問{i}", ("甲", "乙", "丙", "丁"), i % 4 + 1) for i in range(120)
    ]
    predictions = [one.answer or 0 if i < right else (one.answer or 0) % 4 + 1 for i, one in enumerate(questions)]
    verdict = judge(questions, predictions)
    return {**verdict.figures, "verdict": str(verdict), "baselines": verdict.baselines}


def test_the_summary_says_what_was_learnt_and_never_what_was_not() -> None:
    told = "\n".join(summary(Path("out"), figures(30), figures(108), 150.0))
    assert "120 questions on 40 held-out passages" in told and "The whole way took 2.5 minutes." in told
    assert "before training" in told and "25.0 %" in told and "90.0 % (" in told
    assert "points above the best baseline" in told and "sliding window" in told and "please report" not in told
    failed = "\n".join(summary(Path("out"), figures(30), figures(24), 150.0))
    assert "no evidence of learning." in failed and "please report this" in failed and "None of the names" not in failed


def test_the_shipped_base_is_whole_small_and_holds_no_more_than_tensors() -> None:
    folder = ROOT / "examples/little_world"
    assert all((folder / name).is_file() for name in BASE)
    assert (folder / "model.safetensors").stat().st_size < 2_000_000


def test_making_a_base_in_a_pipe_tells_nothing(tmp_path: Path) -> None:
    program = (
        "from pathlib import Path; from lrc.models.tiny import make_base; make_base(Path('base'), ['文章', '問題'])"
    )
    done = subprocess.run(
        [fork_server.python(), "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert (tmp_path / "base" / "model.safetensors").is_file() and done.stderr == ""
