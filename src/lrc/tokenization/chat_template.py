"""Applies the tokenizer's own chat template to a question, after checking that the template does what lrc needs.

A template is somebody else's program: it may drop or change the text, print today's date, open a thinking block before
the answer, or raise. So it is checked with a probe text first, and each prompt is checked again.
"""

from __future__ import annotations

import re
from copy import copy
from datetime import date
from functools import cached_property
from typing import Any, NamedTuple

from transformers.utils.chat_template_utils import _compile_jinja_template

from lrc.runtime.errors import DataError, RecipeError
from lrc.runtime.translation import _

# The date that a template prints as today's, so that prompts are the same in training and answering. It is the default
# in the templates of Llama 3.
DATE = "2024-07-26"
CURE = _("choose template alpaca or plain, or a base whose tokenizer has another one")
# The texts that lrc's prompts consist of, and characters that a template may interpret; long, since some truncate.
PROBE = (
    "請根據以下輸入回答:\n\n小明 Xiao-Ming said: \"a < b & c > d\", 'x'  {{ y }} {% z %} \\n #1.\n"
    + "「今天，（一）很長、很長；" * 40
    + "」……\n問題：ＡＢ？\n1: 甲\n2: Bc d"
    + "\n小明在台北工作。" * 4000
    + "\nEnd"
)
ANSWER = "丙 Answer 3"
RENDERINGS = 16  # of the probe: a template that picks one of two texts at random is missed once in 32,768 checks
_MARK = re.compile(r"[<\[◁][^\s<>\[\]◁▷]{1,40}[>\]▷]")
# The marks of a thinking block: <think>, <seed:think>, <|begin_of_thought|>, [THINK], ◁think▷ …
_THOUGHT = re.compile(r"(?<!no)(?<!no_)(?:think|thought|reason)(?!\w*off)", re.IGNORECASE)
_END = re.compile(r"/|(?<![a-z])end(?![a-z])", re.IGNORECASE)
_EMPTY_THOUGHT = re.compile(rf"({_MARK.pattern})\s*({_MARK.pattern})\s*$")


class Turn(NamedTuple):
    """The text around an answer in a conversation."""

    lead: str  # white space between the prompt and the answer
    after: str  # what follows the answer


