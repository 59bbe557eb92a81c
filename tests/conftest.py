"""Settings of every test: nothing from the network, and one thread, with which tiny models are fastest."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
