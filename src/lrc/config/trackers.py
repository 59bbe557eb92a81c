"""Checks and closes the experiment trackers of `report_to`, which transformers supports."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from transformers.integrations import TensorBoardCallback, TrackioCallback, get_available_reporting_integrations
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from lrc.runtime.packages import install_extra
from lrc.runtime.translation import _

TRIED = ("trackio", "wandb", "tensorboard", "none")
EXTRAS = ("trackio",)


def why_not_reported(report_to: Sequence[str]) -> str | None:
    """What is wrong with `report_to`, and the cure; None if every tracker in it is installed.

    Args:
        report_to: the names of trackers; may be empty.
    """
    if "none" in report_to and len(report_to) > 1:
        text = _("report_to is {names}; remove none, or everything else")
        return text.format(names=tuple(report_to))
    for name in report_to:
        if name not in INTEGRATION_TO_CALLBACK:
            near = get_close_matches(str(name), [*INTEGRATION_TO_CALLBACK, "none"], n=1)
            text = _("report_to is {name}, expected {names} or none")
            if near:
                text = _("report_to is {name}, expected {names} or none; did you mean {near}?")
            return text.format(name=name, names=tuple(TRIED[:-1]), near=repr(near[0]) if near else "")
    installed = get_available_reporting_integrations() if report_to else []
    for name in report_to:
        if name not in installed:
            cure = install_extra(name) if name in EXTRAS else f"pip install {name}"
            return _("report_to is {name}, which is not installed; {cure}, or write none").format(name=name, cure=cure)
    return None


def close_trackers(trainer: Any) -> None:
    """End the tracker runs that were reopened to log the final evaluation, after training had ended them."""
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, TensorBoardCallback | TrackioCallback):
            callback.on_train_end(trainer.args, trainer.state, trainer.control, model=trainer.model)
