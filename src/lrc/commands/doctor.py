"""`lrc doctor`: describes this machine, the recipe that suits it, what would be downloaded, and the next command."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from importlib.util import find_spec
from typing import Any

import lrc
from lrc.config.recipe_choice import Choice, choose_recipe
from lrc.runtime.errors import MachineError
from lrc.runtime.hub_connection import is_fetched
from lrc.runtime.machine import Machine, look_at_machine, unused_card
from lrc.runtime.memory import format_size
from lrc.runtime.packages import PACKAGES, check_installed, installed_version, tested_versions
from lrc.runtime.progress import notify
from lrc.runtime.translation import _

FILES = "TRAIN.xlsx TEST.xlsx"
TORCH = "https://pytorch.org/get-started/locally/"


def doctor(*, as_json: bool = False) -> bool:
    """Print a description on stdout, and on stderr a line for each problem that keeps lrc from working.

    Args:
        as_json: print one JSON object instead of lines.

    Returns:
        Whether lrc can work here.
    """
    problems = _check_packages()
    if find_spec("torch") is None:  # without it, nothing else can be found out
        problems = problems or ["torch: is not installed; run: pip install torch"]
        machine, choice = None, None
    else:
        notify(_("looking at this machine and asking the Hub: some seconds"))
        machine = look_at_machine()
        choice = choose_recipe(machine.device, machine.card_memory, machine.memory, machine.disk, is_fetched)
        problems += _check_machine(machine)
    document = _document(machine, choice, problems)
    if as_json:
        print(json.dumps(document, ensure_ascii=False, indent=2))
    else:
        print(*_lines(document, machine), sep="\n")
        for problem in problems:
            notify(problem)
    return not problems


def _check_packages() -> list[str]:
    try:
        check_installed()
    except MachineError as error:
        return list(error.lines("en"))
    return []


def _check_machine(machine: Machine) -> list[str]:
    if machine.device == "cpu" and unused_card():
        return [f"torch: {machine.torch} was built without CUDA, and there is an NVIDIA card; see {TORCH}"]
    return []


def _document(machine: Machine | None, choice: Choice | None, problems: list[str]) -> dict[str, Any]:
    tested = tested_versions()
    packages = {
        name: {"installed": installed_version(lrc.DISTRIBUTION if name == "lrc" else name), "tested": tested.get(name)}
        for name in PACKAGES
    }
    there = choice is not None and is_fetched(choice.base)
    reachable = there or bool(machine and machine.hub)
    recipe = None if choice is None else asdict(choice) | {"download": 0 if there else choice.download}
    return {
        "machine": None if machine is None else asdict(machine),
        "packages": packages,
        "recipe": recipe if reachable else None,
        "problems": problems,
        "next": _next(choice, reachable=reachable) if not problems else "lrc doctor",
    }


def _next(choice: Choice | None, *, reachable: bool) -> str:
    if choice is None or not reachable:
        return "lrc demo"
    return f"lrc run {FILES} --recipe {choice.recipe} --output-dir out"


def _lines(document: dict[str, Any], machine: Machine | None) -> Iterator[str]:
    if machine is not None:
        yield from _about(machine)
    for name, found in document["packages"].items():
        same = found["tested"] in (None, str(found["installed"]).partition("+")[0])  # torch: 2.13.0+cpu is 2.13.0
        tested = "" if same else f"  (tested with {found['tested']})"
        yield f"{name:<14}{found['installed'] or 'not installed'}{tested}"
    if choice := document["recipe"]:
        yield f"recipe        {choice['recipe']}, base {choice['base']}"
        amount = (
            f"about {format_size(choice['download'])}, computed" if choice["download"] else "nothing, the base is here"
        )
        yield f"download      {amount}"
    elif machine is not None:
        yield _without_recipe(machine)
    if document["next"].startswith("lrc run") and machine is not None and machine.device == "cpu":
        yield "note          without a GPU training takes hours; docs/results.md has measured ones"
    yield f"next          {document['next']}"


def _about(machine: Machine) -> Iterator[str]:
    yield f"system        {machine.system}; Python {machine.python}"
    count = f"{len(machine.cards)} × " if len(machine.cards) > 1 else ""
    card = f"{count}{machine.cards[0]}, {format_size(machine.card_memory)}" if machine.cards else "no GPU"
    yield f"device        {machine.device}: {card}; computes in {machine.dtype}"
    yield f"memory        {format_size(machine.memory)} free, {machine.cores} cores"
    yield f"disk          {format_size(machine.disk)} free at {machine.cache}"
    answer = {True: "answers", False: "does not answer", None: "not asked: HF_HUB_OFFLINE is set"}[machine.hub]
    yield f"Hub           {answer}"


def _without_recipe(machine: Machine) -> str:
    if not machine.hub:
        return (
            "recipe        none: no base was fetched before and the Hub cannot be reached; the demo has a small base "
            "of its own, for its own stories"
        )
    return "recipe        none: too little memory or disk for the smallest base; the demo has a small one of its own"
