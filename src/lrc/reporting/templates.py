"""Renders a page as one self-contained HTML file: template, style, script, and both languages."""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from functools import partial
from importlib.resources import files as packaged
from math import isnan
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from lrc.metrics.verdict import NAMES
from lrc.runtime.translation import CHINESE, localized

_HARDWARE = (
    (re.compile(r", (\d+) cores?\b"), r"，\1 個核心"),
    (re.compile(r", (\d+) processes\b"), r"，\1 個行程"),
    (re.compile(r" in each of (\d+) machines\b"), r"，共 \1 台機器"),
)


def render_page(template: str, **facts: Any) -> str:
    """Render a page as a complete HTML file.

    Args:
        template: the template's file, next to this module.
        facts: the variables of the template.
    """
    environment = Environment(
        loader=FunctionLoader(read_asset),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": _percent, "number": _number, "times": _times}
    environment.globals["names_of_baselines"] = NAMES
    environment.filters |= {"chinese": partial(localized, to=CHINESE), "hardware_in_chinese": hardware_in_chinese}
    script = read_asset("report.js")
    shipped = {
        # Not escaped, since both ship with lrc.
        "style": Markup(read_asset("report.css")),
        "script": Markup(script),
        # The page's content security policy allows only this script, whatever a passage contains.
        "script_hash": b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    }
    return environment.get_template(template).render(**shipped, **facts).strip() + "\n"


def read_asset(name: str) -> str:
    """Read a text file that ships next to this module."""
    return packaged(__package__).joinpath(name).read_text(encoding="utf-8")


def hardware_in_chinese(hardware: str) -> str:
    """What `machine.describe_hardware` says, which a run keeps in English."""
    for english, chinese in _HARDWARE:
        hardware = english.sub(chinese, hardware)
    return hardware


def _percent(value: float) -> str:
    return "–" if isnan(value) else f"{value:.1%}"


def _times(count: int, noun: str, plural: str = "") -> str:
    """A count with its English noun, which takes an s for more than one, or has a plural of its own."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def _number(value: float | None) -> str:
    """A logged number; empty if it was not logged."""
    if value is None:
        return ""
    return "NaN" if isnan(value) else f"{value:.4g}"
