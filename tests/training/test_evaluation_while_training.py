"""Evaluation inside the trainer: the loss and the accuracy of separate questions, and what they drive."""

from __future__ import annotations

from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import pytest
import torch
from one_step import config, separate_step, tree_trainer
from small_models import adapted, make_model, save_tokenizer
from token_trees import questions
from transformers import AutoTokenizer, EarlyStoppingCallback

from lrc.answering.scoring import Scorer
from lrc.data.alpaca import Record, to_record
from lrc.data.questions import Question
from lrc.metrics.accuracy import accuracy
from lrc.tokenization.prompt import Prompt
from lrc.tokenization.token_dataset import tokenize
from lrc.training.contrastive_loss import Objective
from lrc.training.dataloader import SequenceSource
from lrc.training.trainer import TreeTrainer, Validation
from lrc.training.validation import InLockstep

RECORDS = [
    to_record(Question(str(i), f"文{i // 2}章。", f"問{i}", ("甲", "乙丙", "丁", "戊"), i % 4 + 1)) for i in range(9)
]
FOREIGN = Record("foreign", "翻譯", "貓", "cat", None)


def model(dropout: float = 0.0) -> Any:
    return adapted(make_model("llama", vocab_size=260), lora_dropout=dropout)


@pytest.fixture(scope="module")
def prompt(tmp_path_factory: pytest.TempPathFactory) -> Prompt:
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(folder)
    return Prompt(AutoTokenizer.from_pretrained(folder), "alpaca", "digit")


def trainer(folder: Path, prompt: Prompt, records: list[Record], dropout: float = 0.0, **settings: Any) -> TreeTrainer:
    sequences, passages = questions()
    args = config(folder, **settings)
    return tree_trainer(model(dropout), sequences, passages, args, validation=Validation(records, prompt))


@pytest.mark.parametrize("records", [RECORDS, [*RECORDS, FOREIGN], [FOREIGN]], ids=["asked", "mixed", "foreign"])
def test_loss_and_accuracy_are_those_of_separate_questions(
    tmp_path: Path, prompt: Prompt, records: list[Record]
) -> None:
    metrics = trainer(tmp_path, prompt, records).evaluate()
    wanted, _ = separate_step(model(), [prompt.sequence(record) for record in records])
    assert metrics["eval_loss"] == pytest.approx(wanted, rel=1e-5)
    if records == [FOREIGN]:
        assert "eval_accuracy" not in metrics
        return
    answered = [score.prediction for score in Scorer(model().eval(), prompt, torch.device("cpu"))(RECORDS)]
    asked = [record.question for record in RECORDS]
    figures = accuracy(answered, [question.answer for question in asked], [question.passage for question in asked])
    assert {key: metrics[f"eval_{key}"] for key in ("accuracy", "ci_low", "ci_high")} == {
        key: figures[key] for key in ("accuracy", "ci_low", "ci_high")
    }


def test_an_optimizer_with_modes_has_that_of_the_evaluation(tmp_path: Path, prompt: Prompt) -> None:
    """As a schedule-free one, which is evaluated at the average of its steps."""
    modes = []

    class TwoModes(torch.optim.SGD):
        def train(self) -> None:
            modes.append("train")

        def eval(self) -> None:
            modes.append("eval")

    evaluated = trainer(tmp_path, prompt, RECORDS, max_steps=2, eval_strategy="steps", eval_steps=1)
    evaluated.optimizer = TwoModes((p for p in evaluated.model.parameters() if p.requires_grad), lr=0.1)
    evaluated.train()
    assert modes == ["train", "eval"] * 2


def log_prob(model: Any, prompt: list[int], completion: list[int]) -> float:
    """The log-likelihood of a completion, from a plain forward of one sequence."""
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([[*prompt, *completion]]), use_cache=False).logits[0].double()
    predicted = logits[len(prompt) - 1 : -1].log_softmax(-1)
    return float(predicted.gather(1, torch.tensor(completion)[:, None]).sum())


