"""A recipe's YAML: what is read, and what is refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from lrc.config.yaml_reader import read_mapping
from lrc.runtime.errors import RecipeError

TOKEN = "hf_" + "aB3dE5gH7jK9mN1pQ3s"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return tmp_path / "qlora.yaml"


def refusal(path: Path) -> str:
    with pytest.raises(RecipeError) as refused:
        read_mapping(path)
    (line,) = refused.value.lines()
    return line


def test_values_are_what_they_look_like(recipe: Path) -> None:
    recipe.write_text(
        "a: 2e-4\nb: yes\nc: 1:30\nd: 010\ne:\nf: [1, .5, true, -.5e-3, 1.e2]\ng: 2024-01-01\nh: '8'\ni: -1\n"
    )
    found = read_mapping(recipe).values
    assert found["a"] == 2.0e-4
    assert (found["b"], found["c"], found["d"], found["g"], found["h"]) == (
        "yes",
        "1:30",
        "010",
        "2024-01-01",
        "8",
    )
    assert (found["e"], found["f"], found["i"]) == (None, [1, 0.5, True, -0.0005, 100.0], -1)


def test_each_key_knows_its_line(recipe: Path) -> None:
    recipe.write_text("\ufeff# a comment\na: 1\n\nb: 2\n", encoding="utf-8")
    assert read_mapping(recipe).place("b") == "qlora.yaml, line 4"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\na: 2", "qlora.yaml, line 2: a appears here and in line 1; keep one"),
        ("a: {b: 1,\n b: 2}", "qlora.yaml, line 2: b appears here and in line 1; keep one"),
        ("a: &x 1\nb: *x", "qlora.yaml, line 1: has an anchor or alias (& or *); write the value out"),
        ("a: !!python/object/apply:os.getcwd []", "qlora.yaml, line 1: has a tag (!); write a plain value"),
        ("<<: {a: 1}", "qlora.yaml, line 1: a key is not a name; write `key: value`"),
        ("1: a", "qlora.yaml, line 1: a key is not a name; write `key: value`"),
        ("- a", "qlora.yaml: is not a mapping; write one `key: value` a line"),
        ("", "qlora.yaml: is not a mapping; write one `key: value` a line"),
        ("a: 1\n---\nb: 1", "qlora.yaml, line 2: but found another document; keep one"),
        (
            "a:\n\tb: 1",
            "qlora.yaml, line 2: found character '\\t' that cannot start any token; write spaces for the tab",
        ),
        ("a: 1\nb 2", "qlora.yaml, line 2: could not find expected ':'; write `key: value`"),
        (
            'a: "C:\\models"',
            "qlora.yaml, line 1: found unknown escape character 'm'; write single quotes, or / in place of \\",
        ),
        (
            "a: " + "[" * 3000 + "]" * 3000,
            "qlora.yaml: is nested too deeply, or holds a number that is too long",
        ),
        ("a: " + "9" * 6000, "qlora.yaml: is nested too deeply, or holds a number that is too long"),
    ],
)
def test_what_is_not_plain_is_refused(recipe: Path, text: str, line: str) -> None:
    recipe.write_text(text)
    assert refusal(recipe) == line


@pytest.mark.parametrize("text", ["a: {}\n", "# {}\na: 1\n", "{}: 1\n", "a: [b, {{c: {}}}]\n"])
def test_a_token_is_refused_and_never_repeated(recipe: Path, text: str) -> None:
    recipe.write_text(text.format(TOKEN))
    line = refusal(recipe)
    assert line.startswith("qlora.yaml") and "HF_TOKEN" in line and TOKEN[3:] not in line


def test_a_file_that_is_not_text_is_refused(recipe: Path) -> None:
    recipe.write_bytes(b"a: \xa4\xa4\xa4\xe5")
    assert refusal(recipe) == "qlora.yaml: is not UTF-8 text; save it as UTF-8"
    recipe.write_bytes(b"#" * 2_000_000)
    assert "larger than" in refusal(recipe)


def test_a_missing_file_is_named(recipe: Path) -> None:
    assert refusal(recipe) == f"{recipe}: No such file or directory; give a YAML file"
