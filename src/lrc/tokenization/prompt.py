"""Record → tokens: the only place where prompts are made, for training, evaluation and answering.

Prompt and completion are tokenized separately and joined as ids, so that the boundary between them, and with it the
loss mask, is a length and is never searched for. User text never becomes a control token: BOS and EOS are inserted by
id, and the control tokens of a chat template are only those that the template itself writes.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np

from lrc.config.run_record import DIGIT_STYLES, STYLES, lists_options
from lrc.data.alpaca import Record, question_of, with_question
from lrc.data.input_layouts import one_line, write_listed, write_unlisted
from lrc.data.questions import MAX_OPTIONS, Question
from lrc.packing.tree import TokenSequence, common_prefix
from lrc.runtime.arguments import require_choice
from lrc.runtime.errors import DataError, RecipeError
from lrc.runtime.translation import _
from lrc.tokenization.chat_template import DATE, Chat

TEMPLATES = {
    "chinese-alpaca-2": (
        "[INST] <<SYS>>\nYou are a helpful assistant. 你是一个乐于助人的助手。\n<</SYS>>\n\n"
        "{instruction}\n{input} [/INST]"
    ),
    "alpaca": (
        "Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
    ),
    "plain": "{input}",
    "chat": "{instruction}\n{input}",  # the content of the user's turn, inside the tokenizer's own template
}
AS_DIGIT = "，並以數字回答"  # removed from the instruction in the other styles
JUDGED, VERDICTS = "\n答案：{option}\n這個答案正確嗎？", ("是", "否")  # in style judge: the question about an option
HOW_TO_JUDGE = "請回答是或否。"  # for instruction-tuned bases; in a plain prompt, 答： takes its place
# Control tokens that a tokenizer may not mark as special: <|fim_prefix|>, <tool_call>, </think>, [TOOL_CALLS].
_CONTROL = re.compile(r"<\|.*\|>|</?\w+_\w+>|</?think>|\[/?[A-Z_]+\]")


class Prompt:
    """Makes token sequences from records, for one tokenizer, template and answer style.

    Args:
        tokenizer: from `loading.load_tokenizer`.
        template: a name in `TEMPLATES`.
        answer_style: decides on the completion. `digit`: the number of an option; `digit_after`: the same, but the
            list has it after the option's text; `text`: its text; `judge`: each option has a prompt of its own that
            asks whether it is right, and the completion is 是 or 否.
        list_options: whether the prompt lists the options; by default as `run_record.lists_options` says.
        today: the date that a chat template prints, see `chat_template.Chat`; empty takes `chat_template.DATE`.

    Raises:
        RecipeError: the template or style is unknown; digits without a list of options; `chat` with a tokenizer that
            has no suitable chat template; `judge` with a tokenizer in which 是 and 否 do not differ in a token; or the
            tokenizer has no EOS token.
    """

    def __init__(
        self,
        tokenizer: Any,
        template: str,
        answer_style: str,
        list_options: bool | None = None,
        today: str = "",
    ) -> None:
        require_choice("template", template, tuple(TEMPLATES), RecipeError)
        require_choice("answer_style", answer_style, STYLES, RecipeError)
        self.list_options = lists_options(answer_style, template) if list_options is None else list_options
        if answer_style in DIGIT_STYLES and not self.list_options:
            raise RecipeError(_("list_options is false, but a digit needs the list; set answer_style: text"))
        if template == "chat" and not tokenizer.chat_template:
            raise RecipeError(_("template is chat, but the tokenizer has no chat template; choose alpaca or plain"))
        self.tokenizer, self.template, self.answer_style = tokenizer, template, answer_style
        self.bos = _find_bos(tokenizer)
        self.control = _find_unmarked_control(tokenizer)
        self.chat = Chat(tokenizer, self.control, today or DATE) if template == "chat" else None
        self.end = self.chat.end if self.chat else _find_eos(tokenizer)
        self.lead = self.chat.lead if self.chat else ""  # white space between prompt and answer
        self.digits = [self.encode(f"{self.lead}{number}") for number in range(1, MAX_OPTIONS + 1)]
        self.verdicts = self._encode_verdicts() if answer_style == "judge" else ([], [])

    @property
    def today(self) -> str:
        """The date that a chat template prints, such as 2024-07-26; empty for the other templates."""
        return self.chat.today.isoformat() if self.chat else ""

    @property
    def notes(self) -> list[str]:
        """What was decided for the tokenizer's chat template, one line for each decision."""
        return self.chat.notes if self.chat else []

    def sequence(self, record: Record) -> TokenSequence:
        """The sequence to train on: the prompt, the right answer and the end token.

        In style judge: the prompt about the right option, and 是.

        Raises:
            DataError: the record has no answer.
        """
        if self.answer_style == "judge":
            return self._build_verdict(record, _require_answer(record))
        return self._build_supervised(record, self.prompt(record))

    def supervised_sequences(self, record: Record) -> list[TokenSequence]:
        """All sequences to train on: `sequence`, or in style judge the right verdict on each option that has text.

        Raises:
            DataError: the record has no answer.
        """
        if self.answer_style != "judge":
            return [self.sequence(record)]
        question, answer = question_of(record), _require_answer(record)
        pairs = zip(question.choosable, self.candidates(record), strict=True)
        return [one if number == answer else self.negate(one) for number, one in pairs]

    def candidates(self, record: Record) -> list[TokenSequence]:
        """The sequences to score: the prompt with each option that has text, without an end token.

        In style judge, each option has a prompt of its own, followed by 是. The order is that of `Question.choosable`.

        Raises:
            DataError: the record has no options.
        """
        question = question_of(record)
        if self.answer_style == "judge":
            return _share_stem([self._build_verdict(record, number) for number in question.choosable])
        prompt = self.prompt(record)
        return [self._join(prompt, completion) for completion in self._encode_options(question)]

    def negate(self, candidate: TokenSequence) -> TokenSequence:
        """Replace the verdict of a candidate in style judge by 否."""
        return replace(candidate, tokens=np.append(candidate.inputs, self.verdicts[1][-1]))

    def normalisation(self, asked: str) -> str:
        """The normalisation of scores: in style text the one that was asked for, otherwise `sum`, which is none."""
        return asked if self.answer_style == "text" else "sum"

    def measured(self, record: Record) -> tuple[TokenSequence, int]:
        """Make the sequence to train on, and measure the longest sequence with any option.

        Except in style judge, the prompt, by far the longest part, is tokenized only once.

        Returns:
            `sequence`, and a number of tokens.

        Raises:
            DataError: the record has no answer.
        """
        if self.answer_style == "judge":
            return self.sequence(record), max(len(one.tokens) for one in self.candidates(record))
        prompt = self.prompt(record)
        supervised = self._build_supervised(record, prompt)
        completions = [] if record.question is None else self._encode_options(record.question)
        return supervised, max(len(supervised.tokens), *(len(prompt) + len(one) for one in completions), 0)

    def prompt(self, record: Record, judged: int | None = None) -> list[int]:
        """The ids up to where the answer begins, with exactly one BOS if the base was trained with one.

        Args:
            judged: in style judge, the number of the option that the prompt asks about.
        """
        text = self._fill_template(record, judged)
        if self.chat is None:
            return [*self.bos, *self.encode(text)]
        ids = self.chat.prompt(text)
        return ids if not self.bos or ids[:1] == self.bos else [*self.bos, *ids]

    def text(self, record: Record, judged: int | None = None) -> str:
        """The same prompt as text, without the BOS that the tokenizer adds."""
        text = self._fill_template(record, judged)
        return text if self.chat is None else self.chat.text(text)

    def encode(self, text: str) -> list[int]:
        """Tokenize plain text: no special token is added, and none is recognized in the text."""
        if any(token in text for token in self.control) and hasattr(self.tokenizer, "backend_tokenizer"):
            return _without_added_tokens(self.tokenizer.backend_tokenizer, text)
        ids: list[int] = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return ids

    def boundary_merges(self, record: Record) -> bool:
        """Whether tokenizing prompt and answer together gives other ids than tokenizing them separately."""
        judged = 1 if self.answer_style == "judge" else None
        text, first = self._fill_template(record, judged), question_of(record).options[0]
        answer = {"text": first, "judge": VERDICTS[0]}.get(self.answer_style, "1")
        return self.template != "chat" and self.encode(text + answer) != self.encode(text) + self.encode(answer)

    def _fill_template(self, record: Record, judged: int | None = None) -> str:
        """The text of the prompt; with `chat`, that of the user's turn."""
        instruction, body = self.texts(record, judged)
        return TEMPLATES[self.template].format_map({"instruction": instruction, "input": body})

    def texts(self, record: Record, judged: int | None) -> tuple[str, str]:
        """The instruction and the input, as template and style require them.

        Args:
            judged: see `prompt`.

        Raises:
            DataError: the record has no question, and template or style need its parts.
        """
        plain = self.template == "plain"
        if self.answer_style == "digit" and not plain:
            return record.instruction, record.input
        question = question_of(record)
        after = self.answer_style == "digit_after"
        body = write_listed(question, number_after=after) if self.list_options else write_unlisted(question)
        if judged is not None:
            # An option is blank here only if all are; then its number takes its place.
            body += JUDGED.format(option=one_line(question.options[judged - 1]) or judged)
            body += "答：" if plain else HOW_TO_JUDGE
        elif plain:
            body += "\n答案："
        instruction = record.instruction if after else record.instruction.replace(AS_DIGIT, "")
        return ("", f"文章：{body}") if plain else (instruction, body)

    def _build_verdict(self, record: Record, number: int) -> TokenSequence:
        """The prompt that asks whether an option is right, followed by 是."""
        *start, verdict = self.verdicts[0]
        return self._join([*self.prompt(record, number), *start], [verdict])

    def _encode_verdicts(self) -> tuple[list[int], list[int]]:
        """The ids of the two verdicts up to the first that differs. Those before it, such as ▁, belong to the prompt.

        Raises:
            RecipeError: none differs.
        """
        right, wrong = (self.encode(self.lead + verdict) for verdict in VERDICTS)
        differ = common_prefix(np.array(right), np.array(wrong))
        if differ >= min(len(right), len(wrong)):
            raise RecipeError(
                _("answer_style is judge, but the tokenizer writes {verdicts} and {verdicts2} alike; use text").format(
                    verdicts=VERDICTS[0], verdicts2=VERDICTS[1]
                )
            )
        return right[: differ + 1], wrong[: differ + 1]

    def _build_supervised(self, record: Record, prompt: list[int]) -> TokenSequence:
        answer = record.output
        if record.question is not None and self.answer_style == "text":
            number = record.question.answer
            answer = None if number is None else record.question.options[number - 1]
        if answer is None:
            raise DataError(_("record {id}: has no answer to train on; give `output`").format(id=record.id))
        return self._join(prompt, [*self.encode(self.lead + answer), self.end])

    def _encode_options(self, question: Question) -> list[list[int]]:
        """The completion of each option that can be chosen."""
        if self.answer_style in DIGIT_STYLES:
            return [self.digits[number - 1] for number in question.choosable]
        # An option is blank here only if all are; then its number takes its place.
        texts = [question.options[number - 1] or str(number) for number in question.choosable]
        return [self.encode(self.lead + text) for text in texts]

    def _join(self, prompt: list[int], completion: list[int]) -> TokenSequence:
        return TokenSequence(np.array(prompt + completion, dtype=np.int64), len(prompt))


