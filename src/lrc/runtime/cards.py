"""The table of GPUs that lrc knows by name: memory, compute capability and throughput.

Memory is the capacity that torch reports, which is less than the nominal one; if reports differ (with the driver, or
with ECC on and off), the least is taken. The rate is the peak of dense 16-bit matrix products with float32
accumulation, as torch computes them, from the vendor's datasheet; if that states it for sparse matrices, half of it.
"computed" is 512 operations per clock for each multiprocessor of the consumer chips.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from lrc.runtime.errors import RecipeError
from lrc.runtime.translation import _, alternatives

GIB = 1024**3
AMPERE = (8, 0)  # the first compute capability with bfloat16, and with FlexAttention


@dataclass(frozen=True)
class Card:
    """A model of GPU.

    Args:
        name: as people write it.
        sold: nominal memory in GB.
        usable: GiB that torch reports.
        capability: CUDA's compute capability.
        rate: peak TFLOP/s of dense 16-bit products with float32 accumulation.
        source: of the rate.
    """

    name: str
    sold: int
    usable: float
    capability: tuple[int, int]
    rate: float
    source: str

    @property
    def memory(self) -> int:
        """Usable memory in bytes."""
        return int(self.usable * GIB)

    def supports(self, dtype: str) -> bool:
        """Whether it has units for `float32`, `float16` or `bfloat16`."""
        return dtype != "bfloat16" or self.capability >= AMPERE

    @property
    def about(self) -> str:
        """Memory, compute capability and 16-bit formats, in a line."""
        text = _("{memory:.2f} GiB, compute capability {capability}, float16, no bfloat16")
        if self.supports("bfloat16"):
            text = _("{memory:.2f} GiB, compute capability {capability}, bfloat16")
        return text.format(memory=self.usable, capability=".".join(map(str, self.capability)))


TURING = "NVIDIA Turing architecture whitepaper"
AMPERE_PAPER = "NVIDIA Ampere GA102 whitepaper"
ADA = "NVIDIA Ada architecture whitepaper"
CARDS = (
    Card("RTX 2060 6GB", 6, 5.79, (7, 5), 25.8, "computed, 30 multiprocessors at 1.68 GHz"),
    Card("RTX 2060 12GB", 12, 11.49, (7, 5), 28.7, "computed, 34 multiprocessors at 1.65 GHz"),
    Card("RTX 2080", 8, 7.6, (7, 5), 40.3, TURING),
    Card("RTX 2080 Ti", 11, 10.75, (7, 5), 53.8, TURING),
    Card("T4", 16, 14.56, (7, 5), 65.0, "NVIDIA T4 datasheet"),
    Card("V100 16GB", 16, 15.77, (7, 0), 112.0, "NVIDIA V100 datasheet, PCIe"),
    Card("V100 32GB", 32, 31.73, (7, 0), 112.0, "NVIDIA V100 datasheet, PCIe"),
    Card("RTX 3060", 12, 11.63, (8, 6), 25.5, "computed, 28 multiprocessors at 1.78 GHz"),
    Card("RTX 3080", 10, 9.77, (8, 6), 59.5, "computed, 68 multiprocessors at 1.71 GHz"),
    Card("RTX 3090", 24, 23.52, (8, 6), 71.0, AMPERE_PAPER),
    Card("A10", 24, 22.03, (8, 6), 125.0, "NVIDIA A10 datasheet"),
    Card("A40", 48, 44.34, (8, 6), 149.7, "NVIDIA A40 datasheet"),
    Card("RTX A6000", 48, 47.38, (8, 6), 154.8, "NVIDIA RTX A6000 datasheet"),
    Card("A100 40GB", 40, 39.38, (8, 0), 312.0, "NVIDIA A100 datasheet"),
    Card("A100 80GB", 80, 79.14, (8, 0), 312.0, "NVIDIA A100 datasheet"),
    Card("RTX 4060 Ti 16GB", 16, 15.55, (8, 9), 44.1, "computed, 34 multiprocessors at 2.535 GHz"),
    Card("RTX 4070", 12, 11.49, (8, 9), 58.3, "computed, 46 multiprocessors at 2.475 GHz"),
    Card("RTX 4090", 24, 23.52, (8, 9), 165.2, ADA),
    Card("L4", 24, 22.03, (8, 9), 121.0, "NVIDIA L4 datasheet"),
    Card("L40S", 48, 44.34, (8, 9), 362.0, "NVIDIA L40S datasheet"),
    Card("H100 PCIe", 80, 79.14, (9, 0), 756.0, "NVIDIA H100 datasheet"),
    Card("H100", 80, 79.14, (9, 0), 989.4, "NVIDIA H100 datasheet, SXM"),
    Card("RTX 5080", 16, 15.47, (12, 0), 112.6, "computed, 84 multiprocessors at 2.617 GHz"),
    Card("RTX 5090", 32, 31.36, (12, 0), 209.5, "computed, 170 multiprocessors at 2.407 GHz"),
    Card("H200", 141, 139.8, (9, 0), 989.4, "NVIDIA H200 datasheet"),
)
# Stands for a GPU of which nothing is known, except perhaps the memory.
ASSUMED = Card("a GPU", 0, 0.0, AMPERE, 0.0, "none")
SEVERAL = [r"(?P<count>\d+)\s*[x×*]\s*(?P<name>.+)", r"(?P<name>.+?)\s*[x×*]\s*(?P<count>\d+)"]
MOST = 64


def read_gpu(text: str) -> tuple[Card, int]:
    """Parse a GPU and its count: `T4`, `T4x2`, `2×T4`, `RTX 4090`, `a100-80gb`.

    Raises:
        RecipeError: no card, or several, have that name; or the count is out of range.
    """
    if card := card_of(text):
        return card, 1
    found = [match for form in SEVERAL if (match := re.fullmatch(form, text.strip(), re.IGNORECASE))]
    if not found:
        raise _unknown(text)
    name, count = found[0]["name"], int(found[0]["count"])
    if not (card := card_of(name)):
        raise _unknown(text)  # whole: RTX 6090 is no 6,090 cards called RT
    if not 1 <= count <= MOST:
        raise RecipeError(
            _("--gpu: {text} are {count} cards; give 1 to {most}").format(text=text, count=count, most=MOST)
        )
    return card, count


def card_of(name: str) -> Card | None:
    """The card of a name, as people or its driver write it; None if no card, or several, match."""
    wanted = _plain(name)
    cards = [card for card in CARDS if wanted in _names(card)]
    if not cards:  # drivers add the socket and the type of memory
        wanted = re.sub(r"sxm\d?|pcie|hbm\d\w?", "", wanted)
        cards = [card for card in CARDS if wanted in _names(card)]
    return cards[0] if len(cards) == 1 else None


def _names(card: Card) -> set[str]:
    plain = _plain(card.name)
    size = str(card.sold)
    return {plain, plain if plain.endswith(size) else plain + size}


def _plain(name: str) -> str:
    words = re.sub(r"nvidia|geforce|tesla|quadro|rtx|gb\b|[\s_-]", " ", name.lower()).split()
    return "".join(words)


def _nearest(name: str) -> list[str]:
    """The cards of which `name` begins the name, or else those that have its number, or look alike."""
    plain = {_plain(card.name): card.name for card in CARDS}
    wanted = _plain(name)
    if begun := [plain[one] for one in plain if wanted and one.startswith(wanted)]:
        return begun
    numbered = [card.name for card in CARDS if _numbers(name) & _numbers(card.name)]
    numbered.sort(key=lambda card: difflib.SequenceMatcher(None, wanted, _plain(card)).ratio(), reverse=True)
    alike = difflib.get_close_matches(wanted, plain, 3, cutoff=0.7)
    return list(dict.fromkeys([*numbered, *(plain[one] for one in alike)]))[:3]


def _numbers(name: str) -> set[str]:
    """The numbers in a name, such as 3090, without its memory."""
    return set(re.findall(r"\d{2,}(?!\d|\s*gb)", name.lower()))


def _unknown(name: str) -> RecipeError:
    near = _nearest(name)
    text = _("--gpu: {name} is not in the table of cards; it has {known}. For others give --gpu-memory 16GB")
    if near:
        text = _("--gpu: {name} is not in the table of cards; did you mean {near}? For others give --gpu-memory 16GB")
    known = tuple(card.name for card in CARDS)
    return RecipeError(
        text.format(name=repr(name), near=alternatives(near or known, _("{words} or {last}")), known=known)
    )
