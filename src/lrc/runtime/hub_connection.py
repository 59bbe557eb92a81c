"""Checks once whether the Hub is reachable; its client would retry again and again for each file of a model."""

from __future__ import annotations

import json
import os
import threading
from contextlib import suppress
from pathlib import Path

from lrc.runtime.exit_status import is_first
from lrc.runtime.progress import notify
from lrc.runtime.translation import _

PATIENCE = 5.0  # seconds


def go_offline_if_alone(name: str) -> None:
    """Switch to offline mode if a model is on the Hub, and the Hub does not answer.

    This process and its children then use what was downloaded before.

    Args:
        name: a folder, or a name on the Hub.
    """
    if not Path(name).expanduser().is_dir():
        _probe()


def hub_answers() -> bool | None:
    """Whether the Hub answers; None if HF_HUB_OFFLINE is set."""
    from huggingface_hub import constants

    return None if constants.HF_HUB_OFFLINE else _answers(constants.ENDPOINT)


def is_fetched(name: str) -> bool:
    """Whether a model's weights are in the Hub's cache already, or `name` is a folder with a model."""
    if Path(name).expanduser().is_dir():
        return (Path(name).expanduser() / "config.json").is_file()
    weights = ("model.safetensors", "pytorch_model.bin")
    return any(is_cached(name, file) or _has_shards(name, f"{file}.index.json") for file in weights)


def _has_shards(name: str, index: str) -> bool:
    """Whether an index of a model's weights is in the cache, and every file that it names."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        path = try_to_load_from_cache(name, index)
        files = (
            set(json.loads(Path(path).read_text(encoding="utf-8"))["weight_map"].values())
            if isinstance(path, str)
            else ()
        )
    except (HFValidationError, OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    return bool(files) and all(is_cached(name, str(file)) for file in files)


def is_cached(name: str, file: str) -> bool:
    """Whether a file of a model is in the Hub's cache; false if `name` cannot be one on the Hub."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        return isinstance(try_to_load_from_cache(name, file), str)
    except HFValidationError:
        return False


class _Probe:
    """What is known of the Hub in this process."""

    asked = False
    silent = False  # whether it did not answer, so that this process was switched to offline mode


def ask_again() -> None:
    """Forget that the Hub did not answer, if so: a notebook lives on when the connection is back."""
    from huggingface_hub import constants

    if _Probe.silent:
        os.environ.pop("HF_HUB_OFFLINE", None)
        constants.HF_HUB_OFFLINE = False
        _Probe.asked = _Probe.silent = False


def _probe() -> None:
    """Ask the Hub, once."""
    from huggingface_hub import constants

    if _Probe.asked or constants.HF_HUB_OFFLINE:
        return
    _Probe.asked, _Probe.silent = True, not _answers(constants.ENDPOINT)
    if not _Probe.silent:
        return
    os.environ["HF_HUB_OFFLINE"] = "1"
    constants.HF_HUB_OFFLINE = True
    if is_first():
        text = _("{address}: does not answer; continuing offline, with what was downloaded before")
        notify(text.format(address=constants.ENDPOINT))


def _answers(address: str) -> bool:
    """Whether anything answers at an address, even with an error; through a proxy if one is set."""
    answered = threading.Event()
    thread = threading.Thread(target=_ask, args=(address, answered), daemon=True)
    thread.start()
    thread.join(PATIENCE)  # a DNS lookup has no timeout
    return answered.is_set()


def _ask(address: str, answered: threading.Event) -> None:
    from huggingface_hub.utils import get_session

    with suppress(Exception):  # whatever the HTTP library raises means that nobody answered
        get_session().head(address, timeout=PATIENCE)
        answered.set()
