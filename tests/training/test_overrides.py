"""The list of upstream methods that the trainers override is the one that whoever allows another version reads."""

from __future__ import annotations

import re

from trl import SFTTrainer

from lrc.training import base_trainer
from lrc.training.base_trainer import DurableTrainer
from lrc.training.trainer import TreeTrainer


def test_every_overridden_method_of_upstream_is_listed() -> None:
    own = {name: value for one in (DurableTrainer, TreeTrainer) for name, value in vars(one).items()}
    overridden = {name for name in own if callable(getattr(SFTTrainer, name, None)) and not name.startswith("__")}
    listed = (base_trainer.__doc__ or "").partition("\n- ")[2]
    assert set(re.findall(r"`(\w+)`", listed)) == overridden
