"""Cards by the names that people and drivers give them."""

from __future__ import annotations

import pytest

from lrc.runtime.cards import CARDS, card_of, read_gpu
from lrc.runtime.devices import instead, why_not
from lrc.runtime.errors import RecipeError


@pytest.mark.parametrize(
    ("text", "name", "count"),
    [
        ("T4", "T4", 1),
        ("t4x2", "T4", 2),
        ("T4×2", "T4", 2),
        ("2 x RTX 3090", "RTX 3090", 2),
        ("rtx4090x8", "RTX 4090", 8),
        ("4060ti-16gb", "RTX 4060 Ti 16GB", 1),
        ("RTX 5090", "RTX 5090", 1),
        ("2080Ti", "RTX 2080 Ti", 1),
        ("RTX 2080", "RTX 2080", 1),
        ("a100-80gb", "A100 80GB", 1),
        ("A100 40GB*4", "A100 40GB", 4),
        ("L4", "L4", 1),
        ("h100", "H100", 1),
    ],
)
def test_names_that_people_write(text: str, name: str, count: int) -> None:
    card, cards = read_gpu(text)
    assert (card.name, cards) == (name, count)


@pytest.mark.parametrize(
    ("driver", "name"),
    [
        ("Tesla T4", "T4"),
        ("NVIDIA GeForce RTX 2080 Ti", "RTX 2080 Ti"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("NVIDIA A100-SXM4-80GB", "A100 80GB"),
        ("NVIDIA A100-PCIE-40GB", "A100 40GB"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("Tesla V100-SXM2-16GB", "V100 16GB"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA GeForce GTX 1080 Ti", None),
    ],
)
def test_names_that_drivers_give(driver: str, name: str | None) -> None:
    card = card_of(driver)
    assert (card and card.name) == name


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("A100", "did you mean A100 40GB or A100 80GB? For others give --gpu-memory 16GB"),
        ("T4x0", "--gpu: T4x0 are 0 cards; give 1 to 64"),
        ("T4x65", "65 cards"),
        ("Radeon", "'Radeon' is not in the table of cards"),
        ("RTX 6090", "--gpu: 'RTX 6090' is not in the table of cards; did you mean RTX "),
        ("3090ti", "did you mean RTX 3090"),
        ("NVIDIA H100 NVL", "did you mean H100, H100 PCIe or V100 16GB"),
        ("NVIDIA GeForce RTX 4070 Ti", "did you mean RTX 4070"),
        ("rtx 2060 super", "'rtx 2060 super' is not in the table of cards; did you mean RTX 2060 6GB or RTX 2060 12GB"),
        ("4060 ti 8gb", "'4060 ti 8gb' is not in the table of cards; did you mean RTX 4060 Ti 16GB"),
        ("MI300X", "'MI300X' is not in the table of cards; it has RTX 2060 6GB, "),
        ("M2", "'M2' is not in the table of cards; it has RTX 2060 6GB, "),
        ("T9x2", "'T9x2' is not in the table of cards; "),
        ("7x", "'7x' is not in the table"),
    ],
)
def test_names_that_mean_no_card(text: str, told: str) -> None:
    with pytest.raises(RecipeError) as refused:
        read_gpu(text)
    assert told in refused.value.lines()[0] and "\n" not in refused.value.lines()[0]


def test_each_name_means_its_own_card() -> None:
    for card in CARDS:
        assert read_gpu(card.name) == (card, 1)
        assert 0.8 * card.sold < card.usable < card.sold and card.source


@pytest.mark.parametrize(
    ("name", "asked", "family", "taken"),
    [
        ("T4", "bfloat16", "qwen3", "float16"),  # sm_75
        ("V100 32GB", "bfloat16", "llama", "float16"),
        ("T4", "float16", "llama", "float16"),
        ("T4", "bfloat16", "gemma3_text", "float32"),  # which overflows float16
        ("A100 40GB", "bfloat16", "qwen3", "bfloat16"),  # sm_80
        ("H100", "float16", "gemma3_text", "bfloat16"),  # sm_90
        ("H100", "float32", "qwen3", "float32"),
    ],
)
def test_formats(name: str, asked: str, family: str, taken: str) -> None:
    card = card_of(name)
    assert card is not None
    found = instead(asked, "cuda", family, card) if why_not(asked, "cuda", family, card) else asked
    assert found == taken
