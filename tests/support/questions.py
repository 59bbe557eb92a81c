"""Makes questions for tests."""

from __future__ import annotations

from typing import Any

from lrc.data.questions import Question


def ask(row: int = 2, **changes: Any) -> Question:
    """A labelled question; `changes` by field."""
    fields: dict[str, Any] = {
        "id": str(row - 1),
        "passage": f"第{row}篇文章：小明在公園裡放風箏，\n風很大。",
        "question": f"第{row}題：小明在做什麼？",
        "options": ("放風箏", "釣魚", "睡覺", "讀書"),
        "answer": 1,
        "row": row,
    }
    return Question(**(fields | changes))
