"""A download that breaks off in the middle: one message within seconds, and no half model."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from bad_input import Models, Told, hold

COMMIT = "0" * 40
# huggingface_hub waits longer and longer between its tries.
WITHOUT_PAUSES = "import time; time.sleep = lambda seconds: None; from softprune.cli import main; main()"
SECONDS = 60  # more than enough on a slow machine, and far less than anyone's patience with a broken network


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's protocol as a download needs. `broken` files end after their first half."""

    folder: Path
    broken: frozenset[str]
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, *, with_body: bool) -> None:
        path = self.path.partition("?")[0]
        if path.startswith("/api/models/") and "/tree/" not in path:
            self._send(200, json.dumps({"id": "someone/model", "sha": COMMIT, "siblings": []}).encode(), with_body)
            return
        name = path.partition("/resolve/")[2].partition("/")[2]
        file = self.folder / name
        if not name or not file.is_file():
            self._send(404, b"{}", with_body, missing=True)
            return
        self._send(200, file.read_bytes(), with_body, cut=name in self.broken)

    def _send(self, code: int, body: bytes, with_body: bool, *, missing: bool = False, cut: bool = False) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Repo-Commit", COMMIT)
        if missing:
            self.send_header("X-Error-Code", "EntryNotFound")
        else:
            self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.end_headers()
        if with_body:
            self.wfile.write(body[: len(body) // 2] if cut else body)
        if cut:
            self.close_connection = True


@contextmanager
def hub(folder: Path, *broken: str) -> Iterator[str]:
    """The address of a hub that serves a folder as a model."""
    handler = type("Served", (Hub,), {"folder": folder, "broken": frozenset(broken)})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()


def tune(address: str, where: Path) -> subprocess.CompletedProcess[str]:
    dropped = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
    own = {"HF_ENDPOINT": address, "HF_HOME": str(where / "cache"), "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    environment = {key: value for key, value in os.environ.items() if key not in dropped} | own
    command = "tune --backbone someone/model --task demo --shots 16 --limit-report 8 --epochs 1 --tokens 2 --out run"
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_PAUSES, *command.split()],
        cwd=where,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=2 * SECONDS,
    )


@pytest.mark.slow
def test_a_download_that_breaks_off(tmp_path: Path, tiny_models: Models) -> None:
    begun = time.monotonic()
    with hub(tiny_models("bert"), "model.safetensors") as address:
        answer = tune(address, tmp_path)
    assert time.monotonic() - begun < SECONDS
    told = Told("a hub name that can be reached", "RemoteProtocolError", "check the name and the network")
    hold(answer.stderr, (told,))
    assert (answer.returncode, answer.stdout) == (2, "")
    assert not (tmp_path / "run").exists()
    kept = {path.name for path in (tmp_path / "cache").rglob("snapshots/*/*")}
    assert "config.json" in kept  # it was this hub that was asked
    assert "model.safetensors" not in kept
