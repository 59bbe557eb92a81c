"""`--json` prints the same keys and values in every language and encoding, for every verb that has it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from report_runs import OUTCOMES, make_run
from workbooks import TEST, row, test_row, write_xlsx

from lrc.cli import cli
from lrc.data.alpaca import dump_records, to_record
from lrc.metrics.predictions import OUTCOMES_FILE

ROOT = Path(__file__).parents[2]
WHOLE = [*OUTCOMES[:3], OUTCOMES[4]]  # in the other the right option is blank


def make_inputs(folder: Path) -> None:
    rows = [row(1), row(2, 正確答案=9), row(3, 問題=""), row(4, 文章=" 文 "), row(5, 選項1="甲", 選項2="甲")]
    write_xlsx(folder / "AI.xlsx", rows)
    write_xlsx(folder / "good.xlsx", [row(1), row(2)])
    write_xlsx(folder / "test.xlsx", [test_row(1), test_row(2)], TEST)
    write_xlsx(folder / "empty.xlsx", [])
    (folder / "bad.json").write_text("[{]")
    (folder / "bad.yaml").write_text("lora_rnak: 8\nlearning_rate: abc\n")
    (folder / "answers.csv").write_text("ID,Answer\n1,1\n2,2\n")
    data = "".join(dump_records(to_record(one.question) for one in WHOLE))
    (folder / "data.json").write_text(data, encoding="utf-8")
    for name, chance in (("one.jsonl", 0.5), ("two.jsonl", 0.3)):
        scores = {"scores": [chance, -1.0, -2.0, -2.5], "probabilities": [0.4, 0.2, 0.2, 0.2], "prediction": 1}
        lines = [{"id": one.question.id, "row": one.question.row} | scores for one in WHOLE]
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    first, second = make_run(folder / "first"), make_run(folder / "second")
    assert (first / OUTCOMES_FILE).exists() and (second / OUTCOMES_FILE).exists()


BASE = str(ROOT / "examples" / "demo_base")
CASES = {
    "check": ["AI.xlsx", "good.xlsx", "test.xlsx", "empty.xlsx", "bad.json", "bad.yaml", "nothere.xlsx"],
    "compare": ["first", "second"],
    "doctor": [],
    "evaluate": ["--predictions", "answers.csv", "--data", "good.xlsx"],
    "gpu-check": ["--device", "cpu"],
    "preview": ["outings/lora", "--model_name_or_path", BASE, "--train_file", "data.json", "--validation_file", "null"],
    "vote": ["one.jsonl", "two.jsonl", "--data", "data.json"],
}
# What is of this machine at this moment.
MEASURED = {"doctor": {"memory", "disk"}, "preview": {"capacity", "fits", "cure"}}


def flatten(value: Any, verb: str, place: str = "") -> dict[str, Any]:
    """The values of a document by their place in it, without those that are measured anew."""
    if isinstance(value, dict):
        found = [
            flatten(one, verb, f"{place}.{key}") for key, one in value.items() if key not in MEASURED.get(verb, ())
        ]
        return {key: one for part in found for key, one in part.items()} | {place: list(value)}
    if isinstance(value, list):
        found = [flatten(one, verb, f"{place}[{at}]") for at, one in enumerate(value)]
        return {key: one for part in found for key, one in part.items()} | {place: len(value)}
    if verb == "gpu-check" and isinstance(value, str):
        value = "".join(letter for letter in value if not letter.isdigit() and letter not in ",.")
    return {place: value}


def test_every_verb_with_json_is_among_them() -> None:
    verbs = {name for name, one in cli.commands.items() if any("--json" in flag.opts for flag in one.params)}
    assert verbs == set(CASES)


@pytest.mark.parametrize("verb", CASES)
def test_it_is_the_same_in_every_language(verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    make_inputs(tmp_path)
    if verb == "gpu-check":
        from lrc.preview import gpu_checks

        monkeypatch.setattr(gpu_checks, "CHECKS", dict(list(gpu_checks.CHECKS.items())[:2]))
    documents = []
    for code, charset in (("en", "utf-8"), ("zh_TW", "cp1252")):  # a pipe on Windows, which has no Chinese
        monkeypatch.setenv("LRC_LANG", code)
        result = CliRunner(charset=charset).invoke(cli, [verb, *CASES[verb], "--json"])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        documents.append(flatten(json.loads(result.stdout), verb))
    assert documents[0] == documents[1] and len(documents[0]) > 3
