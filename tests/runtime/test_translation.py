"""Messages in the user's language: the catalogue is whole, and English stays what programs read."""

from __future__ import annotations

import ast
import copy
import gettext
import inspect
import json
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from string import Formatter

import click
import pytest
from click.testing import CliRunner
from questions import ask
from workbooks import LABELLED, row, write_xlsx

import lrc
from lrc.cli import cli
from lrc.config.shipped import first_sentence
from lrc.data.near_duplicates import group_passages
from lrc.data.repeated import find_duplicates
from lrc.data.score_files import read_scores
from lrc.data.tables.cell_text import kind_of
from lrc.data.tables.workbook import read_workbook
from lrc.metrics.predictions import read_outcomes, read_predictions
from lrc.runtime.errors import DataError, LrcError
from lrc.runtime.findings import KINDS, WORDS, Finding, format_findings
from lrc.runtime.translation import CHINESE, VARIABLES, Message, _, first_clause, language, localized

SOURCE = Path(lrc.__file__).parent
ROOT = Path(__file__).parents[2]
CATALOGUE = SOURCE / "runtime" / "locale" / CHINESE / "LC_MESSAGES" / "lrc.po"
# Which argument of a call is the text.
TEXT_OF = {"Finding": slice(3, 4), "find": slice(2, 3), "Note": slice(2, 3), "track": slice(1)}
COMMAND = re.compile(r"\$ \{shown\}|accelerate launch \{")  # a line that shows one, which is no sentence
# All whose texts a person reads: errors, and what is said on the terminal.
ENDINGS = ("say", "waiting", "ending_with", "end_at_once")
ERRORS = {"LrcError", *(kind.__name__ for kind in LrcError.__subclasses__()), "CheckFailedError", *ENDINGS}


def calls(path: Path) -> Iterator[ast.Call]:
    return (node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call))


