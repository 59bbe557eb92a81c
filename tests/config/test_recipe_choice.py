"""The recipe for a machine: the sizes of the bases, and which is taken."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lrc.config.recipe_choice import BY_CARD, GIB, PARAMETERS, choose_recipe, describe_recipe

ROOT = Path(__file__).parents[2]
# Of each base's published configuration: words, width, layers, width of the MLP, heads, of them with keys, their width,
# and whether the head is the embedding.
SHAPES = {
    "breeze-7b": (61952, 4096, 32, 14336, 32, 8, 128, False),
    "chinese-alpaca-2-1.3b": (55296, 4096, 4, 11008, 32, 32, 128, False),
    "chinese-alpaca-2-7b": (55296, 4096, 32, 11008, 32, 32, 128, False),
    "chinese-alpaca-2-13b": (55296, 5120, 40, 13824, 40, 40, 128, False),
    "gemma-3-270m": (262144, 640, 18, 2048, 4, 1, 256, True),
    "gemma-3-1b": (262144, 1152, 26, 6912, 4, 1, 256, True),
    "llama-3-taide-8b": (128256, 4096, 32, 14336, 32, 8, 128, False),
    "llama-3-taiwan-8b": (128256, 4096, 32, 14336, 32, 8, 128, False),
    "llama-3-taiwan-70b": (128256, 8192, 80, 28672, 64, 8, 128, False),
    "minicpm5-1b": (130560, 1536, 24, 4608, 16, 2, 128, False),
    "qwen2.5-0.5b": (151936, 896, 24, 4864, 14, 2, 64, True),
    "qwen2.5-1.5b": (151936, 1536, 28, 8960, 12, 2, 128, True),
    "qwen3-0.6b": (151936, 1024, 28, 3072, 16, 8, 128, True),
    "qwen3-1.7b": (151936, 2048, 28, 6144, 16, 8, 128, True),
    "qwen3-4b": (151936, 2560, 36, 9728, 32, 8, 128, True),
    "qwen3-8b": (151936, 4096, 36, 12288, 32, 8, 128, False),
    "qwen3-14b": (151936, 5120, 40, 17408, 40, 8, 128, False),
    "qwen3-32b": (151936, 5120, 64, 25600, 64, 8, 128, False),
}
EVERYTHING = 10**15


@pytest.mark.parametrize("recipe", PARAMETERS)
def test_the_parameters_are_those_of_the_published_shapes(recipe: str) -> None:
    words, width, layers, inner, heads, keys, size, tied = SHAPES[recipe.partition("/")[0]]
    attention = width * size * (2 * heads + 2 * keys)
    counted = words * width * (1 if tied else 2) + layers * (attention + 3 * width * inner)
    assert PARAMETERS[recipe] * 1e9 == pytest.approx(counted, rel=0.02)


def test_every_shipped_recipe_has_its_size() -> None:
    shipped = {path.relative_to(ROOT / "recipes").with_suffix("").as_posix() for path in ROOT.glob("recipes/*/*.yaml")}
    assert shipped - {"tiny/lora", "outings/lora"} == PARAMETERS.keys()
    assert describe_recipe("qwen3-8b/qlora").base == "Qwen/Qwen3-8B-Base"


def test_the_page_names_the_same_recipe_for_a_card() -> None:
    page = (ROOT / "docs/choosing-a-base.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| (\d+) GB \| (`[^|]+`) \|", page, flags=re.MULTILINE)
    for gigabytes, recipe in BY_CARD:
        if of_card := [names for card, names in named if int(card) == gigabytes]:
            assert f"`{recipe}`" in " ".join(of_card)


@pytest.mark.parametrize(
    ("device", "card", "expected"),
    [
        ("cuda", 79.1, "qwen3-32b/lora"),
        ("cuda", 44.4, "qwen3-32b/qlora"),  # an L40S, sold with 48 GB
        ("cuda", 23.5, "qwen3-14b/qlora"),
        ("cuda", 14.6, "qwen3-8b/qlora"),  # a T4
        ("cuda", 11.6, "qwen3-8b/qlora"),
        ("cuda", 7.8, "qwen3-1.7b/lora"),
        ("cuda", 4.0, "qwen2.5-0.5b/lora"),
        ("mps", 11.8, "qwen3-1.7b/lora"),  # no 4 bits without CUDA
    ],
)
def test_a_card_gets_the_largest_that_it_holds(device: str, card: float, expected: str) -> None:
    choice = choose_recipe(device, round(card * GIB), 32 * GIB, EVERYTHING)
    assert choice is not None and choice.recipe == expected


@pytest.mark.parametrize(
    ("memory", "disk", "expected"),
    [
        (29, EVERYTHING, "qwen2.5-1.5b/lora"),  # a Kaggle notebook without an accelerator
        (29, 2 * 10**9, "qwen2.5-0.5b/lora"),
        (15, EVERYTHING, "qwen2.5-0.5b/lora"),
        (10, EVERYTHING, None),
    ],
)
def test_without_a_card_the_free_memory_decides(memory: int, disk: int, expected: str | None) -> None:
    choice = choose_recipe("cpu", 0, memory * GIB, disk)
    assert (choice and choice.recipe) == expected


def test_what_the_disk_cannot_take_is_not_chosen_unless_it_is_there() -> None:
    card = 24 * GIB
    smaller = choose_recipe("cuda", card, 32 * GIB, 20 * 10**9)
    assert smaller is not None and smaller.recipe == "qwen3-8b/qlora" and smaller.download < 20 * 10**9
    there = choose_recipe("cuda", card, 32 * GIB, 20 * 10**9, lambda base: base == "Qwen/Qwen3-14B-Base")
    assert there is not None and there.recipe == "qwen3-14b/qlora"
    assert choose_recipe("cuda", card, 32 * GIB, 10**8) is None


def test_without_a_connection_only_what_is_there_is_chosen() -> None:
    assert choose_recipe("cpu", 0, 32 * GIB, EVERYTHING, online=False) is None
    found = choose_recipe("cpu", 0, 32 * GIB, EVERYTHING, lambda base: base == "Qwen/Qwen2.5-0.5B", online=False)
    assert found is not None and found.recipe == "qwen2.5-0.5b/lora"  # the larger one would fit, and is not there


def test_a_small_machine_gets_none() -> None:
    assert choose_recipe("cpu", 0, 2 * GIB, EVERYTHING) is None
