"""What the pages name is there: every path, every name in docs/architecture.md, and the floors of its drawing."""

from __future__ import annotations

import ast
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "lrc"
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
QUOTED = re.compile(r"From `([\w./]+)`:\n\n```python\n(.*?)```", flags=re.DOTALL)
PATH = re.compile(r"(?<![\w/-])(?:src/lrc|tests|benchmarks|docs|recipes|examples)/[\w/.-]+\.(?:py|yaml|md|json|xlsx)\b")
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
REFERENCE = re.compile(r"`([\w./-]+\.(?:py|html|yaml|md))(?::([\w.]+))?`")
REFERENCES = sorted(set(REFERENCE.findall(PAGE)))
SPOKEN_OF = re.compile(r"`([A-Z]\w+)`")


def names_in(body: list[ast.stmt]) -> dict[str, ast.stmt]:
    """What a module or a class defines, by name."""
    found: dict[str, ast.stmt] = {}
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {name.id: node for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
    return found


def why_missing(path: str, name: str) -> str | None:
    """What of a reference is not in the clone; None where all of it is."""
    file = next((base / path for base in (SOURCE, ROOT) if (base / path).is_file()), None)
    if file is None:
        return f"no file {path}"
    body = ast.parse(file.read_text(encoding="utf-8")).body if name else []
    for part in filter(None, name.split(".")):
        found = names_in(body)
        if part not in found:
            return f"no {part} in {path}"
        body = getattr(found[part], "body", [])
    return None


@pytest.mark.parametrize(("path", "name"), REFERENCES, ids=[":".join(filter(None, one)) for one in REFERENCES])
def test_what_is_named_is_there(path: str, name: str) -> None:
    assert why_missing(path, name) is None


@pytest.mark.parametrize(
    ("path", "name", "why"),
    [
        ("data/tables/notebook.py", "", "no file data/tables/notebook.py"),
        ("workbook.py", "", "no file workbook.py"),  # the room belongs to it
        ("packing/tree.py", "pick", "no pick in packing/tree.py"),
        ("packing/tree.py", "PackedRow.colour", "no colour in packing/tree.py"),
        ("packing/tree.py", "PackedRow.blocks", None),
        ("docs/upstream_keys.yaml", "", None),
    ],
)
def test_what_is_not_there_is_found_out(path: str, name: str, why: str | None) -> None:
    assert why_missing(path, name) == why


def test_each_room_is_on_the_page() -> None:
    rooms = {folder.name for folder in SOURCE.iterdir() if (folder / "__init__.py").is_file()}
    assert {path.split("/")[0] for path, _ in REFERENCES} >= rooms


def test_classes_that_are_spoken_of_exist() -> None:
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in SOURCE.rglob("*.py")]
    classes = {node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    assert set(SPOKEN_OF.findall(PAGE)) - {"Literal"} <= classes


def test_the_drawing_has_the_rooms_on_floors_that_the_imports_allow() -> None:
    drawing = ElementTree.fromstring((ROOT / "docs" / "layers.svg").read_text(encoding="utf-8"))
    heights = {str(one.text): float(one.attrib["y"]) for one in drawing.iter() if one.get("class") == "room"}
    rooms = {path.stem for path in SOURCE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert heights.keys() == {room for room in rooms if not room.startswith("__")}
    for path in SOURCE.rglob("*.py"):
        own = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            other = (node.module or "").split(".")[1:2] if isinstance(node, ast.ImportFrom) else []
            if own in heights and other and (node.module or "").startswith("lrc.") and other != [own]:
                assert heights[own] < heights[other[0]], f"{path}: {own} is drawn below {other[0]}"


def test_the_passages_to_follow_are_in_the_code() -> None:
    quoted = QUOTED.findall((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    assert len(quoted) == 3
    for path, passage in quoted:
        assert passage in (ROOT / path).read_text(encoding="utf-8"), path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_file_of_the_clone_that_a_page_names_exists(page: Path) -> None:
    assert [path for path in PATH.findall(page.read_text(encoding="utf-8")) if not (ROOT / path).exists()] == []
