"""What an .xlsx package has besides cells and their formats, counted, to tell what a copy of it lacks."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple
from zipfile import ZipFile

from lrc.runtime.translation import _


class _Feature(NamedTuple):
    """Something that openpyxl may leave out, found in the XML of some parts."""

    name: str
    parts: re.Pattern[str]
    sign: re.Pattern[bytes]  # occurs once for each


def _feature(name: str, parts: str, sign: bytes) -> _Feature:
    return _Feature(name, re.compile(parts), re.compile(sign))


COMMENTS = _("comments on cells that are merged with others")
_SHEET, _DRAWING, _TAG = r"xl/(?:worksheets|chartsheets)/[^/]+\.xml", r"xl/drawings/[^/]+\.xml", rb"<(?:\w+:)?"
# Extensions of sheets that are counted by what is in them, or have nothing to see in them.
_KNOWN = rb"(?:05C60535|CCE6A557|78C0D931|B025F937|A8765BA9|3A4CF648|7E03D99C|FC87AEE6|64002731|7626C862)"
_FEATURES = (
    _feature(_("text boxes and shapes"), _DRAWING, _TAG + rb"(?:sp|cxnSp)[ >]"),
    _feature(_("pictures"), _DRAWING, _TAG + rb"pic[ >]"),
    _feature(_("links on pictures and shapes"), _DRAWING, _TAG + rb"hlink(?:Click|Hover)[ />]"),
    _feature(_("SVG versions of pictures"), _DRAWING, _TAG + rb"svgBlip[ />]"),
    _feature(_("charts and diagrams"), _DRAWING, _TAG + rb"graphicFrame[ >]"),
    _feature(_("pictures behind the sheet"), _SHEET, _TAG + rb"picture[ />]"),
    _feature(_("pictures in headers or footers"), _SHEET, _TAG + rb"legacyDrawingHF[ />]"),
    _feature(_("headers and footers"), _SHEET, rb"<(?:odd|even|first)(?:Header|Footer)>(?!(?:&amp;[LCR])*<)"),
    _feature(_("buttons and other controls"), r"xl/drawings/.*\.vml", rb'ObjectType="(?!Note"|Pict")'),
    _feature(_("alternative texts of charts and shapes"), _DRAWING, rb"\bdescr=\"[^\"]"),
    _feature(_("embedded objects"), _SHEET, _TAG + rb"oleObject[ />]"),
    _feature(_("sparklines"), _SHEET, _TAG + rb"sparkline>"),
    _feature(_("data bars and conditional formats of Excel 2010 and later"), _SHEET, rb"<x14:cfRule[ />]"),
    _feature(_("drop-down lists of Excel 2010 and later"), _SHEET, rb"<x14:dataValidation[ />]"),
    _feature(_("ranges that may be edited on a protected sheet"), _SHEET, _TAG + rb"protectedRange[ />]"),
    _feature(_("formulas that spill into other cells"), _SHEET, rb'<c [^>]*\bcm="'),
    _feature(_("pictures and data types in cells"), _SHEET, rb'<c [^>]*\bvm="'),
    _feature(_("error marks switched off"), _SHEET, _TAG + rb"ignoredError[ />]"),
    _feature(_("extensions of an unknown kind"), _SHEET, rb'<ext [^>]*uri="\{(?!' + _KNOWN + rb")"),
    _feature(_("the advice to open it read-only"), r"xl/workbook\.xml", rb'<fileSharing [^>]*readOnlyRecommended="1"'),
    _feature(_("custom views"), r"xl/workbook\.xml", _TAG + rb"customWorkbookView[ />]"),
    _feature(_("phonetic guides"), r"xl/(?:sharedStrings|worksheets/[^/]+)\.xml", _TAG + rb"rPh[ >]"),
    _feature(_("texts with an escaped _x…_"), r"xl/sharedStrings\.xml", rb"_x005F_"),
    _feature(_("comments that are always shown"), r"xl/drawings/.*\.vml", _TAG + rb"Visible\b(?!>\s*False)"),
    _feature(_("fonts and sizes of comments"), r"xl/(?:comments/)?comments?\d+\.xml", _TAG + rb"rPr[ >]"),
)
_CHART, _ELEMENT = re.compile(r"xl/charts/chart[^/]*\.xml"), re.compile(rb"<(?:\w+:)?(\w+)[\s/>]")
_CHART_DETAILS = _("details of charts")
# What a chart has besides what it shows: settings of the program that wrote it.
_NOT_SHOWN = re.compile(
    rb"<(?P<name>(?:\w+:)?(?:extLst|AlternateContent|printSettings))\b.*?</(?P=name)>"
    rb"|<(?:\w+:)?(?:lang|layout|date1904|roundedCorners|autoUpdate|endParaRPr|lstStyle|crosses)\b[^>]*/>",
    re.DOTALL,
)
# Kinds of part, by the path of the part.
_KINDS = {
    re.compile(r"(?:.*/)?vbaProject\.bin"): _("macros"),
    re.compile(r"xl/threadedComments/.*"): _("threads of comments"),
    re.compile(r"xl/slicers/.*"): _("slicers"),
    re.compile(r"xl/timelines/.*"): _("timelines"),
    re.compile(r"xl/pivotTables/[^/]*"): _("pivot tables"),
    re.compile(r"xl/(?:connections\.xml|queryTables/.*)"): _("data connections"),
    re.compile(r"xl/externalLinks/[^/]*"): _("links to other workbooks"),
    re.compile(r"xl/featurePropertyBag/.*"): _("check boxes in cells"),
    re.compile(r"customXml/item\d+\.xml"): _("custom XML"),
    re.compile(r"_xmlsignatures/[^/]*"): _("digital signatures"),
}
# Parts whose content is counted above, or that openpyxl or a spreadsheet writes anew.
_COVERED = re.compile(
    r".*_rels/.*|\[Content_Types\]\.xml|docProps/.*|customXml/.*|xl/[^/]*"
    r"|xl/(?:worksheets|chartsheets|theme|drawings|printerSettings|comments|media|embeddings|ctrlProps|activeX|charts"
    r"|tables|diagrams|persons|slicerCaches|timelineCaches|pivotCache|richData)/.*"
)


def count_features(package: ZipFile) -> Counter[str]:
    """Count the features of a package by name; a part of an unknown kind is one of the name of its folder."""
    return Counter(_list_features(package))


def compare_packages(before: ZipFile, after: ZipFile) -> Counter[str]:
    """Count what a copy lacks of the original, by name."""
    lost = count_features(before) - count_features(after)
    charts = {part: _count_elements(before.read(part)) for part in before.namelist() if _CHART.fullmatch(part)}
    there = (_count_elements(after.read(part)) for part in after.namelist() if _CHART.fullmatch(part))
    if gone := sum(charts.values(), Counter[bytes]()) - sum(there, Counter[bytes]()):
        lost[_CHART_DETAILS] = sum(not gone.keys().isdisjoint(chart) for chart in charts.values())
    return lost


def _count_elements(chart: bytes) -> Counter[bytes]:
    """The elements of a chart that are seen."""
    return Counter(_ELEMENT.findall(_NOT_SHOWN.sub(b"", chart)))


def _list_features(package: ZipFile) -> Iterator[str]:
    for part in package.namelist():
        if kind := next((kind for path, kind in _KINDS.items() if path.fullmatch(part)), ""):
            yield kind
        elif not _COVERED.fullmatch(part) and not part.endswith("/"):
            yield part.rpartition("/")[0].removeprefix("xl/") or part
        if wanted := [feature for feature in _FEATURES if feature.parts.fullmatch(part)]:
            content = package.read(part)
            for feature in wanted:
                yield from [feature.name] * len(feature.sign.findall(content))
