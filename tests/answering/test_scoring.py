"""A question's scores are its own: no batch-mate, no order and no row budget changes them."""

from __future__ import annotations

import copy
import math
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from oracle import log_likelihood, option_scores
from small_models import FAMILIES, OTHERS, adapted, make_family, make_model, save_base, save_tokenizer
from transformers import AutoTokenizer
from transformers.utils.logging import enable_progress_bar

from lrc.answering.scoring import Scorer
from lrc.data.alpaca import Record, to_record
from lrc.data.questions import Question, option_orders
from lrc.metrics.option_scores import OptionScores
from lrc.models.loading import load_base
from lrc.packing.last_layer import prune_last_layer
from lrc.packing.log_probs import row_budget
from lrc.runtime.errors import DataError, MachineError, RecipeError
from lrc.tokenization.prompt import Prompt, reordered

CPU = torch.device("cpu")
BYTES = {"vocab_size": 260}
OPTIONS = (("甲", "乙丙", "丁", "戊己庚"), ("1", "2"), ("子", "", "丑", ""), ("寅", "卯", "以上皆是"))


def records(count: int = 66) -> list[Record]:
    """Some passages have several questions, some questions blank options."""
    made = [
        Question(str(i), f"文{i // 3 * 7}章。" * (1 + i // 3 % 4), f"問{i}", OPTIONS[i % 4], 1) for i in range(count)
    ]
    return [to_record(question) for question in made]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(folder)
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def model() -> Any:
    made = make_model("gemma3", **BYTES).eval()
    prune_last_layer(made)
    return made


def assert_alike(some: list[OptionScores], others: list[OptionScores]) -> None:
    assert [score.prediction for score in some] == [score.prediction for score in others]
    for one, other in zip(some, others, strict=True):
        assert one.log_probs == pytest.approx(other.log_probs, abs=1e-4)


ADAPTERS: dict[str, dict[str, Any] | None] = {
    "none": None,
    "dora": {"use_dora": True},
    "rslora on embeddings and head": {"target_modules": ["embed_tokens", "lm_head", "q_proj"], "use_rslora": True},
    "whole embeddings": {"modules_to_save": ["embed_tokens"]},
}
ASKED = [
    *((family, "none", "digit") for family in (*FAMILIES, *OTHERS)),
    *((family, "none", "digit_after") for family in ("gemma3", "llama-tied", "qwen3")),
    *((family, "none", "text") for family in ("gemma3", "gpt2", "mistral")),
    *(("llama-tied", adapter, "text") for adapter in ADAPTERS),
]


@pytest.mark.parametrize(("family", "adapter", "style"), ASKED)
def test_scores_are_the_log_probabilities_of_separate_forwards(
    tokenizer: Any, family: str, adapter: str, style: str
) -> None:
    model = make_family(family, **BYTES)
    settings = ADAPTERS[adapter]
    model = (model if settings is None else adapted(model, **settings)).eval()
    if family != "mixtral":  # whose experts torch multiplies in no more than float32
        model.double()
    prompt, asked = Prompt(tokenizer, "plain", style), records(8)
    wanted = []
    for record in asked:
        options = [
            (s.tokens[: s.prompt_length].tolist(), s.tokens[s.prompt_length :].tolist())
            for s in prompt.candidates(record)
        ]
        texts = [record.question.options[number - 1] for number in record.question.choosable]
        found = option_scores(model, options, [len(text) if style == "text" else 1.0 for text in texts])
        log_probs = np.full(len(record.question.options), -np.inf)
        log_probs[np.array(record.question.choosable) - 1] = found
        wanted.append(log_probs.tolist())
    model = model.float()
    prune_last_layer(model)
    for score, log_probs in zip(Scorer(model, prompt, CPU)(asked), wanted, strict=True):
        assert score.log_probs == pytest.approx(log_probs, abs=1e-5 if style == "digit_after" else 1e-4)
        assert score.prediction == int(np.argmax(log_probs)) + 1


def test_scores_that_are_no_numbers_are_given_without_a_warning(tokenizer: Any) -> None:
    model = adapted(make_model("llama", **BYTES)).eval()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.fill_(math.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = Scorer(model, Prompt(tokenizer, "plain", "digit"), CPU)(records(2))
    assert all(math.isnan(value) for score in scores for value in score.log_probs)


def test_loading_shows_no_bar_of_transformers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_base(tmp_path / "base")
    enable_progress_bar()
    capsys.readouterr()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    load_base(str(tmp_path / "base"))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("style", ["digit", "text"])
def test_batches_order_and_batch_mates_change_nothing(tokenizer: Any, model: Any, style: str) -> None:
    scorer = Scorer(model, Prompt(tokenizer, "plain", style, True), CPU, row_tokens=400)
    asked = records()
    together = scorer(asked)
    for size in (1, 8, 64):
        assert_alike([s for i in range(0, len(asked), size) for s in scorer(asked[i : i + size])], together)
    shuffled = np.random.default_rng(0).permutation(len(asked)).tolist()
    assert_alike(scorer([asked[i] for i in shuffled]), [together[i] for i in shuffled])
    assert_alike(scorer(asked[::2]), together[::2])
    for row_tokens in (1, 100_000):
        assert_alike(replace(scorer, row_tokens=row_tokens)(asked[:20]), together[:20])
    assert len({score.prediction for score in together}) > 1


def test_a_chunk_of_which_a_question_is_not_known_is_scored_as_a_whole(tokenizer: Any, model: Any) -> None:
    """Another composition of a chunk would round otherwise."""
    scorer, asked = Scorer(model, Prompt(tokenizer, "plain", "digit"), CPU), records(6)
    (part,) = scorer.parts(asked, known={0, 3})
    assert [part[place] for place in range(6)] == scorer(asked)
    assert list(scorer.parts(asked, known=range(6))) == []


@pytest.mark.parametrize("votes", [1, 4])
def test_blank_options_are_never_chosen(tokenizer: Any, model: Any, votes: int) -> None:
    asked = [
        to_record(Question("1", "文", "問", ("", "乙", "", "丁"))),
        to_record(Question("2", "文", "問", ("", "", "", ""))),
        to_record(Question("3", "文", "問", ("", "乙"))),
    ]
    one, none, single = Scorer(model, Prompt(tokenizer, "plain", "digit"), CPU, votes=votes)(asked)
    assert one.log_probs[0] == one.log_probs[2] == -math.inf
    assert one.probabilities[0] == one.probabilities[2] == 0 and one.prediction in (2, 4)
    assert sum(one.probabilities) == pytest.approx(1)
    assert none.prediction == 1
    assert (single.prediction, single.probabilities) == (2, (0, 1))


def test_votes_are_averaged_over_the_orders(tokenizer: Any, model: Any) -> None:
    prompt = Prompt(tokenizer, "plain", "digit")
    record = to_record(Question("1", "文章", "問", ("甲", "乙", "丙", "丁")))
    single = Scorer(model, prompt, CPU)
    heard = []
    for shift in range(4):
        order = tuple((place + shift) % 4 for place in range(4))
        (score,) = single([reordered(record, order)])
        heard.append(np.roll(score.log_probs, shift))
    (voted,) = Scorer(model, prompt, CPU, votes=4)([record])
    assert voted.log_probs == pytest.approx(np.mean(heard, axis=0).tolist(), abs=1e-4)
    assert voted.consistent == (len({int(np.argmax(h)) for h in heard}) == 1)
    assert sum(voted.probabilities) == pytest.approx(1)
    # All four orders asked, it makes no difference in which one the question is written.
    (turned,) = Scorer(model, prompt, CPU, votes=4)([reordered(record, (2, 3, 0, 1))])
    assert np.roll(turned.log_probs, 2) == pytest.approx(voted.log_probs, abs=1e-4)


def test_options_that_speak_of_places_are_asked_once(tokenizer: Any, model: Any) -> None:
    prompt = Prompt(tokenizer, "plain", "digit")
    record = to_record(Question("1", "文章", "問", ("甲", "乙", "以上皆是")))
    (once,), (voted,) = (Scorer(model, prompt, CPU, votes=n)([record]) for n in (1, 3))
    assert voted.log_probs == pytest.approx(once.log_probs, abs=1e-6) and voted.consistent


@pytest.fixture(scope="module")
def two_adapters() -> Any:
    """A model with two adapters that have nothing in common."""
    model = adapted(make_model("llama", **BYTES), seed=1)
    other = adapted(make_model("llama", **BYTES), seed=2)
    model.add_adapter("second", model.peft_config["default"])
    weights = {name.replace(".default.", ".second."): p for name, p in other.named_parameters() if "lora_" in name}
    model.load_state_dict(weights, strict=False)
    return model.eval()


def test_several_adapters_are_averaged(tokenizer: Any, two_adapters: Any) -> None:
    prompt, asked = Prompt(tokenizer, "plain", "digit"), records(4)
    separate = [Scorer(adapted(make_model("llama", **BYTES), seed=seed).eval(), prompt, CPU)(asked) for seed in (1, 2)]
    together = Scorer(two_adapters, prompt, CPU, adapters=("default", "second"))(asked)
    for both, one, two in zip(together, *separate, strict=True):
        assert both.log_probs == pytest.approx((np.add(one.log_probs, two.log_probs) / 2).tolist(), abs=1e-4)


def test_consistency_is_about_the_orders_and_not_the_adapters(tokenizer: Any, two_adapters: Any) -> None:
    prompt, asked = Prompt(tokenizer, "plain", "digit"), records(12)
    names = ("default", "second")
    alone = [Scorer(two_adapters, prompt, CPU, adapters=(name,))(asked) for name in names]
    apart = [one.prediction != two.prediction for one, two in zip(*alone, strict=True)]
    assert any(apart), "adapters of different seeds should not agree on everything"
    both = Scorer(two_adapters, prompt, CPU, adapters=names)
    assert all(score.consistent for score in both(asked))  # there is one order only
    found = replace(both, votes=4)(asked)
    for record, score in zip(asked, found, strict=True):
        heard = []
        for order in option_orders(record.question, 4):
            (turned,) = both([reordered(record, order)])
            own = np.empty(len(order))
            own[list(order)] = turned.log_probs
            heard.append(own)
        assert score.log_probs == pytest.approx(np.mean(heard, axis=0).tolist(), abs=1e-4)
        assert score.consistent == (len({int(np.argmax(one)) for one in heard}) == 1)
    assert {score.consistent for score in found} == {True, False}
    assert any(
        differ and len(option_orders(record.question, 4)) == 1 for differ, record in zip(apart, asked, strict=True)
    )


def test_the_right_answer_is_scored_as_training_does(tokenizer: Any) -> None:
    model = make_model("llama", **BYTES).eval()
    prompt, asked = Prompt(tokenizer, "plain", "text"), records(3)
    scores = Scorer(model, prompt, CPU, with_answers=True)(asked)
    for record, score in zip(asked, scores, strict=True):
        s = prompt.sequence(record)
        wanted = log_likelihood(model, (s.tokens[: s.prompt_length].tolist(), s.tokens[s.prompt_length :].tolist()))
        assert score.answer_log_prob == pytest.approx(wanted, abs=1e-3)


def test_progress_counts_every_question(tokenizer: Any, model: Any) -> None:
    counted: list[int] = []
    Scorer(model, Prompt(tokenizer, "plain", "digit"), CPU)(records(5), lambda done=1: counted.append(done))
    assert sum(counted) == 5
    assert Scorer(model, Prompt(tokenizer, "plain", "digit"), CPU)([]) == []


@pytest.mark.parametrize(("template", "style"), [("alpaca", "digit"), ("alpaca", "judge"), ("chat", "text")])
def test_whatever_is_long_about_a_prompt_it_fits_the_positions(tokenizer: Any, template: str, style: str) -> None:
    """Not only the passage makes a prompt long: so do an instruction of one's own and the text of a chat template."""
    wordy = copy.deepcopy(tokenizer)
    turns = "{% for m in messages %}{{ m['content'] }}{{ eos_token if m['role'] == 'assistant' else '' }}{% endfor %}"
    wordy.chat_template = f"{'You are patient. ' * 55}{turns}"
    asked = to_record(Question("1", "天氣很好。" * 40, "問", ("甲", "乙丙"), 1))
    if template != "chat":
        asked = replace(asked, instruction="請仔細閱讀。" * 50)
    model = make_model("llama", **BYTES).eval()
    model.config.max_position_embeddings = 1400
    prompt = Prompt(wordy, template, style)
    (fitted,), shortened = Scorer(model, prompt, CPU).fitted([asked])
    longest = max(len(sequence.tokens) for sequence in prompt.candidates(fitted))
    assert shortened == ["1"] and 1350 < longest <= 1400


def test_votes_need_a_list_of_options(tokenizer: Any, model: Any) -> None:
    with pytest.raises(RecipeError, match="--votes is 2, but this model's prompt lists no options"):
        Scorer(model, Prompt(tokenizer, "plain", "text"), CPU, votes=2)


def test_a_record_without_options_is_named(tokenizer: Any, model: Any) -> None:
    with pytest.raises(DataError, match="record 9: its input cannot be read"):
        Scorer(model, Prompt(tokenizer, "plain", "digit"), CPU)([Record("9", "", "文", None, None)])


@pytest.mark.parametrize("mark", ["ds_id", "to_local"])
def test_a_row_of_sharded_weights_that_is_too_big_stops_the_run(
    mark: str, tokenizer: Any, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are in the midst of the same forward: a second one here would meet their rest, and all would wait."""
    from lrc.packing import log_probs as likelihood

    calls: list[int] = []

    def fail(model: Any, row: Any, device: torch.device) -> torch.Tensor:
        calls.append(len(row))
        raise torch.OutOfMemoryError

    monkeypatch.setattr(likelihood, "target_log_probs", fail)
    sharded = copy.deepcopy(model)  # as ZeRO-3 and FSDP mark their parameters
    setattr(next(sharded.parameters()), mark, 1)
    with pytest.raises(MachineError, match="^cpu: out of memory; set row_tokens below 4096 and run again$"):
        Scorer(sharded, Prompt(tokenizer, "plain", "digit"), CPU)(records(12))
    assert len(calls) == 1


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("MPS backend out of memory (MPS allocated: 4.9 GB, max allowed: 5.1 GB). Tried to allocate 2 GB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes."),
    ],
    ids=["cuda", "mps", "cpu"],
)
def test_a_row_that_is_too_big_for_the_memory_is_halved(
    error: Exception, tokenizer: Any, model: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from lrc.packing import log_probs as likelihood

    whole, asked = likelihood.target_log_probs, records(12)
    wanted = Scorer(model, Prompt(tokenizer, "plain", "digit"), CPU)(asked)

    def small(model: Any, row: Any, device: torch.device) -> torch.Tensor:
        if len(row) > 300:
            raise error
        return whole(model, row, device)

    monkeypatch.setattr(likelihood, "target_log_probs", small)
    scorer = Scorer(model, Prompt(tokenizer, "plain", "digit"), CPU)
    assert_alike(scorer(asked), wanted)
    assert "cpu: out of memory with rows of 4096 tokens; retrying with 2048" in capsys.readouterr().err
    assert_alike(scorer(asked), wanted)  # with what sufficed before
    assert "out of memory" not in capsys.readouterr().err
    assert row_budget(CPU, None) == 4096 and row_budget(CPU, None, training=True) == 768
