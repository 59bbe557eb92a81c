"""`lrc schema`: what it says of a recipe is what `lrc check` says, as an independent validator judges."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from lrc.commands.init import init
from lrc.commands.schema import schema
from lrc.config.json_schema import MEANINGS, json_schema
from lrc.config.recipe import SECRETS, read_given
from lrc.config.rules import UNSUPPORTED
from lrc.config.schema import shipped_schema
from lrc.runtime.errors import OutputError

ROOT = Path(__file__).parents[2]
VALIDATOR = Draft7Validator(json_schema())
BASE = {"model_name_or_path": "m", "train_file": "a.json", "output_dir": "o"}
VALUES: list[Any] = [None, True, False, 0, 1, -1, 0.5, 2.5, "", "steps", "no", "cosine", "nf4", "random", "none"]
VALUES += [[], ["a"], [4], {}, {"a": 1}, "bfloat16", "judge", "qwen", 2**32]
JUDGED = [name for name in shipped_schema() if name not in (*UNSUPPORTED, *SECRETS, "train_sampling_strategy")]


def accepts(recipe: dict[str, Any]) -> bool:
    return not list(VALIDATOR.iter_errors(recipe))


def test_it_is_a_schema() -> None:
    Draft7Validator.check_schema(json_schema())


@pytest.mark.parametrize("name", JUDGED)
def test_a_value_is_accepted_where_lrc_accepts_it(name: str) -> None:
    for value in VALUES:
        if value == "" or (name in BASE and value is None):
            continue  # whether a text may be empty, or a key missing, is a rule of its own
        assert accepts({**BASE, name: value}) == (shipped_schema()[name].find_error(value) is None), (name, value)


@pytest.mark.parametrize("path", sorted(ROOT.glob("recipes/*/*.yaml")), ids=lambda path: path.parent.name)
def test_every_shipped_recipe_is_accepted(path: Path) -> None:
    assert accepts(yaml.safe_load(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    "wrong",
    [
        {"lora_rnak": 8},
        {"epochs": 3},
        {"packing": True},
        {"hub_token": "x"},
        {"train_sampling_strategy": "group_by_length"},
        {"output_dir": None, "train_file": 3},
    ],
    ids=str,
)
def test_what_lrc_refuses_is_refused(wrong: dict[str, Any], tmp_path: Path) -> None:
    assert not accepts({**BASE, **wrong})
    (tmp_path / "wrong.yaml").write_text(json.dumps({**BASE, **wrong}), encoding="utf-8")
    with pytest.raises(Exception, match="wrong.yaml"):
        read_given(tmp_path / "wrong.yaml")


def test_a_key_that_is_missing_is_missed() -> None:
    assert accepts(BASE) and not accepts({key: value for key, value in BASE.items() if key != "train_file"})


def test_every_key_says_what_it_means() -> None:
    assert all(entry.get("description") for entry in json_schema()["properties"].values())
    written = json.loads((ROOT / "src/lrc/config" / MEANINGS).read_text(encoding="utf-8"))
    page = (ROOT / "docs/recipes.md").read_text(encoding="utf-8").replace("&#124;", "|")
    assert not [name for name, meaning in written.items() if meaning not in page]


def test_it_is_printed_or_written_and_overwrites_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    schema()
    printed = capsys.readouterr().out
    schema(output=tmp_path / "recipe.schema.json")
    assert (tmp_path / "recipe.schema.json").read_text(encoding="utf-8") == printed
    assert json.loads(printed) == json_schema()
    (tmp_path / "recipe.schema.json").write_text("{}", encoding="utf-8")
    with pytest.raises(OutputError, match="already exists"):
        schema(output=tmp_path / "recipe.schema.json")


@pytest.mark.parametrize("force", [False, True])
def test_a_pipe_and_a_device_are_never_replaced(tmp_path: Path, force: bool) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to(os.devnull)
    for name in ("pipe", "device"):
        with pytest.raises(OutputError, match=f"{name}: is a pipe or a device, which the output would replace"):
            schema(output=tmp_path / name, force=force)
    assert (tmp_path / "pipe").is_fifo() and (tmp_path / "device").is_char_device()
    assert len(list(tmp_path.iterdir())) == 2


def test_the_recipes_of_init_name_it(tmp_path: Path) -> None:
    init(tmp_path)
    recipes = sorted(tmp_path.glob("recipes/*/*.yaml"))
    assert len(recipes) == len(list(ROOT.glob("recipes/*/*.yaml")))
    for recipe in recipes:
        head = recipe.read_text(encoding="utf-8").splitlines()[0]
        place = head.removeprefix("# yaml-language-server: $schema=")
        named = json.loads((recipe.parent / place).resolve().read_text(encoding="utf-8"))
        assert named == json_schema()
        assert read_given(recipe)
