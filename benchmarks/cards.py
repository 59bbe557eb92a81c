"""Which recipe for which card: memory and speed as `lrc preview --gpu` computes them, beside what was measured.

    python benchmarks/cards.py [--write] [--only RECIPE@CARD …]

Prints a table; `--write` puts it into docs/results.md, and lines about it into the headers of the recipes. Bases are
not fetched: their shapes, as their publishers' config.json has them, are here.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results.md"
BEGIN, END = "<!-- cards: written by benchmarks/cards.py --write -->", "<!-- cards: end -->"
# The reference workbook, with the unique tokens that its packed rows have.
QUESTIONS, TOKENS = 13_549, 1_900_000
HEADER = "# Computed by benchmarks/cards.py, unverified on these cards:"
TRIED = "# Computed by benchmarks/cards.py; docs/results.md has what was measured on these cards:"
CONTINUED = "#   "
BLOCK = re.compile(rf"(?:{re.escape(HEADER)}|{re.escape(TRIED)})\n(?:{CONTINUED}\S.*? tokens a second\n)*")
# The line of a header on what a recipe takes on whichever card, in GiB.
MEMORY = re.compile(r"# Memory, computed for rows of .*? GiB,\n")
PLANNERS: dict[str, Any] = {}


def llama(hidden: int, inner: int, layers: int, heads: int, **more: Any) -> dict[str, Any]:
    """A Llama's config.json."""
    shape = {"hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers}
    shape |= {"num_attention_heads": heads, "vocab_size": 55296, "max_position_embeddings": 4096, "dtype": "float16"}
    return {"model_type": "llama", "architectures": ["LlamaForCausalLM"], **shape, **more}


def qwen3(hidden: int, inner: int, layers: int, heads: int, *, tied: bool = False) -> dict[str, Any]:
    """A Qwen3's config.json."""
    shape = {"num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936, "max_position_embeddings": 32768}
    kind = {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "tie_word_embeddings": tied}
    return llama(hidden, inner, layers, heads) | shape | kind | {"dtype": "bfloat16"}


def llama3(hidden: int, inner: int, layers: int, heads: int) -> dict[str, Any]:
    """A Llama 3's config.json."""
    shape = {"num_key_value_heads": 8, "head_dim": 128, "vocab_size": 128256, "max_position_embeddings": 8192}
    return llama(hidden, inner, layers, heads) | shape | {"dtype": "bfloat16"}


def mistral(hidden: int, inner: int, layers: int, heads: int, *, vocabulary: int) -> dict[str, Any]:
    """A Mistral's config.json, without a sliding window."""
    shape = {"num_key_value_heads": 8, "vocab_size": vocabulary, "max_position_embeddings": 32768}
    kind = {"model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": None}
    return llama(hidden, inner, layers, heads) | shape | kind | {"dtype": "bfloat16"}


def qwen2(hidden: int, inner: int, layers: int, heads: int) -> dict[str, Any]:
    """The config.json of a small Qwen2.5."""
    shape = {"num_key_value_heads": 2, "vocab_size": 151936, "max_position_embeddings": 32768}
    kind = {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "tie_word_embeddings": True}
    return llama(hidden, inner, layers, heads) | shape | kind | {"dtype": "bfloat16"}


def gemma3(hidden: int, inner: int, layers: int, heads: int) -> dict[str, Any]:
    """The config.json of a Gemma 3 without images."""
    shape = {"num_key_value_heads": 1, "head_dim": 256, "vocab_size": 262144, "max_position_embeddings": 32768}
    kind = {"model_type": "gemma3_text", "architectures": ["Gemma3ForCausalLM"], "sliding_window": 512}
    return llama(hidden, inner, layers, heads) | shape | kind | {"dtype": "bfloat16", "tie_word_embeddings": True}


SHAPES = {
    "chinese-alpaca-2-13b/qlora": llama(5120, 13824, 40, 40),
    "qwen2.5-0.5b/lora": qwen2(896, 4864, 24, 14),
    "qwen2.5-1.5b/lora": qwen2(1536, 8960, 28, 12),
    "qwen3-0.6b/lora": qwen3(1024, 3072, 28, 16, tied=True),
    "qwen3-1.7b/lora": qwen3(2048, 6144, 28, 16, tied=True),
    "qwen3-8b/qlora": qwen3(4096, 12288, 36, 32),
    "qwen3-14b/qlora": qwen3(5120, 17408, 40, 40),
    "qwen3-32b/qlora": qwen3(5120, 25600, 64, 64),
    "qwen3-32b/lora": qwen3(5120, 25600, 64, 64),
    "qwen3-4b/lora": qwen3(2560, 9728, 36, 32, tied=True),
    "qwen3-8b/lora": qwen3(4096, 12288, 36, 32),
    "qwen3-14b/lora": qwen3(5120, 17408, 40, 40),
    "llama-3-taiwan-8b/lora": llama3(4096, 14336, 32, 32),
    "llama-3-taiwan-8b/qlora": llama3(4096, 14336, 32, 32),
    "llama-3-taiwan-70b/qlora": llama3(8192, 28672, 80, 64),
    "llama-3-taide-8b/qlora": llama3(4096, 14336, 32, 32),
    "breeze-7b/qlora": mistral(4096, 14336, 32, 32, vocabulary=61952),
    "chinese-alpaca-2-7b/qlora": llama(4096, 11008, 32, 32),
    "chinese-alpaca-2-1.3b/qlora": llama(4096, 11008, 4, 32),
    "gemma-3-1b/lora": gemma3(1152, 6912, 26, 4),
}
# What people have, and the recipe that `lrc doctor` and `lrc run` choose there; the reference run's beside it.
PAIRS = [
    ("qwen3-0.6b/lora", "RTX 2060 6GB"),
    ("qwen3-1.7b/lora", "RTX 2080"),
    ("qwen3-8b/qlora", "RTX 2080 Ti"),
    ("chinese-alpaca-2-13b/qlora", "RTX 2060 12GB"),
    ("qwen3-8b/qlora", "RTX 2060 12GB"),
    ("qwen3-8b/qlora", "T4"),
    ("qwen3-8b/qlora", "T4x2"),
    ("qwen3-14b/qlora", "L4"),
    ("qwen3-14b/qlora", "RTX 3090"),
    ("qwen3-14b/qlora", "RTX 4090"),
    ("qwen3-14b/qlora", "A100 40GB"),
    ("qwen3-32b/qlora", "L40S"),
    ("qwen3-32b/lora", "A100 80GB"),
    ("qwen3-32b/lora", "H100"),
    ("chinese-alpaca-2-13b/qlora", "H100"),
    ("qwen2.5-0.5b/lora", "H100"),
    ("qwen2.5-1.5b/lora", "H100"),
    # The other recipes, each on a card of the size that its header names.
    ("chinese-alpaca-2-1.3b/qlora", "RTX 2080"),
    ("chinese-alpaca-2-7b/qlora", "RTX 2060 12GB"),
    ("gemma-3-1b/lora", "RTX 3060"),
    ("qwen3-4b/lora", "RTX 3060"),
    ("breeze-7b/qlora", "RTX 3060"),
    ("breeze-7b/qlora", "T4"),
    ("llama-3-taide-8b/qlora", "RTX 3060"),
    ("llama-3-taide-8b/qlora", "T4"),
    ("llama-3-taiwan-8b/qlora", "RTX 3060"),
    ("qwen3-8b/qlora", "RTX 3060"),
    ("llama-3-taiwan-8b/lora", "RTX 4090"),
    ("qwen3-8b/lora", "RTX 4090"),
    ("qwen3-14b/lora", "L40S"),
    ("llama-3-taiwan-70b/qlora", "H100"),
]
# GiB allocated at the peak, unique tokens a second, and the accuracy: "On a GPU" says of what. An H100 with the memory
# of another card has its peak, where that card computes in the same way, and not its speed.
MEASURED: dict[tuple[str, str], tuple[float, int | None, str | None]] = {
    **{("qwen3-14b/qlora", card): (12.78, None, None) for card in ("L4", "RTX 3090", "RTX 4090", "A100 40GB")},
    **{("qwen3-8b/qlora", card): (8.2, None, None) for card in ("RTX 3060",)},
    **{("llama-3-taiwan-8b/lora", card): (17.73, None, None) for card in ("RTX 4090",)},
    ("qwen3-32b/qlora", "L40S"): (23.4, None, None),
    ("qwen3-32b/lora", "A100 80GB"): (65.63, None, None),
    ("qwen3-32b/lora", "H100"): (65.63, 1000, None),
    ("chinese-alpaca-2-13b/qlora", "H100"): (8.62, 1860, None),
    ("qwen2.5-0.5b/lora", "H100"): (4.3, None, "0.859 (3,200 questions, 3 min 29 s)"),
    ("qwen2.5-1.5b/lora", "H100"): (6.8, None, "0.916 (1,920 questions, 3 min 28 s)"),
}
TRIED_ON = "H100"
FOR_CPUS = {"qwen2.5-0.5b/lora", "qwen2.5-1.5b/lora"}  # whose headers name no cards


@dataclass(frozen=True)
class Line:
    """One recipe on one card."""

    recipe: str
    card: str
    needed: float  # GiB, with the overhead
    has: float  # GiB
    speed: float | None  # unique tokens a second, of all cards

    @property
    def minutes(self) -> float | None:
        """Of an epoch of the reference workbook."""
        return None if self.speed is None else TOKENS / self.speed / 60

    @property
    def tried(self) -> bool:
        """Whether the recipe was run on the card itself."""
        return self.card == TRIED_ON and (self.recipe, self.card) in MEASURED

    def __str__(self) -> str:
        peak, reached, accuracy = MEASURED.get((self.recipe, self.card), (None, None, None))
        fits = "" if self.needed <= self.has else ", **does not fit**"
        cells = [
            f"`{self.recipe}`",
            self.card,
            f"{self.needed:.1f} of {self.has:.1f}{fits}",
            _number(self.speed),
            _number(self.minutes),
            "—" if peak is None else f"{peak:.4g}",
            _number(reached),
            accuracy or "—",
        ]
        return f"| {' | '.join(cells)} |"


def _number(value: float | None) -> str:
    return "—" if value is None else f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def main() -> None:
    """Compute, print, and write where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--only", nargs="+", default=[], metavar="RECIPE@CARD")
    flags = parser.parse_args()
    if flags.write and flags.only:
        parser.error("--write needs all lines; leave --only out")
    pairs = [pair for pair in PAIRS if not flags.only or "@".join(pair) in flags.only]
    lines = []
    for recipe, card in pairs:
        lines.append(compute(recipe, card))
        print(lines[-1], flush=True)
    if flags.write:
        write(RESULTS, between(RESULTS.read_text(encoding="utf-8"), table(lines)))
        for recipe in SHAPES.keys() - FOR_CPUS:
            path = ROOT / "recipes" / f"{recipe}.yaml"
            text = with_header(path.read_text(encoding="utf-8"), [one for one in lines if one.recipe == recipe])
            write(path, MEMORY.sub(memory_line(recipe), text) if MEMORY.search(text) else text)


def compute(recipe: str, card: str) -> Line:
    """Ask `lrc preview RECIPE --gpu CARD`."""
    found = preview(recipe, card)
    needed = found["memory"]["total"] / 1024**3
    return Line(recipe, card, needed, found["card"]["usable"], found["computed_tokens_a_second"])


def preview(recipe: str, card: str, shape: dict[str, Any] | None = None) -> dict[str, Any]:
    """What `lrc preview RECIPE --gpu CARD --json` prints, of a base of this shape; by default the recipe's own."""
    from lrc.commands import preview as command
    from lrc.preview.memory_plan import Planner

    planner = Planner() if shape else PLANNERS.setdefault(recipe, Planner())  # counts once for all cards of a kind
    told, again = io.StringIO(), patch.object(command, "Planner", lambda: planner)
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(told), redirect_stderr(io.StringIO()), again:
        (Path(folder) / "config.json").write_text(json.dumps(shape or SHAPES[recipe]), encoding="utf-8")
        overrides = ["--model_name_or_path", folder, "--train_file", f"{folder}/none.json"]
        overrides += ["--validation_file", f"{folder}/none.json"]
        command.preview(recipe, None, overrides, gpu=card, as_json=True)
    found: dict[str, Any] = json.loads(told.getvalue())
    return found


def memory_line(recipe: str) -> str:
    """What a header says of the memory, without what CUDA and the allocator take."""
    from lrc.config.recipe import find_recipe
    from lrc.config.yaml_reader import read_mapping

    found = preview(recipe, "H100")["memory"]["parts"]
    sums = [["weights"], ["adapter", "gradients", "optimizer"], ["activations", "logits"]]
    weights, trained, running = (sum(found[name] for name in names) / 1024**3 for names in sums)
    return (
        f"# Memory, computed for rows of {read_mapping(find_recipe(recipe)).values['row_tokens']} tokens: weights "
        f"{weights:.1f}, adapter, gradients, AdamW {trained:.1f}, activations {running:.1f}; "
        f"{weights + trained + running:.1f} GiB,\n"
    )


def table(lines: Sequence[Line]) -> str:
    """All lines for docs/results.md."""
    columns = ["recipe", "card", "computed: GiB, with the allocator's and CUDA's"]
    columns += ["computed: unique tokens a second", f"computed: minutes an epoch of {QUESTIONS:,} questions"]
    columns += ["measured: GiB allocated", "measured: unique tokens a second", "measured: accuracy"]
    head = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    return "\n".join([*head, *map(str, lines)])


def between(text: str, inner: str) -> str:
    """The page with another table."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{inner}\n{END}{after}"


def with_header(text: str, lines: Sequence[Line]) -> str:
    """The recipe with other lines about its cards, in front of the launch command of its header."""
    kept = BLOCK.sub("", text)
    place = kept.index("#\n")
    told = ""
    for head, tried in ((HEADER, False), (TRIED, True)):
        mine = [about(line) for line in lines if line.tried == tried]
        told += "".join(f"{part}\n" for part in [head, *(CONTINUED + one for one in mine)]) if mine else ""
    return f"{kept[:place]}{told}{kept[place:]}"


def about(line: Line) -> str:
    """A line of a recipe's header."""
    speed = "nothing known of" if line.speed is None else _number(line.speed)
    return f"{line.card}: {line.needed:.1f} of {line.has:.1f} GiB, {speed} unique tokens a second"


def headers(text: str) -> Iterator[str]:
    """The lines about cards in a recipe."""
    for found in BLOCK.finditer(text):
        yield from (line.removeprefix(CONTINUED) for line in found[0].splitlines()[1:])


def write(path: Path, text: str) -> None:
    """Write where something is new."""
    if path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
