"""Write docs/accuracy.svg and docs/accuracy.zh-TW.svg, the README's picture, with the charts of `lrc report`.

    python docs/build_accuracy_chart.py

The figures are rows of the accuracy table of results.md, and are read there.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from lrc.reporting.charts import SVG, by_group

HERE = Path(__file__).parent
# A bar's label, and how its row of results.md begins.
BARS = {
    "best\nrule\nno model": "best baseline without a model",
    "Gemma\n270M\nbefore": "untrained, as texts",
    "Gemma\n270M\nafter": "contrast, 3,200 questions",
    "Qwen\n0.5B\nafter": "**Qwen2.5-Coder-0.5B, `judge`, 3,200 questions, the recipe",
    "Qwen\n1.5B\nafter": "**Qwen2.5-Coder-1.5B, `judge`, 992 questions**",
}
CHINESE = {"best": "最佳", "rule": "規則", "no model": "不用模型", "before": "訓練前", "after": "訓練後"}
TITLE = "Accuracy on 1,000 questions about passages that were not trained on"
STYLE = """
svg { color: #1f2328; --grid: #8c959f; --first: #0969da; --second: #9a6700; font-family: system-ui, sans-serif; }
@media (prefers-color-scheme: dark) { svg { color: #e6edf3; --grid: #6e7681; --first: #58a6ff; --second: #d29922; } }
"""


def figures() -> dict[str, dict[str, float]]:
    """Accuracy and interval of each bar, from results.md."""
    page = (HERE / "results.md").read_text(encoding="utf-8")
    return {label: _row(page, start) for label, start in BARS.items()}


def _row(page: str, start: str) -> dict[str, float]:
    found = re.search(rf"^\| {re.escape(start)}[^|]*\| \**([\d.]+)\** \| ([\d.]+)–([\d.]+)", page, flags=re.MULTILINE)
    if found is None:
        raise ValueError(f"results.md: no row {start!r} with an accuracy and its interval")
    return dict(zip(("accuracy", "ci_low", "ci_high"), map(float, found.groups()), strict=True))


def build(chinese: bool) -> str:
    """The picture, which is read aloud by its title and description."""
    shown: Any = figures()
    root = ElementTree.fromstring(by_group("accuracy", shown))
    for name in ("aria-hidden", "focusable"):
        root.attrib.pop(name, None)
    root.attrib |= {"role": "img", "width": "560", "aria-labelledby": "title desc"}
    spoken = "; ".join(
        f"{' '.join(label.split())} {one['accuracy']:.3f} ({one['ci_low']:.3f} to {one['ci_high']:.3f})"
        for label, one in figures().items()
    )
    for place, (tag, text) in enumerate((("title", TITLE), ("desc", spoken), ("style", STYLE))):
        element = ElementTree.Element(f"{SVG}{tag}", {"id": tag} if tag != "style" else {})
        element.text = text
        root.insert(place, element)
    text = ElementTree.tostring(root, encoding="unicode")
    for words, other in CHINESE.items() if chinese else ():
        text = text.replace(f">{words}<", f' dx="{(_width(words) - _width(other)) / 2:.1f}">{other}<')
    return text + "\n"


def _width(text: str) -> float:
    """About how wide a text is, so that one of another width stays in the middle; a Chinese character is a square."""
    return sum(13 if sign > "\u2e80" else 7.6 for sign in text)


if __name__ == "__main__":
    for name, chinese in {"accuracy.svg": False, "accuracy.zh-TW.svg": True}.items():
        (HERE / name).write_text(build(chinese), encoding="utf-8")
