"""Nothing that lrc ships or says installs the package that is called lrc on PyPI: it is somebody else's."""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
from importlib.metadata import distribution, version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import lrc
from lrc.runtime import packages
from lrc.runtime.packages import versions

ROOT = Path(__file__).parents[1]
STRANGER = re.compile(
    r"""\binstall(?:\s+-{1,2}[\w-]+)*\s+['"]?lrc\b(?![\w/.-])"""
    r"""|\b(?:pip3?|uv|pipx|poetry|pdm|conda|mamba)\s+(?:\w+\s+)?(?:install|download|wheel|add|run)\b"""
    r"""(?:[ \t]+[^\s`|;&]+)*?[ \t]+['"]?lrc\b(?![\w/.-])"""
    r"""|\buvx\s+lrc\b"""
    r"""|['"]lrc(?:\[|[=<>~!]=)"""
    r"""|^lrc\s*(\[|[=<>~!]=|$)""",
    re.MULTILINE,
)
TEXTS = {".md", ".py", ".cfg", ".toml", ".txt", ".yaml", ".yml", ".html", ".js", ".ipynb", ".json", ""}
HERE = {"tests/test_distribution.py", "tests/reporting/test_model_card.py"}


def texts() -> list[Path]:
    """Every text file of the repository, but for the tests that name the other package."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    names = listed.stdout.splitlines()
    if not names:
        pytest.skip("no clone")
    return [
        ROOT / name for name in names if Path(name).suffix in TEXTS and name not in HERE and (ROOT / name).is_file()
    ]


@pytest.mark.parametrize(
    "text",
    [
        "pip install lrc",
        "pip install -U lrc",
        "pip install 'lrc[app]'",
        "lrc[app]\n",
        "uv pip install lrc",
        "lrc>=1",
        "pip install torch lrc",
        "pip3 download --dest wheels lrc",
        "pip wheel -w wheels 'lrc'",
        "uv add lrc",
        "uv tool run lrc",
        "uvx lrc doctor",
        'dependencies = ["lrc>=0.1"]',
    ],
)
def test_the_pattern_finds_the_stranger(text: str) -> None:
    assert STRANGER.search(text)


@pytest.mark.parametrize(
    "text",
    ["pip install lora-reading-comprehension", "lrc train x", "install ./lrc-1.whl", "pip install . && lrc doctor"],
)
def test_the_pattern_leaves_the_rest_alone(text: str) -> None:
    assert not STRANGER.search(text)


def test_no_text_installs_the_stranger() -> None:
    found = {
        path.relative_to(ROOT).as_posix(): match[0]
        for path in texts()
        if (match := STRANGER.search(path.read_text(encoding="utf-8", errors="replace")))
    }
    assert not found


# What the commands of the README and the tutorial write, and workbooks of every kind that is read.
USERS = """TRAIN.xlsx 我的資料/題目.xlsb a.xls a.ods a.xlsm a.tsv a.jsonl data/AI_train.json out/answer.csv
    runs/a/lrc_run.json tutorial/data/sample_train.json tutorial/adapter/adapter_config.json mine/AI_fold2_train.json
    mine/sample_validation.json mine/sample_manifest.json mine/adapter_model.safetensors merged/config.json
    recipe.schema.json demo/base/config.json"""


def test_git_leaves_out_what_users_bring_and_make() -> None:
    texts()  # skips where there is no clone
    git = ["git", "-c", "core.quotePath=false"]
    asked = [*git, "check-ignore", "--no-index", *USERS.split()]
    assert subprocess.run(asked, cwd=ROOT, capture_output=True, text=True).stdout.split() == USERS.split()
    ours = [*git, "ls-files", "--cached", "--ignored", "--exclude-standard"]
    assert subprocess.run(ours, cwd=ROOT, capture_output=True, text=True).stdout == ""


def test_the_name_is_the_same_everywhere() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    assert setup["metadata"]["name"] == lrc.DISTRIBUTION
    (space,) = (ROOT / "examples/space/requirements.txt").read_text(encoding="utf-8").split()
    assert Requirement(space).name == lrc.DISTRIBUTION
    assert set(Requirement(space).extras) <= set(setup["options.extras_require"])


def test_the_installed_distribution_gives_the_command_and_its_version() -> None:
    assert version(lrc.DISTRIBUTION) == lrc.__version__ == versions()["lrc"]
    (command,) = distribution(lrc.DISTRIBUTION).entry_points
    assert (command.group, command.name) == ("console_scripts", "lrc")
    program = Path(sys.executable).with_name("lrc")
    told = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    assert told.strip() == f"lrc, version {lrc.__version__}"


def test_an_extra_is_installed_by_the_name() -> None:
    assert packages.install_extra("app") == "pip install 'lora-reading-comprehension[app]'"


def test_the_tested_versions_are_those_of_the_constraints() -> None:
    tested = packages.tested_versions()
    assert tested["torch"] == next(
        line.removeprefix("torch==")
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if line.startswith("torch==")
    )


def test_an_older_python_is_named_before_anything_is_built() -> None:
    code = "import runpy, sys, setuptools\nsys.version_info = (3, 10, 13)\nrunpy.run_path('setup.py')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    line = "lora-reading-comprehension needs Python 3.11 or later, this is 3.10\n"
    assert (done.returncode, done.stderr) == (1, line)


def test_the_space_asks_for_what_lrc_takes() -> None:
    """The versions in the head of the Space's README are among those that the package and its extra allow."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    head = (ROOT / "examples/space/README.md").read_text(encoding="utf-8").split("---")[1]
    told = yaml.safe_load(head)
    (gradio,) = [Requirement(line) for line in setup["options.extras_require"]["app"].split("\n") if line]
    assert gradio.name == told["sdk"] == "gradio"
    assert told["sdk_version"] in gradio.specifier
    assert told["python_version"] in SpecifierSet(setup["options"]["python_requires"])
    assert (ROOT / "examples/space" / told["app_file"]).is_file()
