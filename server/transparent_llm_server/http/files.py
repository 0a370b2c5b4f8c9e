"""The files of the page: all of them are read once, and nothing else of the disk is."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from transparent_llm_server.http.answer import answer
from transparent_llm_server.http.request import Request, Send

BUILT = Path(__file__).parent / "page"
"""Where the page that belongs to this version lies."""

_INDEX = "index.html"
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
    ".woff2": "font/woff2",
}


@dataclass(frozen=True)
class File:
    """One file as it is sent."""

    body: bytes
    media_type: str
    etag: str


class Files:
    """Those below a folder, by the paths that they are asked for under; `index.html` is also its folder."""

    def __init__(self, folder: Path = BUILT) -> None:
        self._files: Mapping[str, File] = _read(folder)

    def has(self, path: str) -> bool:
        """Whether something is sent for a path, which is looked up as it is."""
        return path in self._files

    async def answer(self, request: Request, send: Send) -> None:
        """Send the file of a path that there is; 304 to whoever has it already."""
        file = self._files[request.path]
        headers = [("content-type", file.media_type), ("etag", file.etag), ("cache-control", "no-cache")]
        if _knows(request.headers.get("if-none-match", ""), file.etag):
            await answer(send, 304, headers)
        else:
            await answer(send, 200, headers, file.body)


def _read(folder: Path) -> dict[str, File]:
    files: dict[str, File] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            body = path.read_bytes()
            media_type = TYPES.get(path.suffix, "application/octet-stream")
            file = File(body, media_type, f'"{hashlib.sha256(body).hexdigest()[:32]}"')
            name = f"/{path.relative_to(folder).as_posix()}"
            files[name] = file
            if path.name == _INDEX:
                files[name.removesuffix(_INDEX)] = file
    return files


def _knows(if_none_match: str, etag: str) -> bool:
    return etag in (known.strip().removeprefix("W/") for known in if_none_match.split(","))
