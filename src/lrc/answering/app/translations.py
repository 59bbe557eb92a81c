"""What the page of `lrc app` says, in English and in Traditional Chinese."""

from __future__ import annotations

from typing import Literal

from lrc.data.questions import MAX_OPTIONS

Language = Literal["en", "zh"]
CHINESE = ("zh-TW", "zh-CN")  # gradio has no others
PREFIX = "lrc_"  # of the keys that gradio gets, which has words of its own under some of these names

_ENGLISH = {
    "intro": "Paste a passage and a question, or upload a workbook.",
    "one": "One question",
    "many": "A workbook",
    "passage": "Passage (文章)",
    "question": "Question (問題)",
    "option": "Option {n}",
    "add": "Add an option",
    "ask": "Answer",
    "examples": "Examples",
    "waiting": "The answer will be shown here.",
    "file": "A workbook (.xlsx, .ods, .csv, .jsonl) or Alpaca JSON",
    "ask_all": "Answer every question",
    "download": "Download the CSV",
    "answer": "Answer: option {n}",
    "probabilities": "Probability of each option",
    "votes": "averaged over {n} orders of the options",
    "chosen": "chosen",
    "blank": "blank; never chosen",
    "guess": "Little better than a guess: the probabilities are nearly uniform.",
    "order_effect": "Does the order of the options matter?",
    "same": "No: all {n} orders give the same answer.",
    "differ": "Yes: option {prediction} is the answer in {agree} of {n} orders.",
    "caption": "Probability of each option, by the order in which the prompt lists them",
    "order": "Order",
    "unlisted": "No: this model's prompt does not list the options.",
    "fixed": "Only one order was used: an option refers to the positions of others.",
    "answered": "{n} questions answered",
    "counts": "Answers by option",
    "accuracy": "Accuracy {share:.1%} (95%: {low:.1%} to {high:.1%}), n = {n}, effective n = {effective:.0f}",
    "baseline": "Baseline without a model ({name}): {share:.1%}",
    "refused": "Not answered",
    "told": "Found in the file",
}
_CHINESE = {
    "intro": "貼上一篇文章和一個問題，或上傳整份活頁簿。",
    "one": "單一問題",
    "many": "整份活頁簿",
    "passage": "文章",
    "question": "問題",
    "option": "選項{n}",
    "add": "增加選項",
    "ask": "作答",
    "examples": "範例",
    "waiting": "答案會顯示在這裡。",
    "file": "活頁簿（.xlsx、.ods、.csv、.jsonl）或 Alpaca JSON",
    "ask_all": "全部作答",
    "download": "下載 CSV",
    "answer": "答案：選項{n}",
    "probabilities": "各選項的機率",
    "votes": "{n} 種選項順序的平均",
    "chosen": "選中",
    "blank": "空白，不會被選",
    "guess": "幾乎等於用猜的：各選項的機率相差不大。",
    "order_effect": "選項的順序有影響嗎？",
    "same": "沒有：{n} 種順序的答案都相同。",
    "differ": "有：{n} 種順序中，{agree} 種的答案是選項{prediction}。",
    "caption": "提示詞以不同順序列出選項時，各選項的機率",
    "order": "順序",
    "unlisted": "沒有：這個模型的提示詞不會列出選項。",
    "fixed": "這一題只用了一種順序，因為有選項提到其他選項的位置。",
    "answered": "已回答 {n} 題",
    "counts": "各選項的答案數",
    "accuracy": "正確率 {share:.1%}（95%：{low:.1%} 到 {high:.1%}），n = {n}，有效題數 {effective:.0f}",
    "baseline": "不用模型的基準（{name}）：{share:.1%}",
    "refused": "未作答",
    "told": "檔案檢查結果",
}
LABELS: dict[Language, dict[str, str]] = {"en": _ENGLISH, "zh": _CHINESE}


def say(language: Language, key: str, **values: object) -> str:
    """One label, with its values filled in."""
    return LABELS[language][key].format(**values)


def preferred(accept_language: str | None) -> Language:
    """The language of the page for a browser that sends this Accept-Language header.

    Its first choice decides, and is Chinese only under a name that gradio knows too: the labels are gradio's to choose,
    and page and labels must not differ.
    """
    first = (accept_language or "").split(",")[0].partition(";")[0].strip()
    return "zh" if first in CHINESE else "en"


def translations() -> dict[str, dict[str, str]]:
    """Every label by locale, as `gr.I18n` takes them; the options have a key each."""
    spelt = {
        language: {f"{PREFIX}{key}": text for key, text in labels.items()}
        | {f"{PREFIX}option{number}": labels["option"].format(n=number) for number in range(1, MAX_OPTIONS + 1)}
        for language, labels in LABELS.items()
    }
    return {"en": spelt["en"]} | dict.fromkeys(CHINESE, spelt["zh"])
