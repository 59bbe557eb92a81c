"""How certain answers are, and which of them a person should look at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from lrc.metrics.option_scores import OptionScores
from lrc.runtime.findings import wrap_line

UNCERTAIN = 0.4  # the chosen option's probability; among four, 0.25 is a guess
LISTED = 20


def certainty(score: OptionScores) -> float:
    """The probability of the chosen option."""
    return score.probabilities[score.prediction - 1]


def least_certain(scores: Sequence[OptionScores], count: int = LISTED) -> list[int]:
    """The places of the least certain answers, the worst first."""
    return sorted(range(len(scores)), key=lambda place: (certainty(scores[place]), place))[:count]


def doubts(scores: Sequence[OptionScores]) -> dict[int, str]:
    """Why a person should look at an answer, by place: `uncertain`, `order` or `among the least certain`."""
    found = dict.fromkeys(least_certain(scores), "least certain")
    found |= {place: "order" for place, score in enumerate(scores) if not score.consistent}
    return found | {place: "uncertain" for place, score in enumerate(scores) if certainty(score) < UNCERTAIN}


def describe_certainty(ids: Sequence[str], scores: Sequence[OptionScores]) -> Iterator[str]:
    """The lines that a person is told of answers: how often each option, how many are uncertain, and which."""
    counts = Counter(score.prediction for score in scores)
    positions = ", ".join(f"option {number}: {counts[number]:,}" for number in range(1, max(counts, default=0) + 1))
    yield f"  by position   {positions}"
    few = sum(certainty(score) < UNCERTAIN for score in scores)
    yield f"  uncertain     {few:,} of {len(scores):,} have a probability below {UNCERTAIN:.0%}"
    if differ := sum(not score.consistent for score in scores):
        yield f"  by order      {differ:,} would be answered otherwise in another order of the options"
    places = least_certain(scores)
    listed = ", ".join(f"{ids[place]} ({certainty(scores[place]):.0%})" for place in places)
    yield from wrap_line(f"  look first at {listed}", 16)
