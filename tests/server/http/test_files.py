"""The page's files: what is there, under headers that let a page do little, and nothing else of the disk."""

from __future__ import annotations

import hashlib
import http.client
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.network.grpc_web import HttpAnswer, asked
from support.servers.servers import running
from transparent_llm_server.http.files import BUILT, Files

STRICT = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@pytest.fixture(scope="module")
def page() -> Iterator[str]:
    with running(page="127.0.0.1:0") as server:
        yield server.page_address


def require_strict(answer: HttpAnswer) -> None:
    assert answer.headers["content-security-policy"] == POLICY
    assert answer.headers.items() >= STRICT.items()
    assert "camera=()" in answer.headers["permissions-policy"]
    assert not any(name.startswith("access-control") or name == "server" for name in answer.headers)


def raw(page: str, line: bytes) -> HttpAnswer:
    """The answer to a request line as it stands here."""
    connection = http.client.HTTPConnection(page.removeprefix("http://"), timeout=30)
    connection.connect()
    connection.sock.sendall(line + b"\r\nhost: localhost\r\n\r\n")
    response = http.client.HTTPResponse(connection.sock)
    response.begin()
    answer = HttpAnswer(response.status, dict(response.getheaders()), response.read())
    connection.close()
    return answer


def test_the_page_is_sent(page: str) -> None:
    for path in ("/", "/index.html", "/?token=x"):
        answer = raw(page, f"GET {path} HTTP/1.1".encode())
        assert (answer.status, answer.body) == (200, (BUILT / "index.html").read_bytes())
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert answer.headers["cache-control"] == "no-cache"
        require_strict(answer)


def test_whoever_has_it_is_told_so(page: str) -> None:
    first = asked(page, "/")
    etag = first.headers["etag"]
    for known in (etag, f"W/{etag}", f'"other", {etag}'):
        again = asked(page, "/", if_none_match=known)
        assert (again.status, again.body, again.headers["etag"]) == (304, b"", etag)
        require_strict(again)
    assert asked(page, "/", if_none_match='"other"').status == 200


def test_a_head_has_no_body(page: str) -> None:
    answer = asked(page, "/", "HEAD")
    assert (answer.status, answer.body) == (200, b"")
    assert int(answer.headers["content-length"]) == len((BUILT / "index.html").read_bytes())


@pytest.mark.parametrize(
    "path",
    [
        "/missing.html",
        "/../gateway.py",
        "/..%2fgateway.py",
        "/%2e%2e/gateway.py",
        "/page/index.html",
        "//index.html",
        "/index.html/",
        "/index.html%00",
        "/INDEX.HTML",
        "/./index.html",
        "/\\..\\gateway.py",
        "http://localhost/index.html",
        "*",
    ],
)
def test_nothing_else_is_there(page: str, path: str) -> None:
    answer = raw(page, f"GET {path} HTTP/1.1".encode())
    assert answer.status in (400, 404)
    assert b"import" not in answer.body
    if answer.status == 404:
        require_strict(answer)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"])
def test_files_are_only_read(page: str, method: str) -> None:
    answer = asked(page, "/index.html", method)
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")
    require_strict(answer)


def test_files_of_a_build_are_read_once(tmp_path: Path) -> None:
    (tmp_path / "assets").mkdir()
    (tmp_path / "index.html").write_text("<p>")
    (tmp_path / "assets" / "page-1.js").write_text("1")
    (tmp_path / "assets" / "page-1.css").write_text("p {}")
    files = Files(tmp_path)
    (tmp_path / "late.html").write_text("")
    found = {path: file.media_type.partition(";")[0] for path, file in files._files.items()}
    assert found == {
        "/": "text/html",
        "/index.html": "text/html",
        "/assets/page-1.js": "text/javascript",
        "/assets/page-1.css": "text/css",
    }
    assert files._files["/assets/page-1.js"].etag == f'"{hashlib.sha256(b"1").hexdigest()[:32]}"'
