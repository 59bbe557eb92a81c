"""A Hugging Face Space with the page of `lrc app`; the Space's variables say which model it shows."""

import os
import sys
from pathlib import Path

from lrc.cli import main

# A variable of the Space → the flag of `lrc app` that it sets.
FLAGS = {
    "LRC_TEMPLATE": "--template",
    "LRC_ANSWER_STYLE": "--answer-style",
    "LRC_VOTES": "--votes",
    "LRC_ROW_TOKENS": "--row-tokens",
}


def folder_of(name: str) -> str:
    """A folder as it is; a repository on the Hub as the folder that it was downloaded to, with its lrc_run.json."""
    if Path(name).is_dir():
        return name
    from huggingface_hub import snapshot_download

    return snapshot_download(name)


def words() -> list[str]:
    """The command line that the Space's variables stand for."""
    model, adapters = os.environ.get("LRC_MODEL", ""), os.environ.get("LRC_ADAPTER", "").split()
    if not model:
        sys.exit("LRC_MODEL is not set; give the name of a base or merged model in the Space's variables")
    # A merged model's folder says how it was trained; a base under an adapter is loaded by its name.
    given = ["app", "--model", model if adapters else folder_of(model)]
    for adapter in adapters:
        given += ["--adapter", folder_of(adapter)]
    for variable, flag in FLAGS.items():
        if value := os.environ.get(variable):
            given += [flag, value]
    host, port = os.environ.get("GRADIO_SERVER_NAME", "0.0.0.0"), os.environ.get("GRADIO_SERVER_PORT", "7860")
    return [*given, "--host", host, "--port", port]


if __name__ == "__main__":
    main(words())
