"""What setup.cfg cannot say: the README without links into the repository, and constraints.txt inside the wheel."""

import re
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
RELATIVE = re.compile(r"(!?)\[([^\]]*)\]\((?![a-z]+://|#)[^)]*\)")


class BuildPy(build_py):
    """Also put the tested versions into the package, where `lrc doctor` and `lrc init` find them."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            shutil.copy(ROOT / "constraints.txt", Path(self.build_lib, "lrc"))


def description() -> str:
    """The README for PyPI, where a relative link or picture leads nowhere: links become their text."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return RELATIVE.sub(lambda found: "" if found[1] else found[2], text)


setup(
    long_description=description(),
    long_description_content_type="text/markdown",
    cmdclass={"build_py": BuildPy},
)
