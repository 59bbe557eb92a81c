"""Evaluation during training: the loss of the answers and the accuracy, and the scoring that is chosen by them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import Any

import numpy as np
import torch

from lrc.answering.scoring import Scorer
from lrc.config.run_record import NORMALISATIONS
from lrc.data.alpaca import Record, question_of
from lrc.data.questions import Question
from lrc.metrics.accuracy import accuracy, passages_of
from lrc.metrics.calibration import at_bound, fit_temperature
from lrc.metrics.option_scores import OptionScores
from lrc.packing.log_probs import sequence_scores
from lrc.runtime.progress import Advance
from lrc.runtime.translation import Message, _
from lrc.tokenization.prompt import Prompt
from lrc.training.contrastive_loss import Objective, has_contrast

AUTO = "auto"  # take the normalisation with the best accuracy on the validation questions


@dataclass(frozen=True)
class EvalShard:
    """One process's part of an evaluation."""

    loss_sum: float  # negative log-likelihood of the answers, in nats
    tokens: int  # supervised tokens
    scores: list[tuple[Question, OptionScores]]  # of the records that are questions

    @property
    def answered(self) -> list[tuple[Question, int]]:
        """The questions that have an answer, each with its prediction."""
        return [(question, score.prediction) for question, score in self.scores if question.answer]

    def contrast_losses(self, temperature: float) -> list[float]:
        """The loss over the options of each question that has one, in nats; see `OptionContrast.loss`.

        Args:
            temperature: what scores are divided by.
        """
        return [_contrast_loss(*pair, temperature) for pair in self.scores if has_contrast(pair[0])]


@dataclass(frozen=True)
class Validation:
    """The validation questions, and how they are scored.

    Args:
        records: the questions.
        prompt: renders them.
        normalisation: see `Scorer`; `auto` is by character during training, and chosen after it.
        sample: how many questions are evaluated during training; None is all.
    """

    records: Sequence[Record]
    prompt: Prompt
    normalisation: str = NORMALISATIONS[0]
    sample: int | None = None

    @cached_property
    def sampled(self) -> list[int]:
        """The indices of the questions that are evaluated during training: whole passages, the same in every run."""
        if self.sample is None or self.sample >= len(self.records):
            return list(range(len(self.records)))
        passages: dict[str, list[int]] = {}
        for place, record in enumerate(self.records):
            passage = record.input if record.question is None else record.question.source_passage
            passages.setdefault(passage, []).append(place)
        groups = list(passages.values())
        Random(0).shuffle(groups)
        chosen = groups[0]
        for group in groups[1:]:
            if len(chosen) + len(group) <= self.sample:
                chosen = chosen + group
        return sorted(chosen)

    def evaluate(
        self,
        places: Sequence[int],
        model: Any,
        device: torch.device,
        row_tokens: int,
        advance: Advance = lambda done=1: None,
    ) -> EvalShard:
        """Score the questions at `places`, answers and options in one pass.

        Args:
            places: indices into `records`.
            model: a causal language model in eval mode.
            device: where its inputs go.
            row_tokens: token budget of a row.
            advance: is called with the number of questions done.
        """
        if not places:  # a forward may be a collective, in which every process has to take part
            self.evaluate(range(len(self.records))[:1], model, device, row_tokens)
            return EvalShard(0.0, 0, [])
        records = [self.records[place] for place in places]
        asked = [record for record in records if record.question is not None]
        others = [self.prompt.sequence(record) for record in records if record.question is None]
        normalisation = NORMALISATIONS[0] if self.normalisation == AUTO else self.normalisation
        ask = Scorer(model, self.prompt, device, row_tokens, normalisation=normalisation, with_answers=True)
        scores = ask(asked, advance)
        likelihood = float(sequence_scores(model, others, device, row_tokens).sum())
        advance(len(others))
        likelihood += sum(score.answer_log_prob or 0.0 for score in scores)
        sequences = others + [sequence for record in asked for sequence in self.prompt.supervised_sequences(record)]
        return EvalShard(
            -likelihood,
            sum(len(sequence.tokens) - sequence.prompt_length for sequence in sequences),
            list(zip(map(question_of, asked), scores, strict=True)),
        )


