"""What setup.cfg cannot say: a line about an older Python, the README without links into the repository, and
constraints.txt inside the wheel.
"""

import re
import shutil
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
RELATIVE = re.compile(r"(!?)\[([^\]]*)\]\((?![a-z]+://|#)[^)]*\)")

# pip before 23.1, which comes with Python 3.10, looks for the dependencies first, and names one that it does not find.
oldest = re.search(r"python_requires = >=(\d+)\.(\d+)", (ROOT / "setup.cfg").read_text(encoding="utf-8"))
if oldest and sys.version_info < tuple(map(int, oldest.groups())):
    sys.exit(
        "lora-reading-comprehension needs Python {}.{} or later, this is {}.{}".format(
            *oldest.groups(), *sys.version_info
        )
    )


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
