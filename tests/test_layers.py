"""Rooms stand on floors: a module imports only from its own room and from rooms below."""

from __future__ import annotations

import ast
import configparser
import re
import subprocess
import sys
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
    """The rooms of lrc that are imported anywhere but in a script only; what is for a type checker counts."""
    skipped = {
        id(node)
        for top in ast.walk(tree)
        if isinstance(top, ast.If) and ast.unparse(top.test) == "__name__ == '__main__'"
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


ROOMS = sorted(path.parent for path in SOURCE.rglob("*/__init__.py"))
WITHOUT_TORCH = ("runtime", "data", "config", "metrics")
# The modules of these rooms that are made of upstream's own classes.
WITH_TORCH = {"lrc.config.arguments", "lrc.config.trackers", "lrc.runtime.processes"}


def test_no_module_imports_itself_through_others() -> None:
    """Within a room, too; imports inside functions count, those for a type checker do not."""
    names = {module_name(path): path for path in MODULES}
    imports = {name: modules_imported(path) & names.keys() - {name} for name, path in names.items()}
    while free := [name for name, others in imports.items() if not others]:
        imports = {name: others - set(free) for name, others in imports.items() if name not in free}
    assert not imports, f"a cycle among {', '.join(sorted(imports))}"


def modules_imported(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {
        id(node)
        for top in ast.walk(tree)
        if isinstance(top, ast.If) and ast.unparse(top.test) == "TYPE_CHECKING"
        for node in ast.walk(top)
    }
    statements = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and id(node) not in skipped]
    return {
        name for one in statements for alias in one.names for name in (f"{one.module}.{alias.name}", str(one.module))
    }


def module_name(path: Path) -> str:
    return ".".join(("lrc", *path.relative_to(SOURCE).with_suffix("").parts))


@pytest.mark.parametrize("path", sorted((SOURCE / "commands").glob("*.py")), ids=lambda path: path.stem)
def test_no_command_imports_another(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    others = {
        name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lrc.commands")
        for name in (
            [node.module] if node.module != "lrc.commands" else [f"{node.module}.{a.name}" for a in node.names]
        )
    }
    assert others <= {"lrc.commands.options"}


def test_rooms_for_refusing_early_import_without_torch() -> None:
    names = {module_name(path) for path in MODULES if path.relative_to(SOURCE).parts[0] in WITHOUT_TORCH}
    assert names > WITH_TORCH
    script = "import importlib, sys\n" + "".join(
        f"importlib.import_module({name!r}); assert 'torch' not in sys.modules, {name!r}\n"
        for name in sorted(names - WITH_TORCH)
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr.splitlines()[-1]


@pytest.mark.parametrize("path", ROOMS, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_room_says_what_it_is_for_what_it_may_import_and_what_is_public(path: Path) -> None:
    said = ast.get_docstring(ast.parse((path / "__init__.py").read_text(encoding="utf-8"))) or ""
    purpose, imports, *_, public = said.split("\n\n")
    assert 40 < len(purpose) < 200
    assert imports.startswith("May import ")
    assert public.startswith("Public: ")
    assert len(said.splitlines()) <= 10


@pytest.mark.parametrize("path", ROOMS, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_room_may_import_only_rooms_below_it_by_its_docstring_too(path: Path) -> None:
    said = ast.get_docstring(ast.parse((path / "__init__.py").read_text(encoding="utf-8"))) or ""
    own = path.relative_to(SOURCE).parts[0]
    granted = set(re.findall(r"`(\w+)`", said.split("\n\n")[1].split(". ")[0])) & FLOOR.keys()
    assert all(FLOOR[room] < FLOOR[own] for room in granted - {own})


@pytest.mark.parametrize("path", ROOMS, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_room_imports_nothing_that_its_docstring_does_not_name(path: Path) -> None:
    said = ast.get_docstring(ast.parse((path / "__init__.py").read_text(encoding="utf-8"))) or ""
    grant = said.split("\n\n")[1].split(". ")[0].replace("\n", " ")
    own = path.relative_to(SOURCE).parts[0]
    granted = set(re.findall(r"`(\w+)`", grant)) | {own}
    if re.search("rooms? below|every room|what that may import", grant):
        granted |= {room for room in FLOOR if FLOOR[room] < FLOOR[own]}
    modules = (file for file in path.glob("*.py") if file.name != "__init__.py")
    found = set().union(*(imported(ast.parse(file.read_text(encoding="utf-8"))) for file in modules))
    assert found <= granted


@pytest.mark.parametrize("path", ROOMS, ids=lambda path: str(path.relative_to(SOURCE)))
def test_what_a_room_calls_public_is_in_it(path: Path) -> None:
    """ "`a` and `b` of `module`": each name is defined at the top of that module."""
    said = ast.get_docstring(ast.parse((path / "__init__.py").read_text(encoding="utf-8"))) or ""
    public = said.split("\n\n")[-1].replace("\n", " ")
    for names, module in re.findall(r"((?:`\w+`(?:, | and )?)+) of `(\w+)`", public):
        tree = ast.parse((path / f"{module}.py").read_text(encoding="utf-8"))
        defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        defined |= {ast.unparse(node.targets[0]) for node in tree.body if isinstance(node, ast.Assign)}
        assert set(re.findall(r"`(\w+)`", names)) <= defined, module


def test_the_top_is_seen_at_a_glance() -> None:
    names = {path.name for path in SOURCE.iterdir() if not path.name.startswith("__")} - {"py.typed"}
    assert len(names) <= 16, sorted(names)


def test_every_package_is_in_the_wheel() -> None:
    config = configparser.ConfigParser()
    config.read(SOURCE.parents[1] / "setup.cfg", encoding="utf-8")
    listed = set(config["options"]["packages"].split())
    assert {module_name(path) for path in ROOMS} | {"lrc"} <= listed
    for package in listed & {module_name(path) for path in ROOMS}:
        folder = SOURCE.joinpath(*package.split(".")[1:])
        kinds = {f"*{p.suffix}" for p in folder.iterdir() if p.is_file() and p.suffix not in (".py", ".pyc")}
        patterns = config["options.package_data"].get(package, "").replace(" ", "").split(",")
        assert kinds <= set(patterns), f"{package} has assets that package_data does not name"