def name_of(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")


def marked() -> dict[str, str]:
    """Every text in `_()`, and the module where it is."""
    found = {}
    for path in SOURCE.rglob("*.py"):
        for call in calls(path):
            if name_of(call) == "_":
                (text,) = call.args
                assert isinstance(text, ast.Constant) and isinstance(text.value, str), f"{path}:{call.lineno}"
                found[text.value] = f"{path.name}:{call.lineno}"
    return found


def help_texts() -> dict[str, str]:
    """Every paragraph of the help of commands and options, and its command."""
    found = {}
    for name, command in {"": cli, **cli.commands}.items():
        options = [one.help for one in command.params if isinstance(one, click.Option)]
        paragraphs = [" ".join(inspect.cleandoc(one).splitlines()) for one in (command.help or "").split("\n\n")]
        found |= {text: name for text in [*paragraphs, *options] if text and not text.startswith("\b")}
    return found


def descriptions() -> dict[str, str]:
    """The description of every shipped recipe and accelerate config."""
    files = [*ROOT.glob("recipes/*/*.yaml"), *ROOT.glob("accelerate_configs/*.yaml")]
    assert len(files) > 30
    return {first_sentence(path.read_text(encoding="utf-8")): str(path) for path in files}


def catalogue() -> dict[str, str]:
    """The texts of lrc.po, read without the libraries that write it."""
    found: dict[str, list[str]] = {}
    text = CATALOGUE.read_text(encoding="utf-8")
    for entry in text.split("\n\n"):
        parts: dict[str, str] = {}
        for word, lines in re.findall(r'^(msgid|msgstr) ((?:"(?:[^"\\]|\\.)*"\n?)+)', entry, flags=re.MULTILINE):
            parts[word] = "".join(json.loads(line) for line in lines.strip().splitlines())
        if parts.get("msgid"):
            found[parts["msgid"]] = parts["msgstr"]  # type: ignore[assignment]
    return found  # type: ignore[return-value]


def test_no_message_is_missing_and_none_is_left_over() -> None:
    texts, said = catalogue(), marked() | help_texts() | descriptions()
    assert len(texts) > 150
    assert {text: place for text, place in said.items() if not texts.get(text)} == {}
    assert texts.keys() - said.keys() == set()


def placeholders(text: str) -> Iterator[str]:
    """The names of a message's placeholders, in order."""
    return (name for _text, name, _spec, _conversion in Formatter().parse(text) if name is not None)


def test_each_translation_has_the_placeholders_of_its_message() -> None:
    for text, chinese in catalogue().items():
        assert set(placeholders(chinese)) == set(placeholders(text)), text
        assert all(not name.isdecimal() and name for name in placeholders(text)), f"without a name: {text}"


# Words in -s that may follow what may be a number, and are not its noun.
NO_NOUNS = (
    "appears arrives as begins changes comes computes copies declares differs does ends freezes gives has holds is its "
    "lacks less lists looks loss needs overflows runs spans status takes this units unless unpacks was weights"
)
COUNTED = re.compile(r"\{(?P<name>\w+)(?::[^}]*)?\}(?P<before>(?: [a-z]+)?) (?P<noun>[a-z]+s)\b")


def test_a_noun_after_the_number_one_is_in_the_singular() -> None:
    """Of whatever message: a new noun has to be in the list of `translation`, or in the one above."""
    wrong, checked = [], 0
    for text in marked():
        for found in COUNTED.finditer(text):
            before = found["before"].strip()
            if found["noun"] in NO_NOUNS.split() or before in (*NO_NOUNS.split(), "of", "the", "are", "both", "no"):
                continue
            piece = text[found.start() :].partition("}")[2]
            said = str(_("{one}" + piece.replace("{", "{{").replace("}", "}}")).format(one=1))
            checked += 1
            if re.match(rf"1(?: [a-z]+)? {found['noun']}\b", said) or re.match(r"1 \w+ (are|have|were|do)\b", said):
                wrong.append(said)
    assert checked > 100 and not wrong


def test_numbers_and_their_nouns_agree() -> None:
    text = _("{path}: {count:,} questions have no answer, in {files:,} bad files")
    assert str(text.format(path="a", count=1, files=1)) == "a: 1 question has no answer, in 1 bad file"
    assert str(text.format(path="a", count=0, files=11)) == "a: 0 questions have no answer, in 11 bad files"
    assert str(_("{share:.1f} points, {a}/{b} batches").format(share=1, a=1, b=1)) == "1.0 points, 1/1 batch"
    assert str(_("{file}: row {row} has {many} options").format(file="1", row=1, many="1")) == "1: row 1 has 1 option"


def test_the_compiled_catalogue_is_that_of_the_text() -> None:
    with CATALOGUE.with_suffix(".mo").open("rb") as file:
        compiled = gettext.GNUTranslations(file)
    assert {text: compiled.gettext(text) for text in catalogue()} == catalogue()


def raw_texts(path: Path) -> list[str]:
    """The texts of a module's findings, errors and lines that are not in `_()`, each with its line."""
    found = []
    for call in calls(path):
        name = name_of(call)
        if name == "say" and path.parent.name == "app":  # which takes a key of its own translations
            continue
        texts = call.args if name in ERRORS else call.args[TEXT_OF[name]] if name in TEXT_OF else []
        texts = [*texts, *(word.value for word in call.keywords if word.arg == "line")]  # said at a signal
        found += [
            f"{call.lineno} {ast.unparse(text)}"
            for text in texts
            if isinstance(text, ast.JoinedStr) or (isinstance(text, ast.Constant) and isinstance(text.value, str))
        ]
    return found


def test_no_module_gives_texts_past_the_catalogue() -> None:
    raw = {str(path.relative_to(SOURCE)): raw_texts(path) for path in SOURCE.rglob("*.py")}
    texts = {module: [text for text in texts if not COMMAND.search(text)] for module, texts in raw.items()}
    assert {module: text for module, text in texts.items() if text} == {}


# Three words of English in a row, or the beginning of a predicate; `{}` stands for a value.
PHRASE = re.compile(
    r"(?:(?<![^\s(])(?:[a-z][a-z']*|\{\})[,:]? ){2}(?:[a-z][a-z']*|\{\})(?![^\s),.;:])"
    r"|^ ?(?:is|are|was|has|had|belongs|lacks) [a-z]|^the [a-z]"
)
# What reads like a phrase and is none, or is not for the reader of an error: commands and code, a prompt, names of
# columns, what libraries say, notes beside constants, and parts of the page and the card, which have both languages.
NO_MESSAGE = {
    "commands/check.py": "lrc (convert|preview|check) ",
    "commands/doctor.py": "lrc run ",
    "commands/init.py": "lrc train ",
    "commands/train.py": "accelerate launch ",
    "config/json_schema.py": "A recipe of lrc|lrc supports no other",
    "config/synonyms.py": "logger tracker",
    "config/trackers.py": "pip install ",
    "config/yaml_reader.py": "end of stream",
    "data/tables/headers.py": "[文短編]",
    "answering/answered_workbook.py": "probability of|look at by|chosen: option|.*(nearly a guess|depends on order)",
    "models/merging/logit_check.py": "The library closes",
    "models/merging/safetensors_writer.py": ".* is written out of order",
    "preview/token_view.py": "bold black",
    "reporting/compare_page.py": "",
    "reporting/model_card.py": "",
    "reporting/summary.py": ".* min ",
    "runtime/library_errors.py": "",
    "runtime/machine.py": " in each of",
    "runtime/memory.py": "out of memory",
    "runtime/rendezvous.py": "address already in use",
    "tokenization/prompt.py": r"\[INST|Below is an",
    "tokenization/serving.py": "",
    "training/base_trainer.py": ".*, step ",
    "training/resume.py": "where things are|speed and memory",
    "training/sweep/trial.py": "# Trial",
    "__init__.py": "module 'lrc'",
}
INTERNAL = {"ValueError", "TypeError", "AssertionError", "RuntimeError", "NotImplementedError", "option", "argument"}
LIBRARIES = {"click", "_log", "logging", "re"}


def untranslated_phrases(path: Path) -> Iterator[str]:
    """The phrases of a module that are neither in `_()` nor documentation nor a flag's help."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    spared: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            spared.add(node.value)
        elif isinstance(node, ast.Call):
            owner = getattr(getattr(node.func, "value", None), "id", "")
            if name_of(node) in {"_", "field", *INTERNAL} or owner in LIBRARIES:
                spared.update(ast.walk(node))
        elif isinstance(node, ast.JoinedStr):
            spared |= {*ast.walk(node)} - {node}
    for node in ast.walk(tree):
        if node in spared or not isinstance(node, ast.Constant | ast.JoinedStr):
            continue
        pieces = node.values if isinstance(node, ast.JoinedStr) else [node]
        text = "".join(str(one.value) if isinstance(one, ast.Constant) else "{}" for one in pieces)
        if (found := PHRASE.search(text)) and re.search("[a-z]{2}", found[0]):
            yield text


# What only a programmer sees: arguments that lrc itself does not give. json_array.py speaks as json does.
PROGRAMMING = ("json_array.py", "accuracy.py", "page.py", "splits.py", "trainer.py", "tree.py", "equivalence.py")


def test_no_value_error_that_a_user_may_see_is_past_the_catalogue() -> None:
    """Readers give the text of a ValueError as the reason why a line or a file is wrong."""
    raw = [
        f"{path.name}:{call.lineno} {ast.unparse(call.args[0])}"
        for path in sorted(SOURCE.rglob("*.py"))
        for call in calls(path)
        if name_of(call) in ("ValueError", "TypeError") and call.args and path.name not in PROGRAMMING
        if isinstance(call.args[0], ast.JoinedStr | ast.Constant)
    ]
    assert [one.partition(" ")[2] for one in raw] == [
        "f'order is {order}, expected each of 0 to {len(self.options) - 1} once'"
    ]


OUTCOME: dict[str, object] = {
    "id": "a",
    "row": 2,
    "scores": [-1, -2],
    "probabilities": [0.7, 0.3],
    "prediction": 1,
    "answer": 1,
}
OUTCOME |= {"passage": "甲", "question": "乙", "options": ["丙", "丁"]}


def test_what_is_wrong_with_a_line_of_scores_or_answers_is_told_in_chinese(tmp_path: Path) -> None:
    path, wrong = (
        tmp_path / "分數.jsonl",
        [
            *({"options": ["丙"]}, {"answer": 7}, {"prediction": 9}, {"prediction": None}, {"answer": "1"}, {"id": 5}),
            *({"probabilities": value} for value in ([0.7], 5, None, ["甲", "乙"], [2, 3])),
            *({"scores": value} for value in (5, ["甲", 1])),
        ],
    )
    lines = [json.dumps(OUTCOME | one) for one in wrong] + ["[]", "nul", json.dumps({**OUTCOME, "answer": []})]
    scores = [
        '{"scores": [1, 2], "probabilities": 3}',
        '{"filtered_resps": [["甲"], ["乙"]]}',
        '{"scores": ["甲", 1]}',
        "5",
    ]
    for read, said in ((read_outcomes, lines), (read_scores, scores)):
        path.write_text("\n".join(said), encoding="utf-8")
        with pytest.raises(DataError) as caught:
            read(path)
        told = caught.value.lines(CHINESE)
        assert [line.split("：")[0] for line in told] == [
            f"{path}，第 {number} 行" for number in range(1, len(said) + 1)
        ]
        english = [line for line in told if re.search("[A-Za-z]{2,} [A-Za-z]{2,}", re.sub("`.*`", "", line))]
        assert not english
    path.write_text('{"scores": [1, 2], "prediction": 9}', encoding="utf-8")
    with pytest.raises(DataError, match="9") as caught:
        read_predictions(path, tmp_path / "a.json", [ask(options=("甲", "乙"))])
    assert "expected" not in "".join(caught.value.lines(CHINESE))


def test_no_part_of_a_message_is_english_alone() -> None:
    """Reasons and cures that are put into a message are messages, too."""
    raw = {str(path.relative_to(SOURCE)): untranslated_phrases(path) for path in SOURCE.rglob("*.py")}
    spared = {module: re.compile(known, re.DOTALL) for module, known in NO_MESSAGE.items()}
    found = {
        module: [text for text in texts if not (module in spared and spared[module].match(text))]
        for module, texts in raw.items()
    }
    assert {module: texts for module, texts in found.items() if texts} == {}


def test_each_kind_of_finding_has_words() -> None:
    used = set()
    for path in [*SOURCE.rglob("data/**/*.py"), SOURCE / "commands" / "check.py"]:
        for call in calls(path):
            place = {"Finding": 1, "find": 1, "CellFinding": 1, "error": 0}.get(name_of(call))
            if place is not None and len(call.args) > 1 and isinstance(kind := call.args[place], ast.Constant):
                used.update([kind.value] if isinstance(kind.value, str) else [])
        # A generator yields a finding's level and kind, or its kind first.
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Yield) and isinstance(node.value, ast.Tuple):
                texts = [one.value for one in node.value.elts[:2] if isinstance(one, ast.Constant)]
                used.update(text for text in texts if isinstance(text, str) and text not in WORDS)
    used |= {f"{kind_of(code)}-format" for code in ("0.0", "000", "0%", "General頁")}
    assert len(used) > 60 and used - KINDS.keys() == set()


@pytest.mark.parametrize("said", ["zh_TW", "zh_TW.UTF-8", "zh-TW", "zh_HK.UTF-8"])
@pytest.mark.parametrize("variable", VARIABLES)
def test_the_locale_or_lrc_lang_chooses(variable: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LANG", "en_US.UTF-8")
    assert language() == "en"
    monkeypatch.setenv(variable, said)
    assert language() == CHINESE
    monkeypatch.setenv("LRC_LANG", "en")
    assert language() == "en"


def test_a_message_is_english_to_programs_and_keeps_what_was_filled_in() -> None:
    inner = _("is empty; fill it in")
    text = _("{file}, row {row}: {text}").format(row=1234).format(file="a {x}.xlsx", text=inner)
    assert text == "a {x}.xlsx, row 1234: is empty; fill it in" and json.loads(json.dumps(text)) == text
    for same in (text, copy.deepcopy(text), pickle.loads(pickle.dumps(text))):  # noqa: S301, our own bytes
        assert isinstance(same, Message)
        assert localized(same, CHINESE) == "a {x}.xlsx，第 1234 列：是空白；請填寫"
        assert localized(same, "en") == str(text)
    assert localized(first_clause(inner), CHINESE) == "是空白" and first_clause(inner) == "is empty"
    assert localized("as it is", CHINESE) == "as it is"
    assert localized(_("{count:,} more of the kind “{kind}”; lrc check --json lists all").format(count=5), CHINESE)


def test_findings_of_a_workbook_are_told_in_chinese_and_counted_in_english(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [row(1), row(2, 正確答案=9), row(3, 問題=""), row(4, 文章=" 文 "), row(5, 選項1="甲", 選項2="甲")]
    path = write_xlsx(tmp_path / "AI.xlsx", rows, LABELLED)
    findings = read_workbook(path).findings
    english, chinese = list(format_findings(findings, "en")), list(format_findings(findings, CHINESE))
    assert len(english) == len(chinese) and not any(line in english for line in chinese)
    assert "錯誤：AI.xlsx，第 4 列：「問題」是空白；請填寫" in chinese
    documents = []
    for code in ("en", "zh_TW"):
        monkeypatch.setenv("LRC_LANG", code)
        documents.append(CliRunner().invoke(cli, ["check", str(path), "--json"]).stdout)
    assert documents[0] == documents[1] and "is empty; fill it in" in documents[0]
    shown = CliRunner().invoke(cli, ["check", str(path)]).stdout
    assert "錯誤：AI.xlsx，第 4 列：「問題」是空白；請填寫" in shown and "下一步：" in shown


def test_an_error_is_one_line_in_chinese(tmp_path: Path) -> None:
    with pytest.raises(DataError) as refused:
        read_workbook(tmp_path / "nix.xlsx")
    assert refused.value.lines(CHINESE) == ("nix.xlsx：找不到檔案；請檢查檔名",)
    assert refused.value.lines("en") == refused.value.lines()
    many = [Finding("error", "empty-option", "a.xlsx", _("is empty; fill it in"), n) for n in range(2, 100)]
    assert (
        list(format_findings(many, CHINESE))[-1]
        == "錯誤：a.xlsx：還有 48 個「空白選項」；執行 lrc check --json 可列出全部"
    )


def test_a_place_is_in_the_language_of_its_line() -> None:
    missing = _("{path}: no such file; did you mean {near}?").format(path="a.json", near="'b.json'")
    unknown = _("{place}: unknown key {key}; {cure}").format(place=_("command line"), key="'x'", cure=_("remove it"))
    assert LrcError(missing, unknown).lines(CHINESE) == (
        "a.json：找不到檔案；是不是 'b.json'？",
        "命令列：不認得的設定 'x'；請移除",
    )
    assert LrcError(unknown).lines("en") == ("command line: unknown key 'x'; remove it",)


def test_a_semicolon_in_a_value_ends_no_clause() -> None:
    text = _("is {text}, but that text is 選項{number}; give the number alone").format(text="雨；風; 雪", number=2)
    assert first_clause(text) == "is 雨；風; 雪, but that text is 選項2"
    assert localized(first_clause(text), CHINESE) == "是 雨；風; 雪，但那段文字是選項2"
    whole = _("{text}; {cure}").format(text="x", cure="y")
    assert first_clause(whole) == "x" and localized(first_clause(whole), CHINESE) == "x"


def test_rows_and_headers_are_listed_as_chinese_lists_them(tmp_path: Path) -> None:
    passage = "".join(chr(0x4E00 + place) for place in range(200))
    asked = [ask(2, passage=passage), ask(3, passage=passage[20:80]), ask(4, passage=passage[100:160])]
    (found,) = find_duplicates(asked, group_passages(one.passage for one in asked), "a.xlsx")
    assert found.line(CHINESE) == "a.xlsx，第 2 列：「文章」與第 3、4 列的文章部分內容重疊；全部保留，並分在同一邊"
    other = write_xlsx(tmp_path / "b.xlsx", [["1", "2"]], ["甲", "乙"])
    with pytest.raises(DataError) as refused:
        read_workbook(other)
    assert refused.value.lines(CHINESE) == (
        "b.xlsx，第 1 列：不是含有文章、問題、選項1、選項2 … 的標題列，下面各列也不是：甲、乙；請加上標題列",
    )


# Modules that print logs, or a comment in a file, which are English.
ENGLISH_LINES = {"training/sweep/trial.py", "training/validation.py"}


def test_no_line_with_a_cure_is_made_past_the_catalogue() -> None:
    """What is yielded, or collected first, is said as well: a sentence, a semicolon and the cure."""
    raw = {
        str(path.relative_to(SOURCE)): [
            ast.unparse(node)
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.JoinedStr)
            and re.search("; [a-z]", "".join(str(part.value) for part in node.values if isinstance(part, ast.Constant)))
        ]
        for path in SOURCE.rglob("*.py")
    }
    assert {module: lines for module, lines in raw.items() if lines and module not in ENGLISH_LINES} == {}


def test_what_the_system_says_is_told_in_the_readers_language(tmp_path: Path) -> None:
    with pytest.raises(DataError) as refused:
        read_scores(tmp_path / "none.jsonl")
    path = tmp_path / "none.jsonl"
    assert refused.value.lines(CHINESE) == (f"{path}：找不到檔案或資料夾；請檢查檔名與權限",)
    assert refused.value.lines("en") == (f"{path}: No such file or directory; check its name and permissions",)


USAGE = [
    ["trian"],
    ["convert"],
    ["convert", "a.xlsx", "b.xlsx", "--output-dir", "out"],
    ["convert", "a.xlsx", "--output-dir", "out", "--layout", "columns"],
    ["convert", "a.xlsx", "--output-dir", "out", "--seed", "x"],
    ["merge", "--adaptor", "a"],
    ["merge", "--adapter"],
    ["merge", "--adapter", "a", "--output-dir", "b", "--force=1"],
    ["generate", "--model", "m", "--data", "d", "--output", "o", "--votes", "0"],
    ["generate", "--model", " ", "--data", "d", "--output", "o"],
    ["check", "a.csv", "--columns", "文章"],
    ["check", "a.csv", "b.csv", "--fix", "c.csv"],
    ["evaluate", "--data", "d"],
    ["evaluate", "--data", "d", "--predictions", "p", "--votes", "3"],
    ["report", "a", "--data", "d"],
    ["completion", "tcsh"],
    ["doctor", "more"],
]


@pytest.mark.parametrize("words", USAGE, ids=" ".join)
def test_wrong_usage_is_told_in_chinese(words: list[str], tmp_path: Path) -> None:
    """In a process of its own: click takes its messages from the process's gettext."""
    environment = {**os.environ, "LRC_LANG": "zh_TW"}
    done = subprocess.run(
        [sys.executable, "-m", "lrc", *words], capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and line.startswith("錯誤：")
    # Only names are left of the English: flags, verbs, values and what is shown in capitals.
    told = re.sub(r"'[^']*'|`[^`]*`|-*-[a-z-]+|\blrc [a-z-]+|[A-Z]+|（more）", "", line)
    assert not re.search("[a-z]{3}", told), told


def test_what_is_translated_of_click_is_what_click_says() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in Path(click.__file__).parent.glob("*.py"))
    said = {node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)}
    with (CATALOGUE.parent / "click.mo").open("rb") as file:
        compiled = gettext.GNUTranslations(file)
    text = (CATALOGUE.parent / "click.po").read_text(encoding="utf-8")
    known = [json.loads(quoted) for quoted in re.findall(r'^msgid (".+")$', text, flags=re.MULTILINE)][1:]
    earlier = {"No such option: {name}", "{value!r} is not a valid boolean."}  # of 8.1
    assert len(known) > 15 and set(known) - said <= earlier
    for message in known:
        plural = f"msgid {json.dumps(message)}\nmsgid_plural " in text
        chinese = compiled.ngettext(message, message, 1) if plural else compiled.gettext(message)
        assert chinese != message
