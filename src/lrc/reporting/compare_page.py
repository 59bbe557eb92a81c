"""The page about two models on the same questions: the verdict, and their answers side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from lrc.metrics.comparison import Comparison, Pair
from lrc.reporting.templates import render_page

FIRST, MOST = 10, 200  # questions of a group that are visible at first, and in all


@dataclass(frozen=True)
class Group:
    """A group of questions on the page, such as those that only the first model answered correctly."""

    id: str
    title: Markup
    order: Markup  # a sentence about the order of the pairs
    pairs: Sequence[Pair]  # of both models' answers


def render_comparison(found: Comparison) -> str:
    """Render the page as a complete HTML file."""
    surest = _both("The surest mistakes come first.", "錯得最有把握的題目排在前面。")
    lowest = _both(
        "Those whose right answer both think the least likely come first.",
        "兩個模型都認為正確答案最不可能的排在前面。",
    )
    one, two = found.names
    groups = [
        Group("first-only", _both(f"Only {one} is right", f"只有 {one} 答對"), surest, found.first_only),
        Group("second-only", _both(f"Only {two} is right", f"只有 {two} 答對"), surest, found.second_only),
        Group("both-wrong", _both("Both wrong", "都答錯"), lowest, found.both_wrong),
    ]
    return render_page("compare.html", found=found, groups=groups, first_pairs=FIRST, most=MOST)


def _both(english: str, chinese: str) -> Markup:
    """A text in both languages; the page shows one of them."""
    return Markup('<span class="en" lang="en">{}</span><span class="zh" lang="zh-Hant">{}</span>').format(
        english, chinese
    )
