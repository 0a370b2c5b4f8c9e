"""Pages of others: they neither call, nor get anything under a name that they pointed at this address."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.network.grpc_web import HttpAnswer, asked, frame
from support.servers.servers import Listener, running
from transparent_llm.wire.methods import SERVICE

INFO = f"/{SERVICE}/ServerInfo"
LISTENER = Listener()


@pytest.fixture(scope="module")
def page() -> Iterator[str]:
    with running(LISTENER, page="localhost:0", page_hosts=("Inspector.Example",)) as server:
        assert server.page_address.startswith("http://localhost:")
        yield server.page_address


def called(page: str, **headers: str) -> HttpAnswer:
    return asked(page, INFO, "POST", frame(b""), content_type="application/grpc-web+proto", **headers)


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:8080",
        "LocalHost.:8080",
        "a.b.localhost:1",
        "127.0.0.1",
        "10.1.2.3:80",
        "[::1]:8080",
        "[2001:db8::1]",
        "inspector.example",
        "INSPECTOR.example.:443",
    ],
)
def test_its_own_names_are_known(page: str, host: str) -> None:
    assert asked(page, "/", host=host).status == 200
    assert called(page, host=host, origin=f"http://{host}").status == 200
    assert called(page, host=host, origin=f"https://{host.lower()}", sec_fetch_site="same-origin").status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8080",
        "localhost.evil.example",
        "notlocalhost",
        "x.inspector.example",
        "[evil]",
        "",
    ],
)
def test_other_names_are_not(page: str, host: str) -> None:
    before = len(LISTENER.calls)
    for answer in (
        asked(page, "/", host=host),
        called(page, host=host),
        called(page, host=host, origin=f"http://{host}"),
    ):
        assert answer.status == 421
        assert b"--page-host" in answer.body
    assert len(LISTENER.calls) == before


@pytest.mark.parametrize(
    "origin", ["null", "", "http://evil.example", "http://localhost", "http://localhost:1", "file://", "localhost:8080"]
)
def test_pages_of_others_do_not_call(page: str, origin: str) -> None:
    before = len(LISTENER.calls)
    answer = called(page, host="localhost:8080", origin=origin)
    assert answer.status == 403
    assert not any(name.startswith("access-control") for name in answer.headers)
    assert len(LISTENER.calls) == before


def test_browsers_say_when_a_call_crosses_sites(page: str) -> None:
    assert called(page, sec_fetch_site="cross-site").status == 403
    assert called(page, sec_fetch_site="same-origin").status == 200
    assert asked(page, "/", sec_fetch_site="cross-site").status == 200  # a link to the page
