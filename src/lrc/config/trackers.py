"""Where a run's figures go besides its folder: trackers that transformers knows, named by `report_to`."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from transformers.integrations import TensorBoardCallback, TrackioCallback, get_available_reporting_integrations
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from lrc.runtime.packages import install_extra

TRIED = ("trackio", "wandb", "tensorboard", "none")
EXTRAS = ("trackio",)


def why_not_reported(report_to: Sequence[str]) -> str | None:
    """What is wrong with `report_to`, and the cure; None where every tracker in it is installed.

    Args:
        report_to: names of trackers; none at all is fine.
    """
    if "none" in report_to and len(report_to) > 1:
        return f"report_to is {', '.join(report_to)}; remove none, or everything else"
    for name in report_to:
        if name not in INTEGRATION_TO_CALLBACK:
            near = get_close_matches(str(name), [*INTEGRATION_TO_CALLBACK, "none"], n=1)
            return f"report_to is {name}, expected {', '.join(TRIED[:-1])} or none" + (
                f"; did you mean {near[0]!r}?" if near else ""
            )
    installed = get_available_reporting_integrations() if report_to else []
    for name in report_to:
        if name not in installed:
            cure = install_extra(name) if name in EXTRAS else f"pip install {name}"
            return f"report_to is {name}, which is not installed; {cure}, or write none"
    return None


def close_trackers(trainer: Any) -> None:
    """End what the trackers opened again for lines that came after training: the last evaluation's."""
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, TensorBoardCallback | TrackioCallback):
            callback.on_train_end(trainer.args, trainer.state, trainer.control, model=trainer.model)
