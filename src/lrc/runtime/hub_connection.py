"""Does the Hub answer? Asked once, since its client would try again and again for each file of a model."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from functools import cache
from pathlib import Path

from lrc.runtime.exit_status import is_first
from lrc.runtime.progress import notify

PATIENCE = 5.0  # seconds


def go_offline_if_alone(name: str) -> None:
    """Where a model is looked for on the Hub and the Hub does not answer, stay offline from here on.

    This process and those that it starts then use what was downloaded before.

    Args:
        name: a folder, or a name on the Hub.
    """
    if not Path(name).expanduser().is_dir():
        _probe()


def hub_answers() -> bool | None:
    """Whether the Hub answers; None where HF_HUB_OFFLINE says that it is not to be asked."""
    from huggingface_hub import constants

    return None if constants.HF_HUB_OFFLINE else _answers(constants.ENDPOINT)


def is_fetched(name: str) -> bool:
    """Whether a model's weights are in the cache already, or `name` is a folder that holds a model."""
    if Path(name).expanduser().is_dir():
        return (Path(name).expanduser() / "config.json").is_file()
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    weights = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
    try:
        return any(isinstance(try_to_load_from_cache(name, file), str) for file in weights)
    except HFValidationError:
        return False


@cache
def _probe() -> None:
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or _answers(constants.ENDPOINT):
        return
    os.environ["HF_HUB_OFFLINE"] = "1"
    constants.HF_HUB_OFFLINE = True
    if is_first():
        notify(f"{constants.ENDPOINT}: does not answer; continuing offline, with what was downloaded before")


def _answers(address: str) -> bool:
    """Whether anything answers there, be it with an error; through a proxy where one is set."""
    answered = threading.Event()
    thread = threading.Thread(target=_ask, args=(address, answered), daemon=True)
    thread.start()
    thread.join(PATIENCE)  # looking up a name knows no timeout
    return answered.is_set()


def _ask(address: str, answered: threading.Event) -> None:
    from huggingface_hub.utils import get_session

    with suppress(Exception):  # whatever the client's library raises, nobody answered
        get_session().head(address, timeout=PATIENCE)
        answered.set()
