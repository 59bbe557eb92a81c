"""The texts of the page of `lrc app`, in English and in Traditional Chinese; the Chinese is in lrc's catalogue."""

from __future__ import annotations

from typing import Literal

from lrc.data.questions import MAX_OPTIONS
from lrc.runtime.translation import CHINESE as CATALOGUE
from lrc.runtime.translation import _, localized

Language = Literal["en", "zh_TW"]
BROWSERS = ("zh-TW", "zh-CN")  # the names under which gradio knows Chinese
PREFIX = "lrc_"  # of the keys that are given to gradio, which has texts of its own under some of these names

WORDS: dict[str, str] = {
    # the model
    "intro": _(
        "This model reads a passage and a question and chooses one of the options. It also says how probable it takes "
        "each option to be. It can be wrong."
    ),
    "trained": _("It was trained on {n:,} questions."),
    "untrained": _("It was not trained for this by lrc, as far as its files say."),
    "validated": _(
        "On {n:,} questions, it was right {accuracy:.0%} of the time (confidence interval {low:.0%} to "
        "{high:.0%}); the best simple rule without a model, {baseline}, is right {baseline_accuracy:.0%} of the time."
    ),
    "new_passages": _("It had not seen their passages before."),
    "shared_passages": _(
        "But it was trained on the passages of {n:,} of them, so it may be right less often about new passages."
    ),
    "validated_on_training": _("But it was trained on these questions, so this says nothing about new ones."),
    "not_validated": _("How often it is right has not been measured."),
    "technical": _("Technical details"),
    "asked": _("template {template}, answers in {style} style, {votes} orders of the options"),
    # asking
    "one": _("One question"),
    "many": _("A workbook"),
    "paste": _("Paste a whole question at once"),
    "pasted": _("Passage, question and options, one below the other"),
    "fill_in": _("Fill in the fields"),
    "passage": _("Passage (文章)"),
    "question": _("Question (問題)"),
    "options": _("Options (選項)"),
    "option": _("Option {n}"),
    "add": _("Add an option"),
    "ask": _("Answer"),
    "examples": _("Examples"),
    "waiting": _("The answer will be shown here."),
    "file": _("A workbook (.xlsx, .ods, .csv, .jsonl) or Alpaca JSON"),
    "ask_all": _("Answer every question"),
    "complete": _("Done"),
    "progress": _("{done:,} of {total:,} questions"),
    "download": _("Download the answers as CSV"),
    "download_workbook": _("Download the workbook with the answers"),
    # the answer
    "answer": _("Answer: option {n}"),
    "guess": _("Practically a guess: the options' probabilities are almost the same."),
    "shortened": _(
        "The passage is too long for this model, which has {limit:,} positions: only the parts nearest to the "
        "question were read."
    ),
    "probabilities": _("Probability of each option"),
    "averaged": _("Probability of each option (averaged over {n} orders of the options)"),
    "chosen": _("chosen"),
    "blank": _("blank; never chosen"),
    "order_effect": _("Does the order of the options matter?"),
    "same": _("No: all {n} orders give the same answer."),
    "differ": _("Yes: option {prediction} is the answer in {agree} of {n} orders."),
    "caption": _("Probability of each option, by the order in which the prompt lists them"),
    "order": _("Order"),
    "unlisted": _("No: this model's prompt does not list the options."),
    "fixed": _("Only one order was used: an option refers to the positions of others."),
    # a file's answers
    "answered": _("{n:,} questions answered"),
    "answered_one": _("One question answered"),
    "guesses": _("Practically a guess: {guesses:,} of {n:,} answers."),
    "no_guess": _("No answer is practically a guess."),
    "counts": _("Answers by option"),
    "size": _("The interval holds with 95 percent confidence; n = {n:,}, effective n = {effective:.0f}"),
    "baseline": _("Without a model ({name}): {share:.1%}"),
    "first": _("The first {shown:,} of {n:,} answers; the download has all"),
    "all": _("All {n:,} answers"),
    "all_one": _("The answer"),
    "id": _("ID"),
    "chosen_option": _("Chosen answer"),
    "probability": _("Probability"),
    "is_guess": _("practically a guess"),
    "told": _("Found in the file"),
    "refused": _("Not answered"),
    "--sheet": _(
        "--sheet is an option of lrc on the command line; for this page, unhide that sheet and move it to the front, "
        "or save it as a file of its own"
    ),
    "--columns": _(
        "--columns is an option of lrc on the command line; for this page, write the headers 文章, 問題, 選項1, 選項2 "
        "and so on into the file"
    ),
    "more": _("… and {n:,} more; `lrc check` shows all"),
}
BASELINES: dict[str, str] = {
    "majority": _("always the most frequent answer"),
    "longest option": _("always the longest option"),
    "bigram overlap": _("the option that shares most characters with the passage"),
    "sliding window": _("the option whose words stand closest together in the passage"),
}


def translate(language: Language, key: str, **values: object) -> str:
    """A text in a language, with its values filled in."""
    text = WORDS[key]
    return localized(text.format(**values), language)


def spell_baseline(language: Language, name: str) -> str:
    """A baseline's description for visitors."""
    return localized(BASELINES.get(name, name), language)


def choose_language(accept_language: str | None) -> Language:
    """The language of the page for a browser that sends this Accept-Language header.

    The first language in it decides. It counts as Chinese only under a name that gradio knows, too: gradio chooses the
    language of labels, and it must be that of the page.
    """
    first = (accept_language or "").split(",")[0].partition(";")[0].strip()
    return CATALOGUE if first in BROWSERS else "en"


def translations() -> dict[str, dict[str, str]]:
    """All labels by locale, as `gr.I18n` takes them; each option has a key of its own."""
    return {"en": _spell_labels("en")} | dict.fromkeys(BROWSERS, _spell_labels(CATALOGUE))


def _spell_labels(language: Language) -> dict[str, str]:
    labels = {f"{PREFIX}{key}": localized(text, language) for key, text in WORDS.items()}
    options = {f"{PREFIX}option{n}": translate(language, "option", n=n) for n in range(1, MAX_OPTIONS + 1)}
    # What gradio tells a screen reader when its work has ended; it has no text of its own under this name.
    return labels | options | {"common.complete": labels[f"{PREFIX}complete"]}
