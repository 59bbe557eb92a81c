"""A model in a GGUF file → an ordinary model folder, in float32, with its tokenizer: something that lrc can train.

    python examples/gguf_model.py MODEL.gguf OUTPUT_DIR [--force]

transformers reads the architectures that it knows (Llama, Qwen, Gemma 3, Mistral and others) and widens quantized
weights; the values stay those of the file, so a 4-bit file gives a model as good as 4 bits. Needs `pip install gguf`.
"""

from __future__ import annotations

import argparse
import copy
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lrc.models.loading import check_vocabulary
from lrc.runtime.errors import LrcError, ModelError
from lrc.runtime.outputs import new_folder, refuse_existing


def convert(file: Path, output_dir: Path, *, force: bool = False) -> None:
    """Write the model of a GGUF file as a folder.

    Raises:
        LrcError: the file cannot be read as a model, or the folder exists.
    """
    refuse_existing(output_dir, force=force)
    if not file.is_file():
        raise ModelError(f"{file}: no such file; name a .gguf file")
    model, tokenizer = _read(file)
    check_vocabulary(tokenizer, model)
    with new_folder(output_dir, force=force) as staged:
        _unquantized(model).save_pretrained(staged)
        tokenizer.save_pretrained(staged)


def _read(file: Path) -> tuple[Any, Any]:
    try:
        model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
        return model, AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    except (ValueError, KeyError, OSError, RuntimeError, ImportError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"{file}: cannot be read as a model ({reason})") from error


def _unquantized(model: Any) -> Any:
    """The same weights in a model that does not say that it is quantized: transformers would not save that one."""
    config = copy.deepcopy(model.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.name_or_path = ""  # where the file lay says nothing to others
    plain = type(model)(config).to(torch.float32)
    plain.load_state_dict(model.state_dict())
    plain.tie_weights()
    plain.generation_config = model.generation_config
    return plain


def main() -> None:
    """Read the command line; exit 1 with a line where the file is refused."""
    parser = argparse.ArgumentParser(description="Save the model of a GGUF file as an ordinary model folder.")
    parser.add_argument("file", type=Path, help="The .gguf file.")
    parser.add_argument("output_dir", type=Path, help="The folder to write.")
    parser.add_argument("--force", action="store_true", help="Overwrite a folder that exists.")
    asked = parser.parse_args()
    try:
        convert(asked.file, asked.output_dir, force=asked.force)
    except LrcError as error:
        print(*error.findings, sep="\n", file=sys.stderr)
        sys.exit(1)
    print(f"{asked.output_dir}: the model and tokenizer of {asked.file.name}, in float32")


if __name__ == "__main__":
    main()