def combine(tallies: Sequence[EvalShard], prefix: str, objective: Objective = Objective()) -> dict[str, float]:
    """The metrics of all processes together: the loss as training computes it, and accuracy with its interval.

    Args:
        tallies: the parts of all processes.
        prefix: of the names of the metrics, such as `eval`.
        objective: what is trained. The loss is that of all questions as one step, in the order of their options, and
            with the right option as the target, also where the training has soft labels.
    """
    tokens = max(sum(tally.tokens for tally in tallies), 1)
    loss, part = sum(tally.loss_sum for tally in tallies) / tokens, objective.option_contrast
    if part:
        losses = [one for tally in tallies for one in tally.contrast_losses(objective.contrast_temperature)]
        loss = (1.0 - part) * loss + part * sum(losses) / max(len(losses), 1)
    metrics = {f"{prefix}_loss": loss}
    pairs = [pair for tally in tallies for pair in tally.answered]
    if pairs:
        questions, predictions = zip(*pairs, strict=True)
        figures = accuracy(predictions, [question.answer for question in questions], passages_of(questions))
        metrics |= {f"{prefix}_{key}": figures[key] for key in ("accuracy", "ci_low", "ci_high")}
    return metrics


class InLockstep:
    """In the block, all processes run equally many forwards, which sharded weights (FSDP, ZeRO-3) require.

    Before each forward, a process tells the others that it has one. When it has no more, it repeats its last one for as
    long as another process still has some.

    Args:
        model: the model whose forwards are counted.
        everywhere: a collective that returns whether its argument is true in every process.
    """

    def __init__(self, model: Any, everywhere: Callable[[bool], bool]) -> None:
        self._model, self._everywhere = model, everywhere
        self._last: tuple[tuple[Any, ...], dict[str, Any]] | None = None

    def __enter__(self) -> InLockstep:
        # Before DeepSpeed's own hook, in which all processes compare notes until a step has been trained.
        self._hook = self._model.register_forward_pre_hook(self._before, with_kwargs=True, prepend=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        self._hook.remove()
        if kind is not None or self._last is None:
            return
        args, kwargs = self._last
        while not self._everywhere(True):
            with torch.no_grad():
                self._model(*args, **kwargs)

    def _before(self, model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._last = args, kwargs
        self._everywhere(False)


@dataclass(frozen=True)
class FittedScoring:
    """The normalisation and the temperature that suit a trained model, which later commands use."""

    scores: list[tuple[Question, OptionScores]]  # normalised and calibrated accordingly
    score_normalisation: str
    temperature: float
    accuracies: dict[str, float]  # of each normalisation; empty unless texts are scored

    @classmethod
    def of(cls, scores: Sequence[tuple[Question, OptionScores]], prompt: Prompt, normalisation: str) -> FittedScoring:
        """Choose the normalisation, if the recipe leaves it open, and fit the temperature.

        Args:
            scores: of the trained model on the validation questions, in one order of their options.
            prompt: with which they were scored.
            normalisation: the recipe's `score_normalisation`.
        """
        names = NORMALISATIONS if prompt.answer_style == "text" else ()
        by_name = {name: [(question, score.normalised(name)) for question, score in scores] for name in names}
        accuracies = {name: _accuracy(some) for name, some in by_name.items() if scores}
        # If several are best, `max` takes the first: by character.
        best = max(accuracies, key=accuracies.__getitem__, default=NORMALISATIONS[0])
        chosen = best if normalisation == AUTO else normalisation
        found = by_name.get(chosen, list(scores))
        answered = [(score.log_probs, question.answer) for question, score in found if question.answer]
        temperature = fit_temperature([one[0] for one in answered], [one[1] for one in answered])
        calibrated = [(question, score.calibrated(temperature)) for question, score in found]
        return cls(calibrated, chosen, temperature, accuracies)

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics to log."""
        accuracies = {f"eval_accuracy_{name}": value for name, value in self.accuracies.items()}
        return {**accuracies, "eval_temperature": self.temperature}

    def describe(self) -> Message:
        """One line about it."""
        shares = tuple(
            _("{value:.4f} by {name}").format(value=value, name=name) for name, value in self.accuracies.items()
        )
        text = _("validation: temperature {temperature:.4g}; {fitted}")
        if shares:
            text = _(
                "validation: accuracy {shares}; scored by {normalisation}; temperature {temperature:.4g}; {fitted}"
            )
        fitted = at_bound(self.temperature) or _("fitted with one vote of this model")
        return text.format(
            shares=shares, normalisation=self.score_normalisation, temperature=self.temperature, fitted=fitted
        )


def _contrast_loss(question: Question, score: OptionScores, temperature: float) -> float:
    logits = np.array(score.log_probs) / temperature
    return float(np.logaddexp.reduce(logits) - logits[(question.answer or 0) - 1])


def _accuracy(scores: Sequence[tuple[Question, OptionScores]]) -> float:
    hits = [score.prediction == question.answer for question, score in scores]
    return sum(hits) / len(hits)
