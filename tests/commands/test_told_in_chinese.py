"""What the verbs print under `LRC_LANG=zh_TW`: no English sentence, no half-width punctuation between Chinese words."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from workbooks import row, write_xlsx

from lrc.models.merging.logit_check import LogitDifference
from lrc.runtime.exit_status import exit_on_error
from lrc.runtime.translation import CHINESE, _, localized

HAN = r"[\u4e00-\u9fff]"
# A blank beside full-width punctuation, none between Chinese and Latin words, or half-width punctuation after Chinese.
WRONG = re.compile(rf"[，。；：？）、] | [，。；：？（、]|{HAN}[,.;:?!]|{HAN}[A-Z]{{2}}|[A-Za-z]{{2}}{HAN}|'\.|', '")


def told(tmp_path: Path, *words: str) -> str:
    environment = {"LRC_LANG": "zh_TW", "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    command = [sys.executable, "-m", "lrc", *words]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, encoding="utf-8", check=False
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["check"],
        ["check", "a.xlsx", "--columns", "文章=甲", "--columns", "問題=乙"],
        ["chek", "a"],
        ["check", "a.xlsx", "--nosuch"],
        ["compare", "a", "b", "--htm"],
        ["completion", "nosuch"],
        ["convert", "a.xlsx"],
        ["convert", "a.xlsx", "--output-dir", "d", "--folds", "x"],
        ["convert", "a.xlsx", "--output-dir", "d", "--folds", "1"],
    ],
)
def test_wrong_usage_has_full_width_punctuation(tmp_path: Path, words: list[str]) -> None:
    line = told(tmp_path, *words).strip()
    assert line.startswith("錯誤：") and "\n" not in line
    assert WRONG.search(line) is None


def test_the_kinds_of_file_are_words_of_their_own(tmp_path: Path) -> None:
    passages = ["山上的貓在飯旁睡著了。", "海邊有狗追著麵條跑。", "老街的鳥喜歡喝熱湯。", "橋下那匹馬吃掉了魚。"]
    write_xlsx(tmp_path / "a.xlsx", [row(k, 文章=passage) for k, passage in enumerate(passages, start=1)])
    shown = told(tmp_path, "convert", "a.xlsx", "--output-dir", "d")
    assert "下一步：lrc train RECIPE --train_file d/a_train.json --validation_file d/a_validation.json\n" in shown
    table = told(tmp_path, "check", "a.xlsx", "d/a_train.json")
    assert "有答案的活頁簿" in table and "有答案的 JSON" in table
    assert not [line for line in (shown + table).splitlines() if WRONG.search(re.sub("[│┃].*", "", line))]


def test_what_the_merge_compared_is_told_in_chinese() -> None:
    text = localized(LogitDifference(4, 5.3e-3, 13.4, 2e-2).text, CHINESE)
    assert "5.30e-03" in text and "13.40" in text and "largest" not in text and not WRONG.search(text)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (MemoryError(), "lrc：記憶體不足；請關閉其他程式，或改用較小的模型或 adapter\n"),
        (
            RuntimeError("CPUAllocator: can't allocate memory: you tried to allocate 2000000000 bytes"),
            "lrc：記憶體不足：一次要求了 2.0 GB；請關閉其他程式，或改用較小的模型或 adapter\n",
        ),
    ],
)
def test_a_lack_of_memory(
    error: Exception, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LRC_LANG", CHINESE)
    with pytest.raises(SystemExit), exit_on_error(_("close other programs, or use a smaller model or adapter")):
        raise error
    assert capsys.readouterr().err == line
