"""The right answers in samples of lm-evaluation-harness, by which its choices are compared with a question's options.

A sample of a multiple-choice task (`--log_samples`) has in `target` what the task's `doc_to_target` gave, as text: the
index of the right choice, from 0, or the choice itself. The choices are in `arguments`, as what was scored after the
prompt: `{"gen_args_0": {"arg_0": "…", "arg_1": " A"}, …}`, or `[["…", " A"], …]` before version 0.4.3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_LETTERS = tuple("ABCDEFGH")


@dataclass(frozen=True)
class Target:
    """The right answer of a sample."""

    said: str  # an index from 0, or a choice
    choices: tuple[str, ...] = ()  # that were scored; empty if they are not known or are the same

    def by_index(self, _options: Sequence[str]) -> int | None:
        """The number of the right option, from 1, if `said` is an index; None if it cannot be one."""
        return int(self.said) + 1 if self.said.isdecimal() and len(self.said) < 3 else None

    def by_text(self, options: Sequence[str]) -> int | None:
        """The number of the right option, from 1, if `said` is a choice, an option or a letter; None if it is none."""
        for texts in (self.choices, tuple(option.strip() for option in options), _LETTERS):
            if self.said in texts:
                return texts.index(self.said) + 1
        return None


# The ways to read a target. Which one is right depends on the task: `2` is the third choice, or the choice 2.
READINGS: tuple[Callable[[Target, Sequence[str]], int | None], ...] = (Target.by_index, Target.by_text)


def read_target(line: Mapping[str, Any]) -> Target | None:
    """Read the right answer of a sample; None if it has none, or several."""
    said = line.get("target")
    if isinstance(said, bool) or not isinstance(said, str | int) or not str(said).strip():
        return None
    arguments = line.get("arguments")
    if isinstance(arguments, dict):
        arguments = list(arguments.values())
    given = arguments if isinstance(arguments, list) else []
    choices = tuple(filter(None, map(_read_choice, given)))
    return Target(str(said).strip(), choices if len(set(choices)) == len(given) else ())


def _read_choice(argument: Any) -> str | None:
    """What was scored after the prompt, without the white space before it; None if it is not there."""
    if isinstance(argument, dict):
        argument = [argument.get("arg_0"), argument.get("arg_1")]
    if isinstance(argument, list) and len(argument) > 1 and isinstance(argument[1], str):
        return argument[1].strip()
    return None
