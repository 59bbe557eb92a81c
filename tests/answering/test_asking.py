"""How a trained model is asked later: normalisation, temperature, 4 bits, and without the passage."""

from __future__ import annotations

import gc
import json
import math
import shutil
import warnings
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from small_runs import lrc, make_run
from transformers import AutoTokenizer

from lrc import sft
from lrc.answering import answer
from lrc.answering.answerer import Answerer
from lrc.answering.load import load_scorer
from lrc.answering.options import ScoringOptions
from lrc.answering.scoring import Scorer
from lrc.commands.merge import merge
from lrc.config.run_record import NORMALISATIONS, read_run
from lrc.data.alpaca import Record, dump_records, to_record
from lrc.data.frames import to_frame
from lrc.data.questions import Question
from lrc.metrics.accuracy import compare_paired, mcnemar, passages_of
from lrc.metrics.calibration import fit_temperature, log_loss
from lrc.metrics.option_scores import OptionScores
from lrc.metrics.predictions import read_outcomes

OPTIONS = ("甲乙丙丁戊己庚", "甲", "12 34", "在台北工作的小明")
QUESTIONS = [
    Question(str(i), f"第{i // 2}章。小明在台北工作。", f"誰？{i}", OPTIONS[i % 4 :] + OPTIONS[: i % 4], i * 7 % 4 + 1)
    for i in range(12)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, twelve questions, and a recipe of three steps in text style."""
    return make_run(
        tmp_path_factory.mktemp("asking"),
        QUESTIONS,
        QUESTIONS,
        template="plain",
        answer_style="text",
        lora_target_modules=["q_proj", "down_proj"],
        max_steps=3,
        learning_rate=3.0e-3,
        eval_strategy="no",
        save_strategy="no",
    )


def train(folder: Path, output: Path, *overrides: str) -> Path:
    sft.main(["--config", str(folder / "recipe.yaml"), "--output_dir", str(output), *overrides])
    return output


@pytest.fixture(scope="module")
def chosen(folder: Path) -> Path:
    """An adapter whose normalisation its validation questions chose."""
    return train(folder, folder / "chosen", "--score_normalisation", "auto")


def evaluate(folder: Path, output: Path, *words: str | Path) -> dict[str, Any]:
    assert (
        lrc("evaluate", "--model", folder / "base", "--data", folder / "t_train.json", "--output", output, *words) == 0
    )
    return json.loads(output.read_text(encoding="utf-8"))


def test_validation_chooses_the_normalisation_and_all_accuracies_are_logged(
    folder: Path, chosen: Path, tmp_path: Path
) -> None:
    run = read_run(chosen)
    assert run is not None and run.recipe["score_normalisation"] == "auto"
    lines = [json.loads(line) for line in (chosen / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    (logged,) = [line for line in lines if "eval_temperature" in line]
    shares = {name: logged[f"eval_accuracy_{name}"] for name in NORMALISATIONS}
    assert len(set(shares.values())) > 1, "options of such unequal lengths should not score alike"
    assert run.score_normalisation == max(NORMALISATIONS, key=shares.__getitem__)
    for name in NORMALISATIONS:
        asked = evaluate(folder, tmp_path / f"{name}.json", "--adapter", chosen, "--score-normalisation", name)
        assert asked["accuracy"] == pytest.approx(shares[name])
    assert evaluate(folder, tmp_path / "auto.json", "--adapter", chosen)["accuracy"] == max(shares.values())


def test_a_normalisation_divides_by_what_it_says(folder: Path) -> None:
    records = [to_record(question) for question in QUESTIONS[:4]]
    by_name = {
        name: load_scorer(str(folder / "base"), ScoringOptions((), 1, "plain", "text", score_normalisation=name))(
            records
        )
        for name in NORMALISATIONS
    }
    scorer = load_scorer(str(folder / "base"), ScoringOptions((), 1, "plain", "text"))
    for place, record in enumerate(records):
        sums = by_name["sum"][place].likelihoods
        counts = {
            "sum": [1] * 4,
            "character": [len(option) for option in record.question.options],
            "token": [len(scorer.prompt.encode(option)) for option in record.question.options],
        }
        for name, lengths in counts.items():
            scores = [total / length for total, length in zip(sums, lengths, strict=True)]
            total = math.log(sum(map(math.exp, scores)))
            assert by_name[name][place].log_probs == pytest.approx([score - total for score in scores], abs=1e-6)


def test_the_temperature_is_that_of_the_validation_questions_and_changes_no_answer(
    folder: Path, chosen: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = read_run(chosen)
    assert run is not None and run.temperature != 1
    figures = evaluate(folder, tmp_path / "a.json", "--adapter", chosen, "--scores", tmp_path / "scores.jsonl")
    assert f"at temperature {run.temperature:.4g}, " in capsys.readouterr().out
    scores = [json.loads(line) for line in (tmp_path / "scores.jsonl").read_text(encoding="utf-8").splitlines()]
    log_probs, answers = [line["scores"] for line in scores], [question.answer for question in QUESTIONS]
    assert run.temperature == pytest.approx(fit_temperature(log_probs, answers), rel=1e-3)
    for line in scores:
        powers = [math.exp(score / run.temperature) for score in line["scores"]]
        assert line["probabilities"] == pytest.approx([power / sum(powers) for power in powers], abs=1e-9)
        assert line["prediction"] == line["scores"].index(max(line["scores"])) + 1
    told = figures["probabilities"]
    assert told["log_loss"] == pytest.approx(log_loss(log_probs, answers, run.temperature))
    assert told["log_loss"] < told["log_loss_at_1"] == pytest.approx(log_loss(log_probs, answers))
    kept = read_outcomes(chosen / "validation_scores.jsonl")
    assert [one.prediction for one in kept] == [line["prediction"] for line in scores]
    assert kept[0].probabilities == pytest.approx(scores[0]["probabilities"], abs=1e-5)


def test_temperatures_of_several_adapters_and_of_a_merged_model(
    folder: Path, chosen: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = train(folder, tmp_path / "other", "--learning_rate", "0.01", "--score_normalisation", "auto")
    runs = [run for run in map(read_run, (chosen, other)) if run]
    base, pair = str(folder / "base"), load_scorer(str(folder / "base"), ScoringOptions((chosen, other)))
    same = runs[0].score_normalisation == runs[1].score_normalisation
    # A temperature that was fitted under another normalisation than the first adapter's says nothing.
    second = runs[1].temperature if same else 1.0
    assert pair.temperature == pytest.approx(2 / (1 / runs[0].temperature + 1 / second))
    elsewise = "sum" if runs[0].score_normalisation != "sum" else "token"
    capsys.readouterr()
    assert load_scorer(base, ScoringOptions((chosen,), score_normalisation=elsewise)).temperature == 1
    assert f"temperature {runs[0].temperature:.4g} was fitted with template plain" in capsys.readouterr().err
    merge(chosen, tmp_path / "merged")
    merged = load_scorer(str(tmp_path / "merged"), ScoringOptions())
    assert (merged.temperature, merged.normalisation) == (runs[0].temperature, runs[0].score_normalisation)


def test_votes_have_a_temperature_too(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    digits = train(folder, tmp_path / "digits", "--answer_style", "digit")
    run = read_run(digits)
    assert run is not None and run.temperature != 1 and run.score_normalisation == "character"
    records = [to_record(question) for question in QUESTIONS]
    capsys.readouterr()
    scores = load_scorer(str(folder / "base"), ScoringOptions((digits,), votes=4))(records)
    line = "was fitted with one vote of one adapter and is used with 4 of 1: answers stay as they are"
    assert f"temperature {run.temperature:.4g} {line}" in capsys.readouterr().err
    load_scorer(str(folder / "base"), ScoringOptions((digits,)))
    assert line[:20] not in capsys.readouterr().err
    for score in scores:
        powers = [math.exp(value / run.temperature) for value in score.log_probs]
        assert score.probabilities == pytest.approx([power / sum(powers) for power in powers], abs=1e-9)


def test_answers_that_are_arbitrary_are_counted(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Options with the same text have the same score, whatever the model has learnt."""
    alike = [
        Question(f"a{answer}", f"第{answer}篇。", "誰？", ("小明", "小明", "小明"), answer) for answer in (1, 2, 2)
    ]
    asked = [*QUESTIONS[:3], *alike]
    (tmp_path / "alike.json").write_text("".join(dump_records(map(to_record, asked))), encoding="utf-8")
    words = ["--model", folder / "base", "--template", "plain", "--answer-style", "text", "--data"]
    assert lrc("evaluate", *words, tmp_path / "alike.json", "--output", tmp_path / "a.json") == 0
    told = " ".join(capsys.readouterr().out.split())
    found = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert lrc("evaluate", *words, folder / "t_train.json", "--scores", tmp_path / "s.jsonl") == 0
    scored = map(json.loads, (tmp_path / "s.jsonl").read_text(encoding="utf-8").splitlines()[:3])
    right = sum(line["prediction"] == one.answer for line, one in zip(scored, QUESTIONS, strict=False))
    assert found["ties"] == 3 and found["accuracy_with_ties_shared"] == pytest.approx((right + 3 * 1 / 3) / 6)
    assert "ties 3 of 6 answers are arbitrary" in told and f"the accuracy is {(right + 1) / 6:.4f}" in told
    assert "ties" not in capsys.readouterr().out.partition("Baselines")[0]


def test_the_same_model_without_the_passage(
    folder: Path, chosen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, seen = answer.answer, list[list[Record]]()

    def spy(scorer: Scorer, records: list[Record], *partial: Any) -> list[OptionScores]:
        seen.append(records)
        found = whole(scorer, records, *partial)
        return found if len(seen) == 1 else [replace(one, prediction=one.prediction % 4 + 1) for one in found]

    monkeypatch.setattr(answer, "answer", spy)
    scores = tmp_path / "scores.jsonl"
    figures = evaluate(folder, tmp_path / "a.json", "--adapter", chosen, "--passage-blind", "--scores", scores)
    with_it, without = seen
    assert with_it == list(map(to_record, QUESTIONS))
    assert without == [to_record(replace(question, passage="")) for question in QUESTIONS]
    assert not any("台北工作。" in record.input for record in without)
    # So small a model answers alike without the passage; whoever sees none, answers otherwise here.
    read = [json.loads(line)["prediction"] for line in scores.read_text("utf-8").splitlines()]
    asked = [number % 4 + 1 for number in read]
    answers = [question.answer or 0 for question in QUESTIONS]
    found = figures["passage_blind"]
    assert found["accuracy"] == sum(a == b for a, b in zip(asked, answers, strict=True)) / len(answers)
    assert found["mcnemar"] == mcnemar(read, asked, answers)
    assert found["paired"] == compare_paired(read, asked, answers, passages_of(QUESTIONS))


def test_an_adapter_is_answered_in_the_bits_that_it_was_trained_in(folder: Path, tmp_path: Path) -> None:
    four = train(folder, tmp_path / "four", "--load_in_4bit", "--use_bnb_nested_quant")
    base = str(folder / "base")
    kinds = {}
    for asked in (None, True, False):
        scorer = load_scorer(base, ScoringOptions((four,), load_in_4bit=asked))
        linear = scorer.model.base_model.model.model.layers[0].mlp.up_proj
        kinds[asked] = type(linear).__name__
    assert kinds == {None: "Linear4bit", True: "Linear4bit", False: "Linear"}
    # What is answered is what training evaluated at its end.
    kept = read_outcomes(four / "validation_scores.jsonl")
    scores = load_scorer(base, ScoringOptions((four,)))([to_record(question) for question in QUESTIONS])
    assert all(a.scores == pytest.approx(b.log_probs, abs=1e-4) for a, b in zip(kept, scores, strict=True))
    merge(four, tmp_path / "merged")
    merged = load_scorer(str(tmp_path / "merged"), ScoringOptions()).model
    assert type(merged.model.layers[0].mlp.up_proj) is torch.nn.Linear
    wide = load_scorer(base, ScoringOptions((), 1, "plain", "text", load_in_4bit=True)).model
    linear = wide.model.layers[0].mlp.up_proj
    assert (type(linear).__name__, linear.compute_dtype) == ("Linear4bit", torch.float32)


def test_the_format_that_is_asked_for_counts_in_4_bits_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    base = str(folder / "base")
    asked = ScoringOptions((), 1, "plain", "text", load_in_4bit=True, dtype="bfloat16")
    model = load_scorer(base, asked).model
    assert model.model.layers[0].mlp.up_proj.compute_dtype == model.model.embed_tokens.weight.dtype == torch.bfloat16
    words = ["--data", folder / "t_train.json", "--template", "plain", "--answer-style", "text"]
    assert lrc("evaluate", "--model", base, *words, "--load-in-4bit", "--dtype", "float16") == 1
    assert "--dtype: float16, but this machine does not support float16 (cpu)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "status", "line"),
    [
        (
            ["--answer-style", "digit", "--list-options", "--score-normalisation", "sum"],
            1,
            "--score-normalisation is sum, but digits are scored as they are; leave it out",
        ),
        (["--score-normalisation", "auto"], 2, "'auto' is not one of 'character', 'token', 'sum'"),
    ],
)
def test_what_is_refused(
    folder: Path, chosen: Path, words: list[str], status: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["evaluate", "--model", folder / "base", "--data", folder / "t_train.json", "--adapter", chosen, *words]
    assert lrc(*asked) == status
    assert line in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["--answer_style", "digit", "--score_normalisation", "token"], "but digits are scored as they are; remove it"),
        (["--score_normalisation", "word"], "score_normalisation"),
    ],
)
def test_recipes_that_are_refused(
    folder: Path, tmp_path: Path, overrides: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        train(folder, tmp_path / "a", *overrides)
    assert end.value.code == 1 and line in capsys.readouterr().err.splitlines()[-1]


def test_auto_needs_validation_questions(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8"))
    del recipe["validation_file"]
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    with pytest.raises(SystemExit) as end:
        train(tmp_path, tmp_path / "a", "--score_normalisation", "auto")
    assert end.value.code == 1
    assert "score_normalisation is auto, which chooses on a validation_file" in capsys.readouterr().err.splitlines()[-1]


def test_the_device_is_looked_at_and_on_a_cpu_freed_memory_is_kept(
    folder: Path, chosen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    monkeypatch.setattr("lrc.answering.load.require_kernels", seen.append)
    monkeypatch.setattr("lrc.answering.load.keep_freed_memory", lambda: seen.append("kept"))
    load_scorer(str(folder / "base"), ScoringOptions((chosen,)))
    assert seen == ["cpu", "kept"]


def test_an_adapter_answers_on_its_base_and_with_its_tokenizer(
    folder: Path, chosen: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = str(folder / "base")
    assert load_scorer(base, ScoringOptions((chosen,))).prompt.tokenizer.name_or_path == str(chosen)
    bare = Path(shutil.copytree(chosen, tmp_path / "bare"))
    (bare / "tokenizer_config.json").unlink()
    assert load_scorer(base, ScoringOptions((bare,))).prompt.tokenizer.name_or_path == base

    other = Path(shutil.copytree(base, tmp_path / "other"))
    weights = load_file(other / "model.safetensors")
    weights[min(weights)].view(-1)[3] += 0.5
    save_file(weights, other / "model.safetensors", {"format": "pt"})
    words = ("--adapter", chosen, "--data", folder / "t_train.json", "--output", tmp_path / "a.csv")
    assert lrc("generate", "--model", other, *words) == 1
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith(f"{other}: not the weights of the base model that the adapter was trained on (base")
    assert told.endswith("pass that one as --model") and not (tmp_path / "a.csv").exists()


CHAT = (
    "{{ bos_token }}{{ strftime_now('%Y-%m-%d') }}{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}"
    "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


def test_what_decides_on_the_prompt_is_that_of_the_training(folder: Path, chosen: Path, tmp_path: Path) -> None:
    base, dated = str(folder / "base"), Path(shutil.copytree(chosen, tmp_path / "dated"))
    listed = load_scorer(base, ScoringOptions((chosen,))).prompt.list_options
    # In another style, it is that of the style: digits need the list that the training did without.
    assert (listed, load_scorer(base, ScoringOptions((chosen,), answer_style="digit")).prompt.list_options) == (
        False,
        True,
    )
    tokenizer = AutoTokenizer.from_pretrained(dated)
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(dated)
    recorded = json.loads((dated / "lrc_run.json").read_text("utf-8"))
    changed = {**recorded, "template": "chat", "chat_date": "2020-01-02"}  # by a release with another date
    (dated / "lrc_run.json").write_text(json.dumps(changed), encoding="utf-8")
    prompt = load_scorer(base, ScoringOptions((dated,))).prompt
    assert prompt.today == "2020-01-02" and "2020-01-02[user]" in prompt.text(to_record(QUESTIONS[0]))


def test_answers_stand_in_the_rows_of_their_questions(folder: Path, chosen: Path) -> None:
    """Of a data frame with an index of its own, and an empty row in it."""
    frame = to_frame(QUESTIONS[:6]).drop(columns=["row", "answer"]).reindex([0, 1, 9, 2, 3, 4, 5])
    frame.index = pd.Index(list("gfedcba"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # in a notebook, those of the libraries would be seen
        found = Answerer(folder / "base", chosen).answer(frame)
    scores = load_scorer(str(folder / "base"), ScoringOptions((chosen,)))(list(map(to_record, QUESTIONS[:6])))
    assert list(found.index) == list("gfedcba") and found.loc["e", ["prediction", "probability_4"]].isna().all()
    full = found.drop(index="e")
    assert full["id"].tolist() == [question.id for question in QUESTIONS[:6]]
    assert full["prediction"].tolist() == [score.prediction for score in scores]
    assert len(set(full["prediction"])) > 1
    for number in range(4):
        wanted = [score.probabilities[number] for score in scores]
        assert full[f"probability_{number + 1}"].tolist() == pytest.approx(wanted, abs=1e-4)


def test_a_second_model_of_a_notebook_has_the_room_of_the_first(folder: Path) -> None:
    """Even of its last layer and its head, whose forwards refer to themselves."""
    base = str(folder / "base")
    gc.collect()
    gc.disable()
    try:
        first = Answerer(base, template="plain", answer_style="text")
        causal = first._scorer.model
        left = [weakref.ref(module) for module in (causal.lm_head, causal.get_decoder().layers[-1])]
        del first, causal
        Answerer(base, template="plain", answer_style="text")
        assert [one() for one in left] == [None, None]
    finally:
        gc.enable()
