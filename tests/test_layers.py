"""Imports only point down: each module may import those that stand before it, and verbs never import each other."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import lrc

SOURCE = Path(lrc.__file__).parent
# A new module has its place here: after all that it imports, before all that import it.
LIGHT = """
    findings errors installed questions progress memory refusal claim output signals run answers tables headers
    numberformat cells cleaning package expansion bookparts marks sheet opendocument binarysheet commas jsonarray
    jsonlines flags conflicts suspicions enumeration rows unread workbook layouts alpaca c3 manifest datafile
    neighbours duplicates splits plan account submission metrics lexical calibration curves charts outcomes labels
    fragments summary
"""
MACHINERY = """
    dtypes strictyaml bounds values tracking arguments overrides recipe weights contents fingerprint scrub card hub tree
    prompt equivalence attention lastlayer likelihood masterweights models quantization shorten scoring contrast batches
    pace fitting workers tokencache tokentable tokenizing corpus checkpoint space stopping history adapter pissa neftune
    optimizer ingredients durable validation trainer
    rundir versions shard graft merged probes sidefile together answering tinybase trial page
    ledger standins skeleton topology footprint remedies precision workload specimens outlook
    sweepfile contender standings study
"""
VERBS = "app check convert demo evaluation generate init merge preview publish report sft sweep train vote"
ORDER = f"{LIGHT} {MACHINERY} {VERBS} cli __main__".split()
MODULES = sorted(path.stem for path in SOURCE.glob("*.py") if path.stem != "__init__")


def imported(statements: list[ast.stmt]) -> Iterator[str]:
    """The modules of lrc that are imported anywhere in the statements, but in a script or for a type checker only."""
    for node in statements:
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("__name__ == '__main__'", "TYPE_CHECKING"):
            continue
        if isinstance(node, ast.ImportFrom) and node.module == "lrc":
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: write the import in full"
            if node.module and node.module.startswith("lrc."):
                yield node.module.split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("lrc."))
        yield from imported([child for child in ast.walk(node) if child is not node and isinstance(child, ast.stmt)])


def imports_of(module: str) -> set[str]:
    return set(imported(ast.parse((SOURCE / f"{module}.py").read_text(encoding="utf-8")).body))


def test_every_module_has_its_place() -> None:
    assert len(ORDER) == len(set(ORDER))
    assert set(MODULES) <= set(ORDER), "give the module a place in the order of this test"


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module: str) -> None:
    before = set(ORDER[: ORDER.index(module)])
    above = imports_of(module) - before
    assert not above, f"{module} imports {', '.join(sorted(above))}, which stands above it"


@pytest.mark.parametrize("verb", [verb for verb in VERBS.split() if verb in MODULES])
def test_verbs_never_import_each_other(verb: str) -> None:
    assert not imports_of(verb) & set(VERBS.split())


def test_the_test_sees_imports_wherever_they_stand() -> None:
    text = (
        "import lrc.a\ndef f():\n    if x:\n        from lrc.b import c\nif __name__ == '__main__':\n    import lrc.d\n"
    )
    assert set(imported(ast.parse(text).body)) == {"a", "b"}
    assert {"convert", "generate"} <= imports_of("cli")


def test_the_light_layers_know_no_torch() -> None:
    names = ", ".join(f"lrc.{module}" for module in LIGHT.split() if module in MODULES)
    code = f"import sys, {names}; print(*sorted({{'torch', 'transformers', 'trl', 'peft'}} & set(sys.modules)))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == ""
