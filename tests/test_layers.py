"""Rooms stand on floors: a module imports only from its own room and from rooms below."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import lrc

SOURCE = Path(lrc.__file__).parent
FLOORS = [
    "runtime",
    "data config packing",
    "metrics tokenization models",
    "answering reporting",
    "training",
    "preview",
    "commands sft",
    "cli",
    "generate evaluation __main__",
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms.split()}
MODULES = sorted(path for path in SOURCE.rglob("*.py") if path.name != "__init__.py")


def room(parts: tuple[str, ...]) -> str:
    return parts[0].removesuffix(".py")


def imported(tree: ast.Module) -> set[str]:
    """The rooms of lrc that are imported anywhere, but for a type checker or in a script only."""
    skipped = {
        id(node)
        for top in ast.walk(tree)
        if isinstance(top, ast.If) and ast.unparse(top.test) in ("__name__ == '__main__'", "TYPE_CHECKING")
        for node in ast.walk(top)
    }
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and id(node) not in skipped and (node.module or "").startswith("lrc"):
            names = [node.module] if "." in (node.module or "") else [f"lrc.{alias.name}" for alias in node.names]
            found |= {name.split(".")[1] for name in names if name}
    return found & FLOOR.keys()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_down(path: Path) -> None:
    own = room(path.relative_to(SOURCE).parts)
    above = {
        other
        for other in imported(ast.parse(path.read_text(encoding="utf-8")))
        if other != own and FLOOR[other] >= FLOOR[own]
    }
    assert not above, f"{own} imports {', '.join(sorted(above))}"
