"""The Hub is asked once whether it answers; where it does not, one line is said and nothing is tried again."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants
from small_runs import lrc

from lrc.answering.answerer import Answerer
from lrc.runtime import hub_connection
from lrc.runtime.errors import ModelError

# Two looks for a base that only the Hub has, as a verb takes them, without torch.
PROGRAM = """
from huggingface_hub import snapshot_download
from lrc.runtime import hub_connection as connection
connection.PATIENCE = 1.0
for _ in range(2):
    connection.go_offline_if_alone("some/base")
    try:
        snapshot_download("some/base")
    except Exception as error:
        print(type(error).__name__)
"""


def environment(address: str, home: Path) -> dict[str, str]:
    return {**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(home / "hf"), "HF_HUB_OFFLINE": "0"}


def look(address: str, home: Path) -> subprocess.CompletedProcess[str]:
    variables = environment(address, home)
    return subprocess.run([sys.executable, "-c", PROGRAM], env=variables, capture_output=True, text=True)


@pytest.fixture
def silent() -> Iterator[str]:
    """An address at which connections are taken and nothing is ever said."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def refusing() -> Iterator[tuple[str, list[str]]]:
    """A Hub that answers every question with 404, and what it was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        do_GET = do_HEAD

        def log_message(self, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("kind", ["silent", "closed"])
def test_a_hub_that_does_not_answer_is_one_line(kind: str, silent: str, tmp_path: Path) -> None:
    address = silent if kind == "silent" else "http://127.0.0.1:9"
    start = time.monotonic()
    done = look(address, tmp_path)
    assert time.monotonic() - start < 30
    assert done.stderr == f"{address}: does not answer; continuing offline, with what was downloaded before\n"
    assert done.stdout == "LocalEntryNotFoundError\n" * 2


def test_a_hub_that_answers_is_asked_for_the_model(refusing: tuple[str, list[str]], tmp_path: Path) -> None:
    done = look(refusing[0], tmp_path)
    assert "offline" not in done.stderr
    assert [path for path in refusing[1] if path == "/"] == ["/"] and any("some/base" in path for path in refusing[1])


def test_a_verb_says_so_in_two_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "some/base"}')
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")  # which the verb changes, as it does the client's settings
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    for name in ("asked", "silent"):
        monkeypatch.setattr(hub_connection._Probe, name, False)
    assert lrc("merge", "--adapter", adapter, "--output-dir", tmp_path / "m") == 1
    offline, refusal = capfd.readouterr().err.splitlines()
    assert offline.startswith("http://127.0.0.1:9: does not answer; ") and refusal.startswith("some/base: ")
    assert constants.HF_HUB_OFFLINE


def test_a_hub_that_was_silent_is_asked_again_for_the_next_model_of_a_notebook(
    refusing: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    for name in ("asked", "silent"):
        monkeypatch.setattr(hub_connection._Probe, name, False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ModelError, match="some/base"):
        Answerer("some/base", template="plain", answer_style="digit")
    assert constants.HF_HUB_OFFLINE and os.environ["HF_HUB_OFFLINE"] == "1"
    monkeypatch.setattr(constants, "ENDPOINT", refusing[0])
    # Made of the endpoint when the client is imported; the real Hub would be asked.
    template = f"{refusing[0]}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    hub_connection.go_offline_if_alone("some/base")  # in the midst of a command nothing changes
    assert constants.HF_HUB_OFFLINE and not refusing[1]
    with pytest.raises(ModelError, match="some/base"):
        Answerer("some/base", template="plain", answer_style="digit")
    assert not constants.HF_HUB_OFFLINE and "HF_HUB_OFFLINE" not in os.environ and refusing[1]
    assert capsys.readouterr().err.count("does not answer") == 1


def test_offline_by_the_users_own_setting_stays(
    refusing: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "ENDPOINT", refusing[0])
    for name in ("asked", "silent"):
        monkeypatch.setattr(hub_connection._Probe, name, False)
    hub_connection.go_offline_if_alone("some/base")
    assert constants.HF_HUB_OFFLINE and not refusing[1]


def test_a_base_is_fetched_once_all_of_its_shards_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The index comes first, and a download may be cut."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--some--base" / "snapshots" / "a1"
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("a1")
    names = [f"model-0000{place}-of-00002.safetensors" for place in (1, 2)]
    index = {"weight_map": {"a": names[0], "b": names[1], "c": names[1]}}
    for name, content in (("model.safetensors.index.json", json.dumps(index)), *((name, "") for name in names)):
        assert not hub_connection.is_fetched("some/base")
        (snapshot / name).write_text(content)
    assert hub_connection.is_fetched("some/base")
    (snapshot / "model.safetensors.index.json").write_text("[")
    assert not hub_connection.is_fetched("some/base")
