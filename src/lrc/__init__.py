"""LoRA for reading comprehension: workbook in, adapter and submission out.

For a notebook: `read_questions`, `to_questions`, `to_frame`, `convert`, `Answerer`, `Question` and `LrcError`. They are
imported when they are used, so that `import lrc` stays light.
"""

from importlib import import_module

TYPE_CHECKING = False  # that of typing, whose import takes time in which a signal ends in a traceback
if TYPE_CHECKING:
    from typing import Any

    from lrc.answering.answerer import Answerer as Answerer
    from lrc.commands.convert import convert as convert
    from lrc.data.frames import read_questions as read_questions
    from lrc.data.frames import to_frame as to_frame
    from lrc.data.frames import to_questions as to_questions
    from lrc.data.questions import Question as Question
    from lrc.runtime.errors import LrcError as LrcError

__version__ = "0.1.0"
DISTRIBUTION = "lora-reading-comprehension"  # what pip installs lrc by; `lrc` on PyPI is somebody else's

_PLACES = {
    "Answerer": "lrc.answering.answerer",
    "LrcError": "lrc.runtime.errors",
    "Question": "lrc.data.questions",
    "convert": "lrc.commands.convert",
    "read_questions": "lrc.data.frames",
    "to_frame": "lrc.data.frames",
    "to_questions": "lrc.data.frames",
}


def __getattr__(name: str) -> "Any":
    if name not in _PLACES:
        raise AttributeError(f"module 'lrc' has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})
