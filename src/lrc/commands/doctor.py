"""`lrc doctor`: describes this machine, the recipe that suits it, what would be downloaded, and the next command."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from importlib.util import find_spec
from typing import Any

import lrc
from lrc.config.recipe_choice import Choice, choose_recipe
from lrc.runtime.devices import find_missing_kernels
from lrc.runtime.errors import MachineError
from lrc.runtime.findings import name_line, pad, print_json
from lrc.runtime.hub_connection import is_fetched
from lrc.runtime.machine import Machine, look_at_machine, why_card_unused
from lrc.runtime.memory import format_size
from lrc.runtime.packages import PACKAGES, check_installed, installed_version, tested_versions
from lrc.runtime.progress import notify
from lrc.runtime.translation import _, localized

FILES = "TRAIN.xlsx TEST.xlsx"


def doctor(*, as_json: bool = False) -> bool:
    """Print a description on stdout, and on stderr a line for each problem that keeps lrc from working.

    Args:
        as_json: print one JSON object instead of lines.

    Returns:
        Whether lrc can work here.
    """
    problems = _check_packages()
    if find_spec("torch") is None:  # without it, nothing else can be found out
        problems = problems or [_("torch: is not installed; run: pip install torch")]
        machine, choice = None, None
    else:
        notify(_("looking at this machine and asking the Hub: some seconds"))
        machine = look_at_machine()
        about = (machine.device, machine.card_memory, machine.memory, machine.disk, is_fetched)
        # Without the Hub: one whose base is here, else what could be trained with a connection.
        choice = choose_recipe(*about, online=bool(machine.hub)) or choose_recipe(*about)
        problems += _check_machine(machine)
    document = _document(machine, choice, problems)
    if as_json:
        print_json(document)
    else:
        print(*_lines(document, machine), sep="\n")
        for problem in problems:
            notify(problem)
    return not problems


def _check_packages() -> list[str]:
    try:
        check_installed()
    except MachineError as error:
        return [finding.sentence for finding in error.findings]
    return []


def _check_machine(machine: Machine) -> list[str]:
    if machine.device == "cuda":
        every = ((card, find_missing_kernels(index)) for index, card in enumerate(machine.cards))
        text = _("{card}: {what}; {cure}")
        return [text.format(card=card, what=found.what, cure=found.cure) for card, found in every if found]
    return [line] if machine.device == "cpu" and (line := why_card_unused()) else []


def _document(machine: Machine | None, choice: Choice | None, problems: list[str]) -> dict[str, Any]:
    tested = tested_versions()
    packages = {
        name: {"installed": installed_version(lrc.DISTRIBUTION if name == "lrc" else name), "tested": tested.get(name)}
        for name in PACKAGES
    }
    recipe = None
    if choice is not None:
        recipe = asdict(choice) | {"download": 0 if is_fetched(choice.base) else choice.download}
    return {
        "machine": None if machine is None else asdict(machine),
        "packages": packages,
        "recipe": recipe,
        "problems": problems,
        "next": _next(recipe, machine) if not problems else "lrc doctor",
    }


def _next(recipe: dict[str, Any] | None, machine: Machine | None) -> str:
    if recipe is None or _out_of_reach(recipe, machine):
        return "lrc demo"
    return f"lrc run {FILES} --recipe {recipe['recipe']} --output-dir out"


def _out_of_reach(recipe: dict[str, Any], machine: Machine | None) -> bool:
    """Whether the recipe's base has to be downloaded, and cannot be."""
    return bool(recipe["download"]) and not (machine and machine.hub)


def _lines(document: dict[str, Any], machine: Machine | None) -> Iterator[str]:
    yield from (name_line(name, text) for name, text in _facts(document, machine))
    yield pad(localized(_("next")), 14) + document["next"]  # in one line, so that it can be copied


def _facts(document: dict[str, Any], machine: Machine | None) -> Iterator[tuple[str, str]]:
    if machine is not None:
        yield from _about(machine)
    for name, found in document["packages"].items():
        yield name, _describe_package(found)
    if choice := document["recipe"]:
        yield _("recipe"), _("{recipe}, base {base}").format(recipe=choice["recipe"], base=choice["base"])
        text = _("about {size}, computed") if choice["download"] else _("nothing, the base is here")
        yield _("download"), text.format(size=format_size(choice["download"]))
        if _out_of_reach(choice, machine):
            text = _(
                "without the Hub that base cannot be had; name a folder that holds one: `lrc run … "
                "--model_name_or_path FOLDER`; the demo has a small base of its own, for its own stories"
            )
            yield _("note"), text
    elif machine is not None:
        yield (
            _("recipe"),
            _("none: too little memory or disk for the smallest base; the demo has a small one of its own"),
        )
    if document["next"].startswith("lrc run") and machine is not None and machine.device == "cpu":
        yield _("note"), _("without a GPU training takes hours; docs/results.md has measured ones")


def _describe_package(found: dict[str, Any]) -> str:
    if found["installed"] is None:
        return _("not installed")
    if found["tested"] in (None, str(found["installed"]).partition("+")[0]):  # torch: 2.13.0+cpu is 2.13.0
        return str(found["installed"])
    return _("{installed}  (tested with {tested})").format(**found)


def _about(machine: Machine) -> Iterator[tuple[str, str]]:
    yield _("system"), f"{machine.system}; Python {machine.python}"
    text = _("{device}: no GPU; computes in {dtype}")
    if machine.cards:
        text = _("{device}: {card}, {memory}; computes in {dtype}")
        text = _("{device}: {count} × {card}, {memory}; computes in {dtype}") if len(machine.cards) > 1 else text
    card, memory = (machine.cards[0], format_size(machine.card_memory)) if machine.cards else ("", "")
    known = {"device": machine.device, "dtype": machine.dtype}
    yield _("device"), text.format(**known, count=len(machine.cards), card=card, memory=memory)
    yield _("memory"), _("{size} free, {cores} cores").format(size=format_size(machine.memory), cores=machine.cores)
    yield _("disk"), _("{size} free at {place}").format(size=format_size(machine.disk), place=machine.cache)
    answers = {True: _("can be reached"), False: _("cannot be reached"), None: _("not asked: HF_HUB_OFFLINE is set")}
    yield "Hub", answers[machine.hub]