def _require_answer(record: Record) -> int:
    """The number of the right option.

    Raises:
        DataError: the record has no question, or no answer.
    """
    answer = question_of(record).answer
    if answer is None:
        raise DataError(_("record {id}: has no answer to train on; give `output`").format(id=record.id))
    return answer


def _share_stem(sequences: list[TokenSequence]) -> list[TokenSequence]:
    """Set the length of the common prefix as the sequences' stem, so that they are packed into one row."""
    first = sequences[0].inputs
    stem = min(common_prefix(first, one.inputs) for one in sequences)
    return [replace(one, stem_length=stem) for one in sequences]


def reordered(record: Record, order: tuple[int, ...]) -> Record:
    """The record with its options in another order; see `Question.reordered`."""
    return with_question(record, question_of(record).reordered(order))


def _find_bos(tokenizer: Any) -> list[int]:
    """The BOS with which the base was trained: a list of one id, or empty."""
    from transformers import SentencePieceBackend

    bos = tokenizer.bos_token_id
    if bos is None:
        return []
    # A sentencepiece tokenizer never adds BOS by itself, even if the base was trained with one, as Llama was.
    added = isinstance(tokenizer, SentencePieceBackend) or tokenizer("a")["input_ids"][:1] == [bos]
    return [bos] if added else []


