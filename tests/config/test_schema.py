"""What lrc knows of a recipe's keys without torch is what the installed TRL, transformers and PEFT say of them."""

from __future__ import annotations

import inspect
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from peft import LoraConfig
from transformers import BitsAndBytesConfig
from trl import ScriptArguments, TrlParser

from lrc.config import schema, synonyms
from lrc.config.arguments import CLASSES
from lrc.config.field_types import BOUNDS, find_error
from lrc.config.ignored_keys import IGNORED
from lrc.config.overrides import parse_overrides
from lrc.config.recipe import SECRETS, check_recipe, load_recipe
from lrc.config.rules import UNSUPPORTED, broken_rules
from lrc.config.schema import describe_schema, installed_schema, shipped_schema
from lrc.config.synonyms import ELSEWHERE, GONE, SYNONYMS
from lrc.runtime.errors import RecipeError

BASE = {"model_name_or_path": "m", "train_file": "a_train.json", "output_dir": "runs/o"}
WORDS = ["4", "4.5", "-1", "1e-4", "true", "FALSE", "no", "steps", "null", "a b", "adamw_torch", '{"a": 1}', "nan", ""]
VALUES: list[Any] = [None, True, 0, 1, -1, 0.5, 2.5, "", "steps", "no", "cosine", "nf4", [], ["a"], [4], {}, {"a": 1}]


def test_the_shipped_schema_is_that_of_the_installed_packages() -> None:
    shipped = json.loads(Path(schema.__file__).with_name(schema.FILE).read_text(encoding="utf-8"))
    assert shipped == json.loads(json.dumps(describe_schema(CLASSES))), "run docs/build_recipes.py"


@pytest.mark.parametrize("name", sorted(shipped_schema()))
def test_a_key_takes_what_its_dataclass_takes(name: str) -> None:
    (cls,) = [cls for cls in CLASSES if name in {field.name for field in cls.__dataclass_fields__.values()}]
    field, key = cls.__dataclass_fields__[name], shipped_schema()[name]
    for value in VALUES:
        told = find_error(value, get_type_hints(cls)[name], field.metadata.get("choices"), BOUNDS.get(name, key.bounds))
        assert key.find_error(value) == told


@pytest.fixture(scope="module")
def parser() -> TrlParser:
    """Upstream's own parser of the command line."""
    parser = TrlParser(CLASSES, allow_abbrev=False, add_help=False, exit_on_error=False)
    for action in parser._actions:
        action.required = False
    return parser


@pytest.mark.parametrize("name", sorted(shipped_schema()))
def test_the_command_line_gives_what_upstream_parser_gives(name: str, parser: TrlParser) -> None:
    for words in ([f"--{name}"], *([f"--{name.replace('_', '-')}={word}"] for word in WORDS)):
        found = _parsed(words, name)
        try:
            theirs = getattr(parser.parse_known_args(words)[0], name)
        except Exception:
            # What upstream refuses stays a word, or is no value, and `Key.fault` says what is wrong.
            assert found in (words[0].partition("=")[2], [words[0].partition("=")[2]], None, RecipeError)
            continue
        if words[0].endswith("=null") and found is None:
            continue
        if isinstance(theirs, dict) or (isinstance(theirs, list) and theirs == list(words[0].partition("=")[2])):
            continue  # `dict("…")` and `list("…")`, which upstream takes for a type, say nothing
        theirs = getattr(theirs, "value", theirs)
        no_number = str(found) == str(theirs) and str(theirs) in ("nan", "[nan]")  # which equals nothing
        assert found == theirs or found == [theirs] or [found] == theirs or no_number, words


def _parsed(words: list[str], name: str) -> Any:
    try:
        return parse_overrides(words, {name: shipped_schema()[name]})[0][name]
    except RecipeError:
        return RecipeError


def test_a_boolean_key_is_negated_as_upstream_does() -> None:
    given, unknown = parse_overrides(["--no_use_peft", "--no-tree-packing", "--no_bf16", "x"], shipped_schema())
    assert (given, unknown) == ({"use_peft": False, "tree_packing": False}, ["no_bf16"])


