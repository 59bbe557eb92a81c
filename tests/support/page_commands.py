"""The commands of the documentation: every line of a fenced or indented block that starts a program."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ("lrc", "accelerate", "make", "python", "pip", "uv", "hf", "git", "cd", "sed", "head", "apt", "unset")
BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^ *```", flags=re.DOTALL | re.MULTILINE)
INDENTED = re.compile(r"(?:^ {4}\S.*\n)+", flags=re.MULTILINE)
START = re.compile(rf"(?:\$ |!|%)?((?:[A-Z_]+=\S+ )*(?:{'|'.join(PROGRAMS)})(?=\s|$).*)")
INLINE = re.compile(r"`(lrc [^`\n]+)`")
# The pages whose `bash` blocks tests/end_to_end/test_docs.py runs, but for lines whose comment says GPU or Hub.
RUN = ("README.md", "docs/tutorial.md", "docs/install.md", "docs/publish.md")


@dataclass(frozen=True)
class Line:
    """A command of a page.

    Args:
        language: of its block; what is `bash` is run.
        text: continued lines joined, without a prompt.
    """

    page: Path
    language: str
    text: str

    @property
    def words(self) -> list[str]:
        """The words of its first program, without a comment and without variables before it."""
        words = shlex.split(self.text, comments=True)
        end = next((place for place, word in enumerate(words) if word in ("&&", "|", ";", ">")), len(words))
        start = next(place for place, word in enumerate(words) if "=" not in word)
        return words[start:end]

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT).as_posix()}: {self.text}"


def pages() -> list[Path]:
    """Every page of documentation."""
    return sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/**/*.md")])


def blocks(page: Path) -> list[tuple[str, str]]:
    """The blocks that may hold commands, by language; one that is indented has none."""
    text = page.read_text(encoding="utf-8")
    fenced = [(found[2], found[3]) for found in BLOCK.finditer(text) if found[2] in ("bash", "text", "powershell", "")]
    blocks = [*fenced, *(("", found[0]) for found in INDENTED.finditer(BLOCK.sub("", text)))]
    return [(language, re.sub(r"\\\n\s*", " ", block)) for language, block in blocks]


def lines(page: Path) -> list[Line]:
    """The commands of a page's blocks."""
    return [
        Line(page, language, found[1].strip())
        for language, block in blocks(page)
        for line in block.splitlines()
        if (found := START.match(line.strip()))
    ]


def inline(page: Path) -> list[Line]:
    """The commands of `lrc` that the sentences of a page name."""
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    return [Line(page, "inline", found[1]) for found in INLINE.finditer(text)]
