"""The table of recipes by card in docs/results.md, and the recipes' headers, are what benchmarks/cards.py computes."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from lrc.config.recipe import find_recipe
from lrc.config.recipe_choice import BY_CARD, PARAMETERS, choose_recipe
from lrc.config.yaml_reader import read_mapping
from lrc.runtime.cards import read_gpu

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "results.md"


@pytest.fixture(scope="module")
def cards() -> ModuleType:
    spec = importlib.util.spec_from_file_location("cards", ROOT / "benchmarks" / "cards.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["cards"] = module  # for its dataclass
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def lines(cards: ModuleType) -> dict[tuple[str, str], list[str]]:
    """The cells behind recipe and card."""
    inner = PAGE.read_text(encoding="utf-8").partition(cards.BEGIN)[2].partition(cards.END)[0]
    cells = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in inner.strip().splitlines()[2:]]
    return {(one[0].strip("`"), one[1]): one[2:] for one in cells}


def test_the_table_has_what_is_to_be_in_it(cards: ModuleType, lines: dict[tuple[str, str], list[str]]) -> None:
    assert list(lines) == cards.PAIRS
    assert not [pair for pair, cells in lines.items() if "does not fit" in cells[0]]


def test_measured_is_what_was_measured(cards: ModuleType, lines: dict[tuple[str, str], list[str]]) -> None:
    for pair, cells in lines.items():
        measured = cards.MEASURED.get(pair)
        peak, rate, accuracy = measured or (None, None, None)
        assert cells[3:] == [f"{peak:.4g}" if peak else "—", f"{rate:,}" if rate else "—", accuracy or "—"]
    page = " ".join(PAGE.read_text(encoding="utf-8").split())
    assert "8.62 GiB allocated at the peak" in page and "1,860 to 1,960 unique tokens a second" in page
    for (recipe, _card), (peak, rate, accuracy) in cards.MEASURED.items():
        if accuracy:  # of a row with the questions, the time, the peak in GB and the accuracy
            right, questions, taken = re.fullmatch(r"([\d.]+) \(([\d,]+) questions, (.+)\)", accuracy).groups()
            (row,) = re.findall(rf"`{recipe}[^|]*seed 21`\**\s*\| ({questions} \|[^|]*\|[^|]*\|[^|]*)\|", page)
            assert f"| {taken} | " in row and f"{right} (" in row
            assert peak == pytest.approx(float(re.search(r"\| ([\d.]+) GB", row)[1]) * 1e9 / 1024**3, abs=0.06)
        elif recipe != "chinese-alpaca-2-13b/qlora":
            row = rf"\| `{recipe}` \| [\d.]+ GiB \| [\d,]+ \| {peak:.2f} GiB \| [\d.]+ \| [\d.]+ GiB \| ([\d,]+) \|"
            assert (found := re.search(row, page)) and (rate is None or found[1] == f"{rate:,}"), recipe


@pytest.mark.parametrize("pair", [("qwen3-1.7b/lora", "RTX 2080"), ("qwen3-8b/qlora", "T4")], ids="@".join)
def test_the_table_is_current(
    pair: tuple[str, str], cards: ModuleType, lines: dict[tuple[str, str], list[str]]
) -> None:
    found = str(cards.compute(*pair))
    assert [cell.strip() for cell in found.strip("| ").split(" | ")][2:] == lines[pair]


def test_speeds_by_hand(cards: ModuleType, lines: dict[tuple[str, str], list[str]]) -> None:
    """0.26 of the card's rate in rows of 4,096, 0.12 in rows of 1,280 and less; 6 operations a weight of the layers."""
    for (recipe, name), cells in lines.items():
        shape, (card, count) = cards.SHAPES[recipe], read_gpu(name)
        hidden, inner, heads = shape["hidden_size"], shape["intermediate_size"], shape["num_attention_heads"]
        width, shared = shape.get("head_dim", hidden // heads), shape.get("num_key_value_heads", heads)
        layer = 2 * hidden * width * (heads + shared) + 3 * hidden * inner
        keys = read_mapping(find_recipe(recipe)).values
        share = 0.12 + 0.14 * (min(max(keys.get("row_tokens", 4096), 1280), 4096) - 1280) / (4096 - 1280)
        operations = (6 if keys.get("gradient_checkpointing") else 4) * layer * shape["num_hidden_layers"]
        speed = count * share * card.rate * 1e12 / operations
        assert float(cells[1].replace(",", "")) == pytest.approx(speed, rel=0.01), (recipe, name)
        assert float(cells[2].replace(",", "")) == pytest.approx(1.9e6 / speed / 60, rel=0.05)


def test_headers_say_the_same(cards: ModuleType, lines: dict[tuple[str, str], list[str]]) -> None:
    for recipe in cards.SHAPES.keys() - cards.FOR_CPUS:
        text = (ROOT / "recipes" / f"{recipe}.yaml").read_text(encoding="utf-8")
        wanted = [
            f"{card}: {cells[0]} GiB, {cells[1]} unique tokens a second"
            for (name, card), cells in lines.items()
            if name == recipe
        ]
        assert sorted(cards.headers(text)) == sorted(wanted) and "unverified" in cards.HEADER
        tried = (recipe, "H100") in cards.MEASURED
        assert text.partition(cards.TRIED)[2].count("\n#   H100: ") == tried == text.count(cards.TRIED)


def test_the_shapes_have_the_parameters_of_the_bases(cards: ModuleType) -> None:
    for recipe, shape in cards.SHAPES.items():
        hidden, inner, heads = shape["hidden_size"], shape["intermediate_size"], shape["num_attention_heads"]
        width, shared = shape.get("head_dim", hidden // heads), shape.get("num_key_value_heads", heads)
        layer = 2 * hidden * width * (heads + shared) + 3 * hidden * inner
        tables = (1 if shape.get("tie_word_embeddings") else 2) * shape["vocab_size"] * hidden
        found = layer * shape["num_hidden_layers"] + tables
        assert found / 1e9 == pytest.approx(PARAMETERS[recipe], rel=0.01), recipe


def test_doctor_chooses_a_recipe_that_is_in_the_table(lines: dict[tuple[str, str], list[str]]) -> None:
    """On every card of the table: the recipe that is chosen by its memory is one that was computed for it."""
    for name in {card for _, card in lines}:
        card, _ = read_gpu(name)
        choice = choose_recipe("cuda", card.memory, 64 * 1024**3, 500 * 1024**3)
        assert choice is not None and (choice.recipe, name) in lines, name
    assert {recipe for _, recipe in BY_CARD} <= {recipe for recipe, _ in lines}


def test_a_recipe_is_given_its_header_once(cards: ModuleType) -> None:
    line = cards.Line("a/b", "T4", 10.25, 14.56, 405.6)
    text = "# A recipe.\n#\n#   accelerate launch\n\nlora_r: 4\n"
    once = cards.with_header(text, [line])
    assert once.splitlines()[1:3] == [cards.HEADER, "#   T4: 10.2 of 14.6 GiB, 406 unique tokens a second"]
    assert cards.with_header(once, [line]) == once
    assert re.sub(r"# Computed.*\n#   T4.*\n", "", once) == text


# The shapes of bases whose recipes state their memory in a line of their own: hidden, inner, layers, heads, vocabulary.
OTHERS = {
    "llama-3-taiwan-8b/lora": (4096, 14336, 32, 32, 128256),
    "llama-3-taiwan-8b/qlora": (4096, 14336, 32, 32, 128256),
    "llama-3-taiwan-70b/qlora": (8192, 28672, 80, 64, 128256),
    "qwen3-4b/lora": (2560, 9728, 36, 32, 151936),
    "qwen3-8b/lora": (4096, 12288, 36, 32, 151936),
    "qwen3-14b/lora": (5120, 17408, 40, 40, 151936),
    "qwen3-8b/qlora": (4096, 12288, 36, 32, 151936),
    "qwen3-14b/qlora": (5120, 17408, 40, 40, 151936),
    "qwen3-32b/qlora": (5120, 25600, 64, 64, 151936),
    "qwen3-32b/lora": (5120, 25600, 64, 64, 151936),
}
STATED = re.compile(
    r"# Memory, computed for rows of (\d+) tokens: weights ([\d.]+), adapter, gradients, AdamW ([\d.]+), activations "
    r"([\d.]+); ([\d.]+) GiB"
)


def test_every_recipe_that_states_its_memory_is_checked() -> None:
    """By hand, below."""
    stating = {path for path in (ROOT / "recipes").rglob("*.yaml") if "# Memory, computed for rows" in path.read_text()}
    assert {f"{path.parent.name}/{path.stem}" for path in stating} == OTHERS.keys()


@pytest.mark.parametrize("recipe", OTHERS)
def test_the_memory_in_a_header_by_hand(
    recipe: str, cards: ModuleType, lines: dict[tuple[str, str], list[str]]
) -> None:
    """8 heads of keys, heads of width 128; NF4 has a scale for 64 weights, in 8 bits if nested, in blocks of 256.

    Of the activations, two layers are computed, and of each further one what gradient checkpointing keeps.
    """
    hidden, inner, layers, heads, vocabulary = OTHERS[recipe]
    text = (ROOT / "recipes" / f"{recipe}.yaml").read_text(encoding="utf-8")
    found = STATED.search(" ".join(line.removeprefix("# ") if i else line for i, line in _comment(text)))
    keys = read_mapping(find_recipe(recipe)).values
    assert found and int(found[1]) == keys["row_tokens"]
    shapes = [(hidden, 128 * heads), (hidden, 1024), (hidden, 1024), (128 * heads, hidden), *3 * [(hidden, inner)]]
    four = 0.5 + (1 + 4 / 256) / 64 if keys.get("use_bnb_nested_quant") else 0.5625
    each = four if keys.get("load_in_4bit") else 2
    tables = 1 if recipe == "qwen3-4b/lora" else 2  # tied
    weights = layers * sum(a * b for a, b in shapes) * each + tables * vocabulary * hidden * 2
    trained = layers * sum(a + b for a, b in shapes) * keys["lora_r"]
    assert float(found[2]) == pytest.approx(weights / 1024**3, abs=0.06)
    assert float(found[3]) == pytest.approx(trained * 16 / 1024**3, abs=0.06)
    two = cards.preview(recipe, "H100", {**cards.SHAPES[recipe], "num_hidden_layers": 2})["memory"]["parts"]
    running = two["activations"] + two["logits"] + (layers - 2) * keys["row_tokens"] * hidden * 2
    assert keys["gradient_checkpointing"] and float(found[4]) == pytest.approx(running / 1024**3, abs=0.06)
    assert float(found[5]) == pytest.approx((weights + trained * 16 + running) / 1024**3, abs=0.06)
    for (name, card), cells in lines.items():  # which count what CUDA and the allocator take, a GiB and a quarter
        if name == recipe and read_gpu(card)[1] == 1:
            assert float(cells[0].split()[0]) == pytest.approx(float(found[5]) + 1.25, abs=0.11)


def _comment(text: str) -> list[tuple[int, str]]:
    """The lines of a recipe's header from the one about memory on, numbered."""
    lines = text[text.index("# Memory, computed") :].partition("\n#\n")[0].splitlines()
    return list(enumerate(lines))