CHOICES: dict[str, list[Any]] = {
    "eval_strategy": ["no", "steps", "epoch"],
    "save_strategy": ["no", "steps", "epoch", "best"],
    "eval_steps": [None, 10, 2.5, 0.1, 0.3, 20],
    "save_steps": [10, 15, 20, 0.3, 0.25, 3.5],
    "logging_steps": [10, 0.5, 7, 1.5],
    "logging_strategy": ["steps", "no"],
    "load_best_model_at_end": [True, False],
    "lr_scheduler_type": ["linear", "reduce_lr_on_plateau", "greedy"],
    "dataloader_prefetch_factor": [None, None, 2],
    "dataloader_num_workers": [0, 1],
    "fp16": [False, False, True],
    "warmup_steps": [0, 0.03, 5],
    "torch_empty_cache_steps": [None, 1],
    "load_in_4bit": [False, False, True],
    "load_in_8bit": [False, False, True],
    "lora_target_modules": [None, ["q_proj"], ["("], "all-linear"],
    "gradient_checkpointing_kwargs": [None, '{"use_reentrant": false}', "{broken"],
}


def test_rules_refuse_what_upstream_refuses_and_nothing_else() -> None:
    """Random combinations, built by the real dataclasses: the rules know beforehand which of them fail."""
    draw = random.Random(5)
    upstream = TrlParser(CLASSES)
    defaults = {key: known.default for key, known in installed_schema().items()}
    outcomes = set()
    for _ in range(400):
        chosen = draw.sample(sorted(CHOICES), 7)
        given = {**BASE, "use_cpu": True, "validation_file": "a_validation.json"}
        given |= {key: draw.choice(CHOICES[key]) for key in chosen}
        # The Trainer, which comes later, has a rule of its own about that.
        told = [line for line in broken_rules(defaults | given) if not line.startswith("save_strategy is best")]
        try:
            upstream.parse_dict(dict(given))
            built = True
        except (ValueError, TypeError, AssertionError):
            built = False
        assert built == (not told), (given, told)
        outcomes.add(built)
    assert outcomes == {True, False}


def test_a_synonym_is_not_a_key_and_belongs_to_one() -> None:
    keys = set(shipped_schema())
    synonyms = [word for words in SYNONYMS.values() for word in words.split()]
    assert set(SYNONYMS) <= keys and len(synonyms) == len(set(synonyms))
    assert not {*synonyms, *GONE, *ELSEWHERE} & keys and not set(synonyms) & {*GONE, *ELSEWHERE}


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        *(("epochs", "num_train_epochs"), ("lr", "learning_rate"), ("batch_size", "per_device_train_batch_size")),
        *(("rank", "lora_r"), ("alpha", "lora_alpha"), ("max_len", "max_length"), ("Learning-Rate", "learning_rate")),
        *(("gradient_accumulation", "gradient_accumulation_steps"), ("lora_aplha", "lora_alpha")),
        *(("accumulation-steps", "gradient_accumulation_steps"), ("scheduler_kwargs", "lr_scheduler_kwargs")),
        *(("epcohs", "num_train_epochs"), ("cutoff_len", "max_length"), ("resume_from", "resume_from_checkpoint")),
    ],
)
def test_an_unknown_key_gets_the_one_that_is_meant(key: str, meant: str) -> None:
    with pytest.raises(RecipeError) as refused:
        check_recipe(None, [*(f"--{name}={value}" for name, value in BASE.items()), f"--{key}", "3"])
    assert refused.value.lines() == (f"command line: unknown key {key!r}; did you mean {meant!r}?",)


