"""Which shipped recipe suits a machine: the largest base that its card holds and its disk takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lrc.config.recipe import find_recipe
from lrc.config.yaml_reader import read_mapping

GIB = 1024**3
SOLD_AS = 0.9  # of the gigabytes that a card is sold by, at least so many GiB are there for programs
BYTES_A_PARAMETER = 2  # on the Hub, where these bases are stored in 16 bits
EMBEDDED = "tiny/lora"  # its base is made on the spot

# Parameters of each recipe's base, in billions, as its publisher states them.
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
# The card that a recipe is for, in the gigabytes that it is sold by, the largest first; 4 bits need CUDA.
BY_CARD = [
    (80, "qwen3-32b/lora"),
    (48, "qwen3-32b/qlora"),
    (24, "qwen3-14b/qlora"),
    (11, "qwen3-8b/qlora"),
    (8, "qwen3-1.7b/lora"),
    (6, "qwen3-0.6b/lora"),
]
WITHOUT_CARD = "qwen2.5-0.5b/lora"
MEMORY_WITHOUT_CARD = 8 * GIB  # for WITHOUT_CARD: weights are 1 GB, its activations and what malloc keeps the most


@dataclass(frozen=True)
class Choice:
    """A shipped recipe, and what its base asks of the disk.

    Args:
        recipe: its name.
        base: the base's name on the Hub.
        download: bytes, computed from the number of parameters.
    """

    recipe: str
    base: str
    download: int


def choice_of(recipe: str) -> Choice:
    """What a shipped recipe asks for."""
    base = str(read_mapping(find_recipe(recipe)).values["model_name_or_path"])
    return Choice(recipe, base, round(PARAMETERS[recipe] * 1e9 * BYTES_A_PARAMETER))


def choose_recipe(
    device: str, card: int, memory: int, free_disk: int, is_fetched: Callable[[str], bool] = lambda base: False
) -> Choice | None:
    """The largest recipe for a machine; None where not even the smallest fits.

    Args:
        device: `cpu`, `cuda`, `mps` …
        card: bytes of the accelerator's memory; 0 without one.
        memory: bytes that are free in the machine's own.
        free_disk: bytes where downloads go.
        is_fetched: whether a base lies there already.
    """
    for gigabytes, recipe in BY_CARD if device != "cpu" else []:
        choice = choice_of(recipe)
        room = is_fetched(choice.base) or choice.download < free_disk
        if card >= gigabytes * SOLD_AS * GIB and room and (device == "cuda" or not recipe.endswith("/qlora")):
            return choice
    smallest = choice_of(WITHOUT_CARD)
    fits = memory >= MEMORY_WITHOUT_CARD and (is_fetched(smallest.base) or smallest.download < free_disk)
    return smallest if fits else None
