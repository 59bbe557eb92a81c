"""The numbers of a small run are those on record: nothing that only moves or speeds up code may change one."""

from __future__ import annotations

import json
from pathlib import Path

import fork_server
from golden import differences, record

RECORD = Path(__file__).with_name("numbers.json")
# Sums are added in another order on another processor; ten steps carry that further.
TOLERANCE = 1e-3


def test_the_numbers_are_those_on_record(tmp_path: Path) -> None:
    numbers = record(tmp_path, str(fork_server.python()))
    found = list(differences(json.loads(RECORD.read_text(encoding="utf-8")), numbers, TOLERANCE))
    assert not found, "\n".join(found)


def test_a_changed_number_is_named() -> None:
    numbers = {"step  1 loss": 2.0, "w sha256": "a"}
    assert list(differences(numbers, {**numbers, "step  1 loss": 2.0000001})) == ["step  1 loss: 2.0 and 2.0000001"]
    assert not list(differences(numbers, {"step  1 loss": 2.0000001, "w sha256": "b"}, 1e-3))
    assert list(differences(numbers, {"step  1 loss": 2.1}, 1e-3)) == ["step  1 loss: 2.0 and 2.1"]
    assert list(differences(numbers, {"w sha256": "a"}, 1e-3)) == ["step  1 loss: 2.0 and None"]