@pytest.mark.parametrize(
    ("key", "cure"),
    {
        # What is trained would be another thing if the nearest key were written instead.
        **{"use_unsloth": "remove it", "max_completion_length": "remove it", "max_samples": "remove it"},
        "lora_bias": "an adapter has no biases here; remove it",
        "dataset_train_split": "the data is in the files of train_file and validation_file; remove it",
        "adapter_name_or_path": "training starts with a new adapter; merge the old one into its base with `lrc merge`, "
        "and train that",
        "min_learning_rate": "give it in lr_scheduler_kwargs",
        # The opposite of a key.
        **{"disable_gradient_checkpointing": "write gradient_checkpointing: false", "no_bf16": "write bf16: false"},
        # A key that is refused itself, or has no effect.
        **{"use_liger": "remove it", "hf_hub_token": "log in with `hf auth login`, or set HF_TOKEN; remove it"},
        "eval_batch_size": "evaluation fills rows up to a number of tokens; remove it",
        # Misspelt names of such.
        **{"warmup_ration": "write warmup_steps: a value below 1 is a ratio", "max_seq_lenght": "it is now max_length"},
    }.items(),
)
def test_no_advice_changes_what_is_trained(key: str, cure: str) -> None:
    with pytest.raises(RecipeError) as refused:
        check_recipe(None, [*(f"--{name}={value}" for name, value in BASE.items()), f"--{key}", "3"])
    assert refused.value.lines() == (f"command line: unknown key {key!r}; {cure}",)


def test_no_key_of_upstream_is_cured_by_one_that_is_refused_or_idle() -> None:
    keys, classes = shipped_schema(), (ScriptArguments, LoraConfig, BitsAndBytesConfig)
    names = {name for cls in classes for name in inspect.signature(cls).parameters} - keys.keys()
    cures = {name: synonyms.cure(name, keys) for name in names}
    assert len(cures) > 40
    useless = [f"did you mean {key!r}?" for key in (*IGNORED, *UNSUPPORTED, *SECRETS)]
    assert not {name: cure for name, cure in cures.items() if cure in useless}


@pytest.mark.parametrize("key", ["learning_rate", "gradient_accumulation_steps", "lora_target_modules", "max_length"])
def test_a_misspelt_key_is_recognized(key: str) -> None:
    """Any two neighbouring letters exchanged, or any letter left out."""
    exchanged = [key[:i] + key[i + 1] + key[i] + key[i + 2 :] for i in range(len(key) - 1) if key[i] != key[i + 1]]
    shortened = [key[:i] + key[i + 1 :] for i in range(1, len(key))]
    for typo in {*exchanged, *shortened} - shipped_schema().keys():
        assert synonyms.cure(typo, shipped_schema()) == f"did you mean {key!r}?", typo


LIGHT = """
import sys
from pathlib import Path
from lrc.config.recipe import check_recipe
try:
    print(sorted(check_recipe(Path({path!r}), {words!r})))
except Exception as error:
    print(error)
print([name for name in ("torch", "transformers", "trl", "peft") if name in sys.modules])
"""


@pytest.mark.parametrize("words", [[], ["--lora_rnak", "3"], ["--lora_r", "x"], ["--fp16", "--bf16"]], ids=str)
def test_a_recipe_is_checked_without_torch(tmp_path: Path, words: list[str]) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("".join(f"{key}: {value}\n" for key, value in BASE.items()))
    code = LIGHT.format(path=str(path), words=words)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]" and len(done.stdout.splitlines()) == 2


def test_with_other_packages_their_own_dataclasses_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that the shipped schema lacks, as if it were of a newer TRL, is found in the installed dataclasses."""
    document = json.loads(json.dumps(schema._document()))
    document["versions"]["trl"] = "0.1"
    del document["keys"]["use_dora"]
    words = [*(f"--{name}={value}" for name, value in BASE.items()), "--use_dora"]
    _forget()
    monkeypatch.setattr(schema, "_document", lambda: document)
    try:
        assert load_recipe(None, words).model.use_dora
        with pytest.raises(RecipeError, match="unknown key 'use_dorra'"):
            check_recipe(None, [*words, "--use_dorra"])
    finally:
        _forget()


def _forget() -> None:
    for cached in (schema.shipped_schema, schema.installed_schema, schema.is_exact):
        cached.cache_clear()
