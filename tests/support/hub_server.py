"""A server on loopback that speaks the Hub's upload protocol and keeps what it was given."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_" + "t0ken" * 7


@dataclass
class Hub:
    """What the server holds, and what it does wrong on purpose.

    Attributes:
        files: of the last commit, by path.
        refuse: a status by the part of a path at which the server answers with it.
        hang_up: the part of a path at which the server closes the connection once.
    """

    address: str = ""
    private: dict[str, bool] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    refuse: dict[str, int] = field(default_factory=dict)
    hang_up: str = ""
    calls: list[str] = field(default_factory=list)
    commits: int = 0


@contextmanager
def serve() -> Iterator[Hub]:
    """Run the server on a free port while the block runs."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self._body())

    do_PUT = do_POST

    def _body(self) -> bytes:
        if length := self.headers.get("Content-Length"):
            return self.rfile.read(int(length))
        pieces = []
        while self.headers.get("Transfer-Encoding") == "chunked" and (size := int(self.rfile.readline(), 16)):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        return b"".join(pieces)

    def _answer(self, body: bytes) -> None:
        hub = self.hub
        hub.calls.append(f"{self.command} {self.path}")
        if hub.hang_up and hub.hang_up in self.path:
            hub.hang_up = ""
            self.close_connection = True
            return
        status = next((status for part, status in hub.refuse.items() if part in self.path), None)
        if status is None and "/upload/" not in self.path and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            status = 401
        if status is not None:
            self._send(status, {"error": "refused on purpose"})
        else:
            self._send(*self._route(body))

    def _send(self, status: int, content: Any) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _route(self, body: bytes) -> tuple[int, Any]:
        hub, path = self.hub, self.path
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            known = name in hub.private
            hub.private.setdefault(name, asked.get("visibility") == "private")
            kind = "datasets/" if asked.get("type") == "dataset" else ""
            return (409 if known else 200), {"url": f"{hub.address}/{kind}{name}"}
        if path == "/api/validate-yaml":
            wrong = not json.loads(body)["content"].startswith("---\n")
            return (400 if wrong else 200), {
                "errors": [{"message": "no metadata"}] if wrong else [],
                "warnings": [],
            }
        if "/preupload/" in path:
            return 200, {"files": [self._mode(file) for file in json.loads(body)["files"]]}
        if path.endswith("/info/lfs/objects/batch"):
            return 200, {"objects": [self._lfs(item) for item in json.loads(body)["objects"]]}
        if path.startswith("/upload/"):
            oid = path.rpartition("/")[2]
            assert hashlib.sha256(body).hexdigest() == oid
            hub.blobs[oid] = body
            return 200, {}
        if "/commit/" in path:
            return self._commit(body)
        name = path.removeprefix("/api/models/").removeprefix("/api/datasets/").partition("/revision/")[0]
        if name in hub.private:
            return 200, {
                "id": name,
                "private": hub.private[name],
                "sha": "0" * 40,
                "siblings": [{"rfilename": path} for path in hub.files],
                "tags": [],
            }
        return 404, {"error": f"unknown path {path}"}

    def _mode(self, file: dict[str, Any]) -> dict[str, Any]:
        mode = "lfs" if file["path"].endswith(".safetensors") else "regular"
        old = self.hub.files.get(file["path"])
        blob = None if old is None else hashlib.sha1(b"blob %d\0" % len(old) + old).hexdigest()
        oid = blob if mode == "regular" or old is None else hashlib.sha256(old).hexdigest()
        return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid}

    def _lfs(self, item: dict[str, Any]) -> dict[str, Any]:
        if item["oid"] in self.hub.blobs:
            return dict(item)
        return {**item, "actions": {"upload": {"href": f"{self.hub.address}/upload/{item['oid']}"}}}

    def _commit(self, body: bytes) -> tuple[int, Any]:
        lines = [json.loads(line) for line in body.splitlines()]
        for value in (line["value"] for line in lines if line["key"] == "file"):
            self.hub.files[value["path"]] = base64.b64decode(value["content"])
        for value in (line["value"] for line in lines if line["key"] == "lfsFile"):
            self.hub.files[value["path"]] = self.hub.blobs[value["oid"]]
        for value in (line["value"] for line in lines if line["key"] == "deletedFile"):
            del self.hub.files[value["path"]]
        self.hub.commits += 1
        name = self.path.removeprefix("/api/models/").removeprefix("/api/datasets/").partition("/commit/")[0]
        return 200, {"commitUrl": f"{self.hub.address}/{name}/commit/{'1' * 40}", "commitOid": "1" * 40}
