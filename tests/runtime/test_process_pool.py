"""A function over many items in several processes, forked or started anew."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from lrc.runtime import process_pool


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_results_come_in_the_order_of_the_items(platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_pool, "sys", SimpleNamespace(platform=platform))
    assert list(process_pool.in_order(abs, range(-6, 6), 2)) == [abs(number) for number in range(-6, 6)]
