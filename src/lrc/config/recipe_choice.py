"""Chooses a shipped recipe for a machine: the largest base that fits its GPU, or its memory, and its disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lrc.config.shipped import shipped_files
from lrc.config.yaml_reader import read_mapping

GIB = 1024**3
SOLD_AS = 0.9  # the least usable GiB per gigabyte that a GPU is sold with
BYTES_PER_PARAMETER = 2  # on the Hub, where these bases are stored in 16 bits
EMBEDDED = "tiny/lora"  # its base is generated and not downloaded

# The parameters of each recipe's base, in billions, as its publisher states them.
PARAMETERS = {
    "breeze-7b/qlora": 7.49,
    "chinese-alpaca-2-1.3b/qlora": 1.26,
    "chinese-alpaca-2-7b/qlora": 6.93,
    "chinese-alpaca-2-13b/qlora": 13.25,
    "gemma-3-270m/lora": 0.27,
    "gemma-3-1b/lora": 1.00,
    "llama-3-taide-8b/qlora": 8.03,
    "llama-3-taiwan-8b/lora": 8.03,
    "llama-3-taiwan-8b/qlora": 8.03,
    "llama-3-taiwan-70b/qlora": 70.6,
    "minicpm5-1b/lora": 1.08,
    "qwen2.5-0.5b/lora": 0.49,
    "qwen2.5-1.5b/lora": 1.54,
    "qwen3-0.6b/lora": 0.60,
    "qwen3-1.7b/lora": 1.72,
    "qwen3-4b/lora": 4.02,
    "qwen3-8b/lora": 8.19,
    "qwen3-8b/qlora": 8.19,
    "qwen3-14b/lora": 14.8,
    "qwen3-14b/qlora": 14.8,
    "qwen3-32b/lora": 32.8,
    "qwen3-32b/qlora": 32.8,
}
# The GPU memory that a recipe needs, in the gigabytes that a card is sold with, largest first; 4 bits need CUDA.
BY_CARD = [
    (80, "qwen3-32b/lora"),
    (48, "qwen3-32b/qlora"),
    (24, "qwen3-14b/qlora"),
    (11, "qwen3-8b/qlora"),
    (8, "qwen3-1.7b/lora"),
    (6, "qwen3-0.6b/lora"),
]
# The free memory that a recipe needs on a CPU, in GiB, largest first. In bfloat16, training takes up to 14.5 and 10.8
# GB at the peak (docs/results.md), and float32 weights take 3.1 and 1.0 GB more; both learn for about as long.
BY_MEMORY = [(20, "qwen2.5-1.5b/lora"), (11, "qwen2.5-0.5b/lora")]
SMALLEST = BY_MEMORY[-1][1]


@dataclass(frozen=True)
class Choice:
    """A shipped recipe and its download.

    Args:
        recipe: its name.
        base: the name of its base on the Hub.
        download: the size of the base in bytes, computed from its number of parameters.
    """

    recipe: str
    base: str
    download: int


def describe_recipe(recipe: str) -> Choice:
    """The base and the download of a shipped recipe."""
    base = str(read_mapping(shipped_files("recipes")[recipe]).values["model_name_or_path"])
    return Choice(recipe, base, round(PARAMETERS[recipe] * 1e9 * BYTES_PER_PARAMETER))


def choose_recipe(
    device: str,
    card: int,
    memory: int,
    free_disk: int,
    is_fetched: Callable[[str], bool] = lambda base: False,
    *,
    online: bool = True,
) -> Choice | None:
    """Choose the largest recipe for a machine.

    Args:
        device: the device type: `cpu`, `cuda`, `mps` …
        card: the accelerator's memory in bytes; 0 if there is none.
        memory: the free memory of the machine in bytes.
        free_disk: the free space for downloads in bytes.
        is_fetched: whether a base is downloaded already.
        online: whether others can be downloaded.

    Returns:
        None if not even the smallest recipe fits, or none whose base can be had.
    """
    if device == "cpu":
        fitting = [recipe for gibibytes, recipe in BY_MEMORY if memory >= gibibytes * GIB]
    else:
        fitting = [recipe for gigabytes, recipe in BY_CARD if card >= gigabytes * SOLD_AS * GIB]
        fitting = [recipe for recipe in fitting if device == "cuda" or not recipe.endswith("/qlora")]
        fitting += [recipe for gibibytes, recipe in BY_MEMORY[-1:] if memory >= gibibytes * GIB]
    choices = map(describe_recipe, fitting)
    space = free_disk if online else 0
    return next((choice for choice in choices if is_fetched(choice.base) or choice.download < space), None)