class Chat:
    """A chat template that keeps the user's text, leads up to the answer, and ends the answer with a token.

    Args:
        tokenizer: has a chat template.
        control: control tokens that the tokenizer does not mark as special; a user's text is never tokenized as one.
        today: the date that the template prints, such as 2024-07-26.

    Raises:
        RecipeError: the template does not do that; the message says what it does instead.
    """

    def __init__(self, tokenizer: Any, control: list[str], today: str = DATE) -> None:
        self.today = date.fromisoformat(today)
        self.tokenizer = copy(tokenizer)  # so that the tokenizer itself is saved unchanged
        self.tokenizer.chat_control_tokens = control
        self.parts = False  # whether the content of a turn is a list of parts instead of a text
        if problem := self._check_template():
            self.parts = True
            if self._check_template():
                raise RecipeError(_("chat template: {fault}; {cure}").format(fault=problem, cure=CURE))

    def prompt(self, text: str) -> list[int]:
        """Tokenize a conversation that begins with the user's text, up to where the answer begins.

        Raises:
            DataError: the template raises an error for this text, or does not keep all of it.
        """
        try:
            shown = self.text(text)
            ids: list[int] = self._apply(text, add_generation_prompt=True, sanitize_control_tokens=True)
        except Exception as error:  # a template may raise anything
            raise DataError(
                _("chat template: {explain} (of the question {text}); {cure}").format(
                    explain=_explain(error), text=_short(text), cure=CURE
                )
            ) from error
        if text.strip() not in shown:
            raise DataError(
                _("chat template: does not keep the question {text} whole; {cure}").format(text=_short(text), cure=CURE)
            )
        return ids

    def text(self, text: str, **settings: Any) -> str:
        """Render the same conversation as text.

        Args:
            settings: variables of the template.
        """
        return str(self._apply(text, add_generation_prompt=True, tokenize=False, **settings))

    def turn(self, text: str) -> Any:
        """The `content` of a message, in the form that the template takes."""
        return [{"type": "text", "text": text}] if self.parts else text

    @cached_property
    def end(self) -> int:
        """The id of the token that ends an answer."""
        return self._list_end_tokens()[self._find_end_token() or ""]

    @cached_property
    def lead(self) -> str:
        """The white space between prompt and answer, if the tokens of a conversation have it there."""
        turn = self._find_turn()
        lead = turn.lead if turn else ""
        asked, answered = self._apply("問", add_generation_prompt=True), self._apply("問", "2")
        wanted = self.tokenizer(f"{lead}2", add_special_tokens=False)["input_ids"]
        return lead if answered[: len(asked) + len(wanted)] == [*asked, *wanted] else ""

    @cached_property
    def notes(self) -> list[str]:
        """What was decided for the template, one line for each decision."""
        notes: list[str] = []
        if self.text(PROBE, enable_thinking=True) != self.text(PROBE):
            notes.append(
                _("chat template: thinking is switched off (enable_thinking: false), the answer follows directly")
            )
        if self.parts:
            notes.append(_("chat template: takes the content of a turn in parts"))
        if self._render_on(date(2001, 2, 3)) != self.text(PROBE):
            text = _("chat template: prints a date, which is {today} in training and answering alike")
            notes.append(text.format(today=self.today))
        return notes

    def _check_template(self) -> str | None:
        """What is wrong with the template, in words; None if nothing is."""
        try:
            renderings = {self.text(PROBE) for _attempt in range(RENDERINGS)}
            if len(renderings) > 1:
                return _("renders the same question differently each time")
            if PROBE not in (prompt := renderings.pop()):
                return _("does not keep the text of a question whole: it drops, cuts or changes some of it")
            tail = prompt[prompt.rindex(PROBE) + len(PROBE) :]
            opened, closed = _find_thought_marks(tail)
            if len(opened) > len(closed):
                text = _("opens a thinking block ({mark}) where the answer belongs, with thinking off")
                return text.format(mark=opened[-1])
            return self._check_turn()
        except Exception as error:  # a template may raise anything
            return _explain(error)

    def _check_turn(self) -> str | None:
        """What is wrong with how the template begins and ends an answer; None if nothing is."""
        turn = self._find_turn()
        if turn is None:
            ignored = self._apply(PROBE, add_generation_prompt=False, tokenize=False) == self.text(PROBE)
            if ignored:
                return _(
                    "ignores add_generation_prompt, so that prompt and answer are not the beginning of a conversation "
                    "with that answer"
                )
            return _(
                "renders a prompt differently from the same turns in a conversation, so that prompt and answer are not "
                "the beginning of a conversation with that answer"
            )
        if (name := self._find_end_token()) is None:
            shown = turn.after.strip()[:20]
            text = _("ends a turn with {shown}, which is not a token") if shown else _("ends a turn with nothing")
            return text.format(shown=repr(shown))
        if name not in self.tokenizer.all_special_tokens and not self._is_special(name):
            text = _("ends a turn with {name}, which the tokenizer does not mark as special")
            return text.format(name=name)
        return None

    def _find_turn(self) -> Turn | None:
        """Find the answer in a conversation; None if the conversation does not begin with the prompt."""
        prompt = self.text(PROBE)
        turn = _split_after(prompt, self._apply(PROBE, ANSWER, tokenize=False))
        if turn and not turn.after.strip():  # perhaps the first token of the next turn ends this one
            turn = _split_after(prompt, self._apply(PROBE, ANSWER, "再問", tokenize=False)) or turn
        return turn

    def _find_end_token(self) -> str | None:
        """The token that follows the answer; None if none does."""
        turn = self._find_turn()
        after = turn.after.lstrip() if turn else ""
        return max((name for name in self._list_end_tokens() if after.startswith(name)), key=len, default=None)

    def _list_end_tokens(self) -> dict[str, int]:
        """The ids of added and special tokens, by name."""
        tokenizer = self.tokenizer
        added = {str(token): number for number, token in tokenizer.added_tokens_decoder.items()}
        return {**dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True)), **added}

    def _is_special(self, name: str) -> bool:
        return any(token.special for token in self.tokenizer.added_tokens_decoder.values() if str(token) == name)

    def _render_on(self, day: date) -> str:
        other = copy(self)
        other.today = day
        return other.text(PROBE)

    def _apply(self, *turns: str, **settings: Any) -> Any:
        """Render a conversation in which the user has the first turn."""
        roles = ("user", "assistant")
        messages = [{"role": roles[i % 2], "content": self.turn(text)} for i, text in enumerate(turns)]
        # `strftime_now` is a function, not a variable: transformers keeps it with the compiled template.
        _compile_jinja_template(self.tokenizer.get_chat_template()).globals["strftime_now"] = self.today.strftime
        settings = {"enable_thinking": False, "date_string": self.today.strftime("%d %b %Y"), **settings}
        return self.tokenizer.apply_chat_template(messages, return_dict=False, **settings)


def _split_after(prompt: str, conversation: str) -> Turn | None:
    """Find the answer after a prompt in a conversation, which may omit an empty thinking block at the prompt's end."""
    for start in dict.fromkeys((prompt, _strip_empty_thought(prompt))):
        rest = conversation.removeprefix(start)
        lead = rest[: len(rest) - len(rest.lstrip())]
        if rest != conversation and rest.startswith(lead + ANSWER):
            return Turn(lead, rest[len(lead + ANSWER) :])
    return None


def _find_thought_marks(text: str) -> tuple[list[str], list[str]]:
    """The marks that open a thinking block, and those that close one."""
    marks = [mark for mark in _MARK.findall(text) if _THOUGHT.search(mark)]
    return [mark for mark in marks if not _END.search(mark)], [mark for mark in marks if _END.search(mark)]


def _strip_empty_thought(prompt: str) -> str:
    """Remove the empty thinking block that a prompt may end with."""
    found = _EMPTY_THOUGHT.search(prompt)
    opened, closed = _find_thought_marks(found[0]) if found else ([], [])
    return prompt[: found.start()] if found and opened and closed else prompt


def _explain(error: Exception) -> str:
    first = str(error).strip().partition("\n")[0][:120]
    return _("cannot be rendered ({reason})").format(reason=first or type(error).__name__)


def _short(text: str) -> str:
    return repr(text.strip()[-30:])
