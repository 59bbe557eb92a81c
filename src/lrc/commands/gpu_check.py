"""`lrc gpu-check`: tests in two minutes what works on this GPU, how fast it is, and which recipe fits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from lrc.config.recipe_choice import PARAMETERS, choose_recipe
from lrc.preview.gpu_checks import CheckResult, Probe, run_checks
from lrc.runtime.devices import device_type
from lrc.runtime.errors import MachineError
from lrc.runtime.findings import name_line, pad, print_json
from lrc.runtime.hub_connection import is_fetched
from lrc.runtime.machine import Machine, look_at_machine, why_card_unused
from lrc.runtime.progress import notify
from lrc.runtime.translation import _, localized

# AI.xlsx: questions, and their unique tokens in packed rows.
QUESTIONS, TOKENS = 13_549, 1_900_000
NAMES = 18  # columns of the terminal for the names of the checks


def gpu_check(*, device: str | None = None, as_json: bool = False) -> bool:
    """Print a table on stdout, and on stderr a line for each failed check, with its cure.

    Args:
        device: `cuda` or `cpu`; None is the GPU.
        as_json: print one JSON object instead of the table.

    Returns:
        Whether all checks have passed.

    Raises:
        MachineError: there is no GPU.
    """
    probe = Probe(torch.device(_device(device)))
    if not probe.gpu:
        notify(_("gpu-check: on a CPU all of it runs in toy sizes, to show that it works"))
    results = []
    for result in run_checks(probe):
        results.append(result)
        if not as_json:
            print(_line(result), flush=True)
    recipe = _recipe(probe, look_at_machine())
    wrong = [result for result in results if result.cure]
    if as_json:
        checks = [vars(result) | {"works": not result.cure} for result in results]
        print_json({"checks": checks, "recipe": recipe})
    else:
        print(*_advice(recipe), sep="\n")
    for result in wrong:
        text = _("gpu-check: {name}: {found}; {cure}")
        notify(text.format(name=result.name, found=result.found, cure=result.cure))
    return not wrong


def _device(asked: str | None) -> str:
    if asked == "cpu":
        return "cpu"
    if (found := device_type()) == "cuda":
        return found
    if line := why_card_unused():
        raise MachineError(line)
    raise MachineError(_("gpu-check: torch sees no CUDA GPU here; --device cpu runs the same in toy sizes"))


def _line(result: CheckResult) -> str:
    outcome = _("WRONG") if result.cure else _("works")
    return name_line(result.name, pad(localized(outcome), 7) + localized(result.found), NAMES)


def _recipe(probe: Probe, machine: Machine) -> dict[str, Any] | None:
    """The recipe that suits this machine, and the computed minutes of an epoch at the measured rate."""
    device, memory = probe.device.type, machine.card_memory if probe.gpu else 0
    choice = choose_recipe(device, memory, machine.memory, machine.disk, is_fetched)
    if choice is None:
        return None
    minutes = None
    if probe.gpu and probe.reached:
        cards = torch.cuda.device_count()
        # With gradient checkpointing, 6 operations per weight and token.
        minutes = 6 * PARAMETERS[choice.recipe] * 1e9 * TOKENS / (probe.reached * 1e12 * cards) / 60
    return {"recipe": choice.recipe, "base": choice.base, "minutes_an_epoch": minutes}


def _advice(recipe: dict[str, Any] | None) -> Iterator[str]:
    if recipe is None:
        text = _("none: too little memory or disk for the smallest base; the demo has a small one of its own")
        yield name_line(_("recipe"), text, NAMES)
        return
    text = _("{recipe}, base {base}")
    if recipe["minutes_an_epoch"] is not None:
        text = _("{recipe}, base {base}: {minutes:,.0f} minutes an epoch of {questions:,} questions, computed")
    filled = text.format(
        recipe=recipe["recipe"], base=recipe["base"], minutes=recipe["minutes_an_epoch"], questions=QUESTIONS
    )
    yield name_line(_("recipe"), filled, NAMES)
    yield name_line(_("next"), f"lrc run TRAIN.xlsx TEST.xlsx --recipe {recipe['recipe']} --output-dir out", NAMES)
