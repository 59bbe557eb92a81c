"""The list of upstream methods that the trainers override is the one that whoever allows another version reads."""

from __future__ import annotations

import re

from trl import SFTTrainer

from lrc.runtime.packages import constraints_file
from lrc.training import base_trainer
from lrc.training.base_trainer import DurableTrainer
from lrc.training.trainer import TreeTrainer


def test_every_overridden_method_of_upstream_is_listed() -> None:
    own = {name: value for one in (DurableTrainer, TreeTrainer) for name, value in vars(one).items()}
    overridden = {name for name in own if callable(getattr(SFTTrainer, name, None)) and not name.startswith("__")}
    listed = (base_trainer.__doc__ or "").partition("\n- ")[2]
    assert set(re.findall(r"`(\w+)`", listed)) == overridden


def test_the_versions_named_are_those_that_lrc_is_tested_with() -> None:
    pinned = dict(re.findall(r"^(transformers|trl)==(\d+\.\d+)", constraints_file().read_text(encoding="utf-8"), re.M))
    assert f"tested with transformers {pinned['transformers']} and TRL {pinned['trl']}." in (base_trainer.__doc__ or "")
