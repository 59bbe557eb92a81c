"""The accuracy of a merged model as lm-evaluation-harness measures it, beside lrc's, on the same questions.

    pip install lm_eval
    python benchmarks/harness.py --model MERGED --data data/AI_validation.json [--questions 100]

The harness is given texts, the prompt and each option's completion, and tokenizes and scores them in its own way, one
option at a time. Where it joins the tokens at the boundary that lrc keeps apart (see `lrc preview`), scores may differ;
those questions are counted.
"""

from __future__ import annotations

import argparse
import random
import warnings
from pathlib import Path
from typing import Any

from bench import machine


def main() -> None:
    """Ask both and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a folder that `lrc merge` wrote")
    parser.add_argument("--data", type=Path, required=True, help="a labelled workbook or Alpaca JSON")
    parser.add_argument("--questions", type=int, default=100, help="drawn with seed 0")
    flags = parser.parse_args()
    warnings.simplefilter("ignore")

    from lrc.answering.load import load_scorer
    from lrc.answering.options import ScoringOptions
    from lrc.data.sources import read_records
    from lrc.metrics.accuracy import wilson

    records = read_records(flags.data)
    records = random.Random(0).sample(records, min(flags.questions, len(records)))
    scorer = load_scorer(str(flags.model), ScoringOptions())
    mine = scorer(records)
    theirs = harness(str(flags.model), scorer, records, mine)
    print(machine())
    answers = [record.question.answer for record in records if record.question]
    for name, chosen in (("lrc", [score.prediction for score in mine]), ("harness", [best for best, _ in theirs])):
        hits = sum(one == answer for one, answer in zip(chosen, answers, strict=True))
        low, high = wilson(hits, len(answers))
        print(f"{name}: {hits / len(answers):.4f} ({low:.4f} to {high:.4f}), n = {len(answers)}")
    apart = [
        max(abs(a - b) for a, b in zip(score.likelihoods, found, strict=True))
        for score, (_, found), record in zip(mine, theirs, records, strict=True)
        if not scorer.prompt.boundary_merges(record)
    ]
    same = sum(score.prediction == best for score, (best, _) in zip(mine, theirs, strict=True))
    print(f"same answer: {same} of {len(records)}")
    print(
        f"boundary kept by both: {len(apart)} questions, log-likelihoods differ by {max(apart, default=0):.1e} at most"
    )


def harness(model: str, scorer: Any, records: list[Any], mine: list[Any]) -> list[tuple[int, list[float]]]:
    """The harness's choice for each question, normalised as lrc's, and its log-likelihood of every option."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    from lrc.config.run_record import DIGIT_STYLES
    from lrc.metrics.option_scores import option_lengths

    prompt = scorer.prompt
    judge = HFLM(model, tokenizer=prompt.tokenizer, dtype="float32", device=str(scorer.device), max_length=4096)
    texts = []
    for record in records:
        start = len(prompt.bos)
        context = prompt.tokenizer.decode(prompt.prompt(record)[start:], skip_special_tokens=False)
        options = record.question.options
        texts.append(
            [(context, str(k) if prompt.answer_style in DIGIT_STYLES else o) for k, o in enumerate(options, start=1)]
        )
    asked = [Instance("loglikelihood", {}, pair, place) for place, pairs in enumerate(texts) for pair in pairs]
    found = iter(judge.loglikelihood(asked, disable_tqdm=True))
    chosen = []
    for pairs, score in zip(texts, mine, strict=True):
        likelihoods = [next(found)[0] for _ in pairs]
        normalisation = "sum" if prompt.answer_style in DIGIT_STYLES else scorer.normalisation
        scores = [
            a / b
            for a, b in zip(likelihoods, option_lengths(normalisation, score.tokens, score.characters), strict=True)
        ]
        chosen.append((max(range(len(scores)), key=scores.__getitem__) + 1, likelihoods))
    return chosen


if __name__ == "__main__":
    main()