def _find_unmarked_control(tokenizer: Any) -> list[str]:
    """The control tokens that a tokenizer does not mark as special, such as Qwen's `<think>`.

    They are the added tokens that occur in the chat template or look like control tokens. Other added tokens are text,
    such as Gemma's runs of line breaks and its HTML tags.
    """
    written = f"{tokenizer.chat_template or ''}{tokenizer.chat_control_tokens or ''}"
    names = [str(token) for token in tokenizer.added_tokens_decoder.values() if not token.special]
    return [name for name in names if not name.isspace() and (name in written or _CONTROL.fullmatch(name))]


def _without_added_tokens(backend: Any, text: str) -> list[int]:
    """Tokenize with the steps of the tokenizers library, except for the one that recognizes added tokens."""
    normal = backend.normalizer.normalize_str(text) if backend.normalizer else text
    pieces = (
        [piece for piece, _ in backend.pre_tokenizer.pre_tokenize_str(normal)] if backend.pre_tokenizer else [normal]
    )
    return [token.id for piece in pieces for token in backend.model.tokenize(piece)]


def _find_eos(tokenizer: Any) -> int:
    if tokenizer.eos_token_id is None:
        raise RecipeError(
            _("the tokenizer has no EOS token, so an answer would have no end; choose a base whose tokenizer has one")
        )
    return int(tokenizer.eos_token_id)
