"""How certain answers are, and which of them a person should check."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from math import isfinite

from lrc.data.score_files import tied_options
from lrc.metrics.option_scores import OptionScores
from lrc.runtime.findings import pad, wrap_line
from lrc.runtime.translation import _, localized

UNCERTAIN = 0.4  # a lower probability of the chosen one of four options, with which a guess has 0.25, is uncertain
LISTED = 20  # answers


def certainty(score: OptionScores) -> float:
    """The probability of the chosen option."""
    return score.probabilities[score.prediction - 1]


def is_uncertain(score: OptionScores) -> bool:
    """Whether the chosen option is little more probable than a guess: below `UNCERTAIN` if there are four.

    For other numbers of options, it is a probability as far between that of a guess and 1: 0.6 if there are two.
    """
    guess = 1 / sum(map(isfinite, score.log_probs))
    return certainty(score) < guess + (UNCERTAIN - 1 / 4) / (1 - 1 / 4) * (1 - guess)


def least_certain(scores: Sequence[OptionScores]) -> list[int]:
    """The indices of the `LISTED` least certain answers, in ascending order of certainty."""
    return sorted(range(len(scores)), key=lambda place: (certainty(scores[place]), place))[:LISTED]


def doubts(scores: Sequence[OptionScores]) -> dict[int, str]:
    """Why a person should check an answer, by its index in `scores`.

    The reason is `uncertain`, see `is_uncertain`; otherwise `order`, if it depends on the order of options; otherwise
    `least certain`, for the `LISTED` least certain ones.
    """
    found = dict.fromkeys(least_certain(scores), "least certain")
    found |= {place: "order" for place, score in enumerate(scores) if not score.consistent}
    return found | {place: "uncertain" for place, score in enumerate(scores) if is_uncertain(score)}


def describe_certainty(ids: Sequence[str], scores: Sequence[OptionScores]) -> Iterator[str]:
    """Lines to print about answers: how often each option was chosen, and which answers to check."""
    counts = Counter(score.prediction for score in scores)
    option = _("option {number}: {count:,}")
    last = max((len(score.probabilities) for score in scores), default=0)  # options that were never chosen count, too
    positions = tuple(option.format(number=n, count=counts[n]) for n in range(1, last + 1))
    few = sum(map(is_uncertain, scores))
    tied = sum(len(tied_options(score.log_probs)) > 1 for score in scores)
    differ = sum(not score.consistent for score in scores)
    listed = tuple(f"{ids[place]} ({certainty(scores[place]):.0%})" for place in least_certain(scores))
    lines = [
        (_("by position"), _("{list}").format(list=positions)),
        (
            _("uncertain"),
            _("{few:,} of {count:,} are hardly better than a guess (with four options, below {limit:.0%})").format(
                few=few, count=len(scores), limit=UNCERTAIN
            ),
        ),
        (
            _("ties"),
            _(
                "{count:,} are arbitrary, since options share the highest score; of equal ones, the first is taken"
            ).format(count=tied),
        ),
        (
            _("by order"),
            _("{count:,} would be answered otherwise in another order of the options").format(count=differ),
        ),
        (_("look first at"), _("{list}").format(list=listed)),
    ]
    absent = {name for name, count in (("ties", tied), ("by order", differ)) if not count}
    for name, said in lines:
        if name not in absent:
            yield from wrap_line(f"  {pad(localized(name), 14)}{localized(said)}", 16)
