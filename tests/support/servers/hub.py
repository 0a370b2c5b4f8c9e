"""A hub of models on loopback: what the hub's library asks of one, answered from a folder, with its ways to say no."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

TOKEN, OTHER_TOKEN = "hf_of-the-tests", "hf_of-somebody-else"
COMMIT = "c" * 40


@dataclass
class Hub:
    """What it has, and what was asked of it."""

    address: str
    models: dict[str, Path] = field(default_factory=dict)
    closed: dict[str, str] = field(default_factory=dict)
    """Model -> `gated` or `private`: only those who bring the token get it."""

    revisions: tuple[str, ...] = ("main", COMMIT)
    failing: int = 0
    """The status that everything is answered with."""

    asked: list[str] = field(default_factory=list)


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Nothing on standard error."""

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        path = unquote(urlsplit(self.path).path).strip("/")
        self.hub.asked.append(f"{self.command} {path}")
        body, headers, status = self._found(path)
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def _found(self, path: str) -> tuple[bytes, dict[str, str], int]:
        if self.hub.failing:
            return b"", {}, self.hub.failing
        if self.headers.get("Authorization", f"Bearer {TOKEN}") not in (f"Bearer {TOKEN}", f"Bearer {OTHER_TOKEN}"):
            return self._no(401, "", "Invalid credentials in Authorization header")
        name = next((name for name in self.hub.models if f"/{name}/" in f"/{path}/"), None)
        if name is None:
            return self._no(401, "", "Invalid username or password.")  # as the hub says to those without a token
        if (refusal := self._refused(name)) is not None:
            return refusal
        of_api = path.startswith("api/models/")
        rest = path.removeprefix("api/models/").removeprefix(name).strip("/").split("/")
        if len(rest) > 1 and rest[1] not in self.hub.revisions:
            return self._no(404, "RevisionNotFound", f"Invalid rev id: {rest[1]}")
        folder = self.hub.models[name]
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        if of_api and rest[0] == "tree":
            tree = [
                {"type": "file", "oid": f"{n:040x}", "size": file.stat().st_size, "path": str(file.relative_to(folder))}
                for n, file in enumerate(files)
            ]
            return json.dumps(tree).encode(), {"Content-Type": "application/json"}, 200
        if of_api:
            siblings = [{"rfilename": str(f.relative_to(folder)), "size": f.stat().st_size} for f in files]
            about = {"id": name, "sha": COMMIT, "siblings": siblings, "private": False, "tags": []}
            return json.dumps(about).encode(), {"Content-Type": "application/json"}, 200
        wanted = folder / "/".join(rest[2:])
        if not wanted.is_file():
            return self._no(404, "EntryNotFound", "Entry not found")
        headers = {"ETag": f'"{files.index(wanted):040x}"', "X-Repo-Commit": COMMIT}
        return wanted.read_bytes(), headers, 200

    def _refused(self, name: str) -> tuple[bytes, dict[str, str], int] | None:
        kind, brought = self.hub.closed.get(name), self.headers.get("Authorization", "")
        if kind is None or brought == f"Bearer {TOKEN}":
            return None
        if kind == "gated":
            return self._no(403 if brought else 401, "GatedRepo", f"Access to model {name} is restricted")
        return self._no(404 if brought else 401, "RepoNotFound", "Repository not found")

    def _no(self, status: int, code: str, words: str) -> tuple[bytes, dict[str, str], int]:
        headers = {"X-Error-Message": words, **({"X-Error-Code": code} if code else {})}
        return json.dumps({"error": words}).encode(), headers, status


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub that ends with the block."""
    handler = type("Handler", (_Handler,), {})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        hub = handler.hub = Hub(f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()