def losses_of_one(model: Any, prompt: Prompt, record: Record) -> tuple[float, int, list[float]]:
    """A question's negative log-likelihood, its supervised tokens, and its options' scores, from their definitions."""
    question = record.question
    assert question is not None and question.answer
    chosen = [number for number, option in enumerate(question.options, 1) if option]
    end = prompt.tokenizer.eos_token_id
    if prompt.answer_style == "judge":
        yes, no = ([prompt.encode(word)[0]] for word in "是否")  # their first bytes differ
        asked = [prompt.prompt(record, number) for number in chosen]
        said = [(log_prob(model, one, yes), log_prob(model, one, no)) for one in asked]
        right = [pair[0] if number == question.answer else pair[1] for number, pair in zip(chosen, said, strict=True)]
        return -sum(right), len(right), [one - other for one, other in said]
    asked, texts = prompt.prompt(record), {number: question.options[number - 1] for number in chosen}
    answer = [*prompt.encode(texts[question.answer]), end]
    scores = [log_prob(model, asked, prompt.encode(text)) / len(text) for text in texts.values()]
    return -log_prob(model, asked, answer), len(answer), scores


@pytest.mark.parametrize("part", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("style", ["text", "judge"])
def test_the_loss_is_what_training_minimises(tmp_path: Path, prompt: Prompt, style: str, part: float) -> None:
    """Computed from separate forwards, and as the first training loss on the same questions."""
    temperature = 0.5
    styled = Prompt(prompt.tokenizer, "plain", style)
    records = [
        *RECORDS,
        to_record(Question("blank", "文五章。", "問", ("甲", "", "乙丙"), 3)),
        to_record(Question("alone", "文五章。", "問", ("甲", ""), 1)),  # has nothing to be compared with
    ]
    by_hand, total, tokens, compared = model().eval(), 0.0, 0, []
    for record in records:
        likelihood, count, scores = losses_of_one(by_hand, styled, record)
        total, tokens = total + likelihood, tokens + count
        assert record.question is not None and record.question.answer
        right = [n for n, option in enumerate(record.question.options, 1) if option].index(record.question.answer)
        if len(scores) > 1:
            logits = torch.tensor(scores) / temperature
            compared.append(float(torch.nn.functional.cross_entropy(logits, torch.tensor(right))))
    assert len(compared) == len(records) - 1
    wanted = (1 - part) * total / tokens + part * sum(compared) / len(compared)

    rows = tokenize(records, styled, stage="")
    made = TreeTrainer(
        model=model(),
        args=config(tmp_path, per_device_train_batch_size=len(records), learning_rate=0.0),
        processing_class=styled.tokenizer,
        train_dataset=rows,
        source=SequenceSource(rows, records, styled, 1, 0, "character" if part else None, supervised=part < 1),
        validation=Validation(records, styled),
        objective=Objective(part, temperature),
    )
    assert made.evaluate()["eval_loss"] == pytest.approx(wanted, rel=1e-5)
    made.train()
    assert next(line["loss"] for line in made.state.log_history if "loss" in line) == pytest.approx(wanted, rel=1e-4)


def test_evaluation_changes_nothing_in_training(tmp_path: Path, prompt: Prompt) -> None:
    """With dropout, which is to act in each step and in no evaluation."""
    settings = {"dropout": 0.3, "max_steps": 3, "per_device_train_batch_size": 4}
    plain = trainer(tmp_path / "plain", prompt, RECORDS, **settings)
    evaluated = trainer(tmp_path / "evaluated", prompt, RECORDS, eval_strategy="steps", eval_steps=1, **settings)
    for one in (plain, evaluated):
        torch.manual_seed(3)
        one.train()
    assert [line["step"] for line in evaluated.state.log_history if "eval_accuracy" in line] == [1, 2, 3]
    for one, other in zip(plain.model.parameters(), evaluated.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_accuracy_drives_best_checkpoint_and_early_stopping(tmp_path: Path, prompt: Prompt) -> None:
    made = trainer(
        tmp_path,
        prompt,
        RECORDS,
        max_steps=6,
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=1,
        load_best_model_at_end=True,
        metric_for_best_model="accuracy",
        greater_is_better=True,
        learning_rate=0.0,
    )
    made.add_callback(EarlyStoppingCallback(early_stopping_patience=2))
    made.train()
    assert made.state.global_step == 3  # nothing is learnt, so the first evaluation stays the best
    assert made.state.best_model_checkpoint == str(tmp_path / "checkpoint-1")
    first = next(line["eval_accuracy"] for line in made.state.log_history if "eval_accuracy" in line)
    assert made.state.best_metric == first


def test_a_sample_of_whole_passages_is_asked_while_training_and_all_at_the_end(tmp_path: Path, prompt: Prompt) -> None:
    asked = [to_record(Question(str(i), f"第{i // 3}篇。", f"問{i}", ("甲", "乙", "丙"), i % 3 + 1)) for i in range(30)]
    sample = Validation(asked, prompt, sample=10)
    passages = {asked[place].question.passage for place in sample.sampled}
    assert sample.sampled == [i for i, record in enumerate(asked) if record.question.passage in passages]
    assert len(sample.sampled) == 9 and sample.sampled == Validation(asked, prompt, sample=10).sampled
    assert sample.sampled != list(range(9))  # the first passages of a file may be of one kind
    least = Validation(asked, prompt, sample=1).sampled  # a passage at the least
    assert least == list(range(least[0] // 3 * 3, least[0] // 3 * 3 + 3))
    assert Validation(asked, prompt, sample=30).sampled == Validation(asked, prompt).sampled == list(range(30))

    made = trainer(tmp_path, prompt, asked, max_steps=2, eval_strategy="steps", eval_steps=1, learning_rate=0.0)
    made.validation = sample
    made.train()
    while_training = [line["eval_accuracy"] for line in made.state.log_history if "eval_accuracy" in line]
    scores = Scorer(model().eval(), prompt, torch.device("cpu"))(asked)
    right = [score.prediction == record.question.answer for score, record in zip(scores, asked, strict=True)]
    assert while_training == [pytest.approx(sum(right[place] for place in sample.sampled) / 9)] * 2
    assert [question.id for question, _ in made.evaluated[2]] == [str(place) for place in sample.sampled]
    every = made.final_scores()
    assert [question for question, _ in every] == [record.question for record in asked]
    last = made.state.log_history[-1]
    assert last["eval_all_accuracy"] == pytest.approx(sum(right) / 30) and "eval_accuracy" not in last


def test_progress_is_told_row_by_row(prompt: Prompt) -> None:
    told: list[int] = []
    longest = max(len(prompt.sequence(record).inputs) for record in RECORDS)
    mixed = Validation([*RECORDS, FOREIGN], prompt)
    mixed.evaluate(range(10), model().eval(), torch.device("cpu"), longest, told.append)
    assert sum(told) == 10 and len(told) > 5


@pytest.mark.parametrize("shares", [(9, 0), (5, 4), (1, 8)])
def test_divided_weights_are_asked_by_all_as_often_as_by_the_busiest(shares: tuple[int, int], prompt: Prompt) -> None:
    """Two processes, here two threads, which meet in every collective, and have to be in the same one.

    DeepSpeed has one at the beginning of each forward until a step has been trained, and FSDP in its midst.
    """
    validation, barrier, device = Validation(RECORDS, prompt), Barrier(2, timeout=60), torch.device("cpu")
    longest = max(len(prompt.sequence(record).inputs) for record in RECORDS)
    models = [model().eval(), model().eval()]
    said: list[tuple[str, bool]] = [("", False)] * 2
    forwards, scores = [0, 0], {}

    def collective(rank: int, name: str, holds: bool = True) -> bool:
        said[rank] = name, holds
        barrier.wait()
        names, result = {name for name, _ in said}, all(holds for _, holds in said)
        barrier.wait()
        assert names == {name}
        return result

    def process(rank: int, places: range) -> None:
        asked = models[rank]
        asked.register_forward_pre_hook(lambda *_: collective(rank, "begin") and None)
        asked.register_forward_hook(lambda *_: forward(rank))

        def everywhere(fine: bool) -> bool:
            return collective(rank, "everywhere", fine)

        with InLockstep(asked, everywhere):
            found = validation.evaluate(places, asked, device, longest)
        scores.update({question.id: score.log_probs for question, score in found.scores})

    def forward(rank: int) -> None:
        collective(rank, "gather weights")
        forwards[rank] += 1

    parts = (range(shares[0]), range(shares[0], 9))
    threads = [Thread(target=process, args=(rank, part)) for rank, part in enumerate(parts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert forwards[0] == forwards[1] > 0
    alone = Scorer(model().eval(), prompt, device)(RECORDS)
    assert scores.keys() == {record.id for record in RECORDS}
    for record, score in zip(RECORDS, alone, strict=True):
        assert scores[record.id] == pytest.approx(score.log_probs, abs=1e-4)
