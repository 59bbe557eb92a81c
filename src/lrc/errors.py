"""Everything that lrc refuses, in one tree.

    LrcError                what the user can put right; its findings are printed one a line, exit status 1
    ├── DataError           a workbook, a JSON file or a CSV is not what it should be
    ├── RecipeError         a recipe, or a key that overrides it
    ├── ModelError          a base model, an adapter or a tokenizer
    ├── OutputError         an output that exists, or that cannot be written
    └── MachineError        memory, disk, devices, the number of processes

A finding is one line that gives the place, the value and the cure:
``AI.xlsx, row 17: 正確答案 is 5, expected 1 to 4``.
Wrong usage of the command line is click's ``UsageError``, exit status 2.
"""


class LrcError(Exception):
    """Something in the user's input, recipe, model or machine is wrong.

    Args:
        *findings: one line each; a command prints every one of them on stderr.
    """

    def __init__(self, *findings: str) -> None:
        self.findings = tuple(" ".join(finding.splitlines()) for finding in findings)
        super().__init__("\n".join(self.findings))


class DataError(LrcError):
    """A workbook, a JSON file or a CSV is not what it should be."""


class RecipeError(LrcError):
    """A recipe, or a key that overrides it, cannot be used."""


class ModelError(LrcError):
    """A base model, an adapter or a tokenizer cannot be used."""


class OutputError(LrcError):
    """An output exists already, or cannot be written."""


class MachineError(LrcError):
    """The machine lacks memory, disk, a device or a process that the run needs."""
