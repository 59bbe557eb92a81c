"""Charts as inline SVG in the colours of the page, so that they follow its light or dark theme.

Matplotlib draws them without words, which are in the page, so that charts need no translation.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from math import isnan
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from lrc.metrics.accuracy import Figures
from lrc.metrics.calibration import Bin
from lrc.metrics.training_log import Curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT = 4.6, 3.0  # inches of 72 units; a unit is about a pixel of a phone and of a wide screen
SVG = "{http://www.w3.org/2000/svg}"
LINK = "{http://www.w3.org/1999/xlink}href"
# Matplotlib knows no CSS variables: these colours are placeholders for those of the page.
INK, GRID, FIRST, SECOND = "#010101", "#020202", "#030303", "#040404"
COLORS = {INK: "currentColor", GRID: "var(--grid)", FIRST: "var(--first)", SECOND: "var(--second)"}
SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 13,
    "text.color": INK,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.edgecolor": GRID,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "lines.linewidth": 2,
    "lines.markersize": 6,
}


@dataclass(frozen=True)
class Line:
    """One curve of a chart. The first is solid and the second dashed, so that colour is not the only difference."""

    curve: Curve
    marked: bool = False  # draw a marker for each value


def over_steps(
    name: str,
    lines: Sequence[Line],
    *,
    levels: Mapping[str, float] | None = None,
    shares: bool = False,
    logarithmic: bool = False,
) -> str:
    """Draw curves over training steps, with a band for their intervals.

    Args:
        name: distinguishes the SVG's ids from those of other charts on the page.
        lines: one or two curves.
        levels: reference values, drawn as horizontal lines.
        shares: whether values are fractions, to be shown as percentages from 0 to 100.
        logarithmic: use a logarithmic scale; values that are not positive are left out.

    Returns:
        An SVG element.
    """
    with _chart(name) as (axes, svg):
        for line, color, dash in zip(lines, (FIRST, SECOND), ("-", "--"), strict=False):
            _draw(axes, line, color, dash)
        for level in (levels or {}).values():
            axes.axhline(level, color=INK, linestyle=":", linewidth=1.5)
        axes.locator_params(axis="x", integer=True, nbins=6)
        if shares:
            _percent(axes)
        else:
            axes.yaxis.set_major_formatter(lambda value, _: _plain(value))
        if logarithmic:
            _make_logarithmic(axes, [point.value for line in lines for point in line.curve])
    return svg()


def by_group(name: str, groups: Mapping[str, Figures]) -> str:
    """Draw the accuracy of groups of questions, with intervals, as bars; returns an SVG element."""
    with _chart(name) as (axes, svg):
        values = [part["accuracy"] for part in groups.values()]
        places = range(len(values))
        axes.bar(places, values, width=0.6, color=FIRST, alpha=0.35, edgecolor=FIRST)
        _whiskers(
            axes, places, [(part["accuracy"], part["ci_low"], part["ci_high"]) for part in groups.values()], "none"
        )
        axes.set_xticks(list(places), list(groups))
        _percent(axes)
    return svg()


def reliability_diagram(name: str, bins: Sequence[Bin]) -> str:
    """Draw accuracy over confidence, with the diagonal of perfect calibration; returns an SVG element."""
    with _chart(name) as (axes, svg):
        axes.plot([0, 1], [0, 1], color=INK, linestyle=":", linewidth=1.5)
        _whiskers(
            axes, [one.confidence for one in bins], [(one.accuracy, one.ci_low, one.ci_high) for one in bins], "o"
        )
        axes.set_xlim(0, 1.02)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        _percent(axes)
    return svg()


def _draw(axes: Axes, line: Line, color: str, dash: str) -> None:
    steps = [point.step for point in line.curve]
    if len(steps) == 1 and not isnan(line.curve[0].low):  # a band needs at least two values
        (point,) = line.curve
        _whiskers(axes, steps, [(point.value, point.low, point.high)], "o")
        return
    if not all(isnan(point.low) for point in line.curve):
        low, high = [point.low for point in line.curve], [point.high for point in line.curve]
        axes.fill_between(steps, low, high, color=color, alpha=0.18, linewidth=0)
    # A line needs at least two values; a single one is shown by a marker.
    marker = "o" if line.marked or len(steps) == 1 else ""
    axes.plot(steps, [point.value for point in line.curve], color=color, linestyle=dash, marker=marker)


def _whiskers(axes: Axes, places: Sequence[float], values: Sequence[tuple[float, float, float]], mark: str) -> None:
    reach = [[value - low for value, low, _ in values], [high - value for value, _, high in values]]
    heights = [value for value, _, _ in values]
    # Not clipped, so that markers at 0 and 100 percent are drawn whole.
    axes.errorbar(places, heights, yerr=reach, fmt=mark, color=FIRST, elinewidth=1.8, capsize=5, clip_on=False)


def _make_logarithmic(axes: Axes, values: Sequence[float]) -> None:
    """Use a logarithmic scale, with labels at round numbers even if the values span less than a decade."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    shown = [value for value in values if value > 0]  # false for NaN
    if not shown:
        return
    axes.set_yscale("log", nonpositive="mask")
    wide = max(shown) / min(shown) > 5
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)) if wide else MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(lambda value, _: _plain(value))


def _plain(value: float) -> str:
    """A number with four digits that count, and without an exponent: labels of one axis are written alike."""
    return format(Decimal(f"{value:.4g}"), "f")


def _percent(axes: Axes) -> None:
    axes.set_ylim(0, 1.02)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")


@contextmanager
def _chart(name: str) -> Iterator[tuple[Axes, Callable[[], str]]]:
    """Yield axes to draw on, and a function that returns their SVG when the block has ended."""
    import matplotlib
    from matplotlib.figure import Figure

    text = io.StringIO()
    with matplotlib.rc_context(SETTINGS | {"svg.hashsalt": name}):
        figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
        yield figure.subplots(), lambda: _for_page(text.getvalue())
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})


def _for_page(drawing: str) -> str:
    """Turn matplotlib's file into an element of a page: with its colours, without fixed size and unused ids."""
    ElementTree.register_namespace("", SVG.strip("{}"))
    root = ElementTree.fromstring(drawing)
    for parent in list(root.iter()):
        for child in [one for one in parent if one.tag in (f"{SVG}metadata", f"{SVG}style")]:
            parent.remove(child)
    used = set(re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', drawing))
    names = {first or second for first, second in used}
    for element in root.iter():
        _tidy(element, names)
    for attribute in ("width", "height", "version"):
        root.attrib.pop(attribute, None)
    root.attrib |= {"aria-hidden": "true", "focusable": "false"}
    return ElementTree.tostring(root, encoding="unicode")


def _tidy(element: ElementTree.Element, names: set[str]) -> None:
    attributes: dict[str, Any] = element.attrib
    if attributes.get("id") not in names:
        attributes.pop("id", None)
    if LINK in attributes:
        attributes["href"] = attributes.pop(LINK)
    if "style" in attributes:
        style = re.sub(r"#0[1-4]0[1-4]0[1-4]", lambda found: COLORS[found[0]], attributes["style"])
        attributes["style"] = re.sub(r"font-family:[^;]*;? ?", "", style)
