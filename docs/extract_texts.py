"""Extractors for Babel, which `babel.cfg` names: the texts that are translated but are not in `_()`.

These are the help of commands and options, and the descriptions of shipped recipes and accelerate configs.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any, BinaryIO

from babel.messages.extract import extract_python

from lrc.commands.help import VERBATIM, split_paragraphs
from lrc.config.shipped import first_sentence

Extracted = tuple[int, str, Any, list[str]]  # line, function, text, comments
DECORATORS = ("command", "group")  # of functions whose docstring is the help of a command


def extract_module(file: BinaryIO, keywords: Any, comment_tags: Any, options: Any) -> Iterator[Extracted]:
    """The texts in `_()`, those of `help=…`, and the docstrings of commands, a message for each paragraph."""
    yield from extract_python(file, keywords, comment_tags, options)
    file.seek(0)
    for node in ast.walk(ast.parse(file.read())):
        for text in _help_texts(node):
            for paragraph in split_paragraphs(text):
                if not paragraph.startswith(VERBATIM):
                    yield node.lineno, "", paragraph, []


def _help_texts(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Call):
        values = (word.value for word in node.keywords if word.arg == "help")
        yield from (one.value for one in values if isinstance(one, ast.Constant) and isinstance(one.value, str))
    elif isinstance(node, ast.FunctionDef):
        made_by = [one.func for one in node.decorator_list if isinstance(one, ast.Call)]
        if any(isinstance(one, ast.Attribute) and one.attr in DECORATORS for one in made_by):
            yield ast.get_docstring(node) or ""


def extract_shipped(file: BinaryIO, keywords: Any, comment_tags: Any, options: Any) -> Iterator[Extracted]:
    """The description at the top of a shipped file."""
    yield 1, "", first_sentence(file.read().decode()), []
