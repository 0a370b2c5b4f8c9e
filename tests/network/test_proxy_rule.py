"""Which targets go through which proxy: docs/PROTOCOL.md has the rule, which every client follows."""

from __future__ import annotations

import pytest

from transparent_llm import RemoteTransparentLlm, errors
from transparent_llm.client.config import ClientConfig
from transparent_llm.network.proxies import Route, route

USED = "http://proxy:3128"


@pytest.mark.parametrize(
    "target",
    [
        *("127.0.0.1:1", "localhost:1", "LOCALHOST.:1", "x.localhost:1", "[::1]:1", "dns:///localhost:1", "127.1:1"),
        *("10.0.0.1:1", "172.31.255.255:1", "192.168.0.1:1", "100.64.0.1:1", "169.254.1.1:1", "0.0.0.0:1", ":1"),
        *("[fe80::1%eth0]:1", "[fd00::1]:1", "[::ffff:10.0.0.1]:1", "ipv6:%5B::1%5D:1", "ipv4:10.0.0.1:1", "[::]:1"),
        *(
            "box:1",
            "box.local:1",
            "a.b.svc:1",
            "a.svc.cluster.local:1",
            "x.internal:1",
            "x.home.arpa:1",
            "2130706433:1",
        ),
        *("unix:/run/x", "unix-abstract:x", "ipv4:8.8.8.8:1,9.9.9.9:1", "dns://8.8.8.8/box:1", "box"),
    ],
)
def test_of_its_own_accord_no_proxy_is_used_for(target: str) -> None:
    for is_encrypted in (True, False):
        found = route(target, is_encrypted=is_encrypted, wanted=None, environ={"https_proxy": USED})
        assert found.proxy is None
        assert ("grpc.enable_http_proxy", 0) in found.options


@pytest.mark.parametrize(
    "target",
    ["8.8.8.8:1", "[2001:db8::1]:1", "example.com:1", "172.32.0.1:1", "dns:///example.com:1", "sub.svc.example:1"],
)
def test_with_tls_it_is_used_for(target: str) -> None:
    assert route(target, is_encrypted=True, wanted=None, environ={"https_proxy": USED}) == Route(target, USED)
    assert route(target, is_encrypted=False, wanted=None, environ={"https_proxy": USED}).proxy is None


@pytest.mark.parametrize("target", ["127.0.0.1:1", "box:1", "8.8.8.8:1", "example.com:1"])
@pytest.mark.parametrize("wanted", ["environment", "http://other:1"])
def test_asked_for_it_is_used_for_every_target_but_a_socket_file(target: str, wanted: str) -> None:
    url = USED if wanted == "environment" else wanted
    assert route(target, is_encrypted=False, wanted=wanted, environ={"https_proxy": USED}).proxy == url
    assert route("unix:x", is_encrypted=False, wanted=wanted, environ={"https_proxy": USED}).proxy is None


@pytest.mark.parametrize("wanted", ["none", ""])
def test_none_is_none(wanted: str) -> None:
    assert route("example.com:1", is_encrypted=True, wanted=wanted, environ={"https_proxy": USED}) == Route(
        "example.com:1"
    )


@pytest.mark.parametrize(
    ("environ", "used"),
    [
        ({"HTTPS_PROXY": "http://b:1"}, "http://b:1"),
        ({"HTTPS_PROXY": "http://b:1", "https_proxy": "http://a:1"}, "http://a:1"),
        ({"https_proxy": "http://a:1", "grpc_proxy": "http://g:1"}, "http://g:1"),
        ({"https_proxy": "http://a:1", "grpc_proxy": ""}, None),
        ({"HTTP_PROXY": "http://a:1"}, None),
        ({"http_proxy": "a:1", "all_proxy": "http://b:1"}, "http://a:1"),
        ({"ALL_PROXY": "http://a"}, "http://a:80"),
        ({"https_proxy": "socks5://a:1"}, None),
        ({}, None),
        *(
            ({"https_proxy": USED, "no_proxy": excepted}, None)
            for excepted in (
                "*",
                "example.com",
                ".Example.com",
                "*.example.com",
                "com",
                "x y,example.com",
                "example.com:1",
            )
        ),
        *(
            ({"https_proxy": USED, "no_proxy": excepted}, USED)
            for excepted in ("", "other.com", "example.com:2", "8.8.8.8")
        ),
        ({"https_proxy": USED, "no_grpc_proxy": "", "no_proxy": "*"}, USED),
    ],
    ids=str,
)
def test_the_environment_is_read_as_it_is_written_down(environ: dict[str, str], used: str | None) -> None:
    assert route("www.example.com:1", is_encrypted=True, wanted=None, environ=environ).proxy == used


@pytest.mark.parametrize(
    "excepted", ["8.8.8.8", "8.8.8.0/24", "8.8.8.8:1", "[2001:db8::1]:1,8.8.8.8", "0.0.0.0/0", "8.8.8.8/8"]
)
def test_addresses_may_be_excepted_by_blocks(excepted: str) -> None:
    environ = {"https_proxy": USED, "no_proxy": excepted}
    assert route("8.8.8.8:1", is_encrypted=True, wanted=None, environ=environ).proxy is None
    assert route("9.9.9.9:1", is_encrypted=True, wanted=None, environ=environ).proxy == (
        None if excepted == "0.0.0.0/0" else USED
    )


@pytest.mark.parametrize(
    "wrong",
    [
        *(
            "https://a:1",
            "socks5://a:1",
            "http://",
            "http://me:s3cret@a:0",
            "http://me:s3cret@a:99999",
            "http://a:x",
            "http://a:1/path",
        ),
        *("http://a:1?q", "http://a b:1", "http://a:1\r\nX: y", "http://ä:1"),
    ],
    ids=ascii,
)
def test_what_is_no_proxy_is_refused_at_once_and_not_quoted(wrong: str) -> None:
    with pytest.raises(
        errors.InvalidRequestError, match="proxy is not an HTTP proxy: write http://HOST:PORT"
    ) as caught:
        ClientConfig(proxy=wrong)
    assert "s3cret" not in str(caught.value)
    with pytest.raises(errors.InvalidRequestError, match="https_proxy is not an HTTP proxy"):
        route("example.com:1", is_encrypted=True, wanted="environment", environ={"https_proxy": wrong})


def test_a_proxy_for_several_addresses_is_refused() -> None:
    with pytest.raises(errors.InvalidRequestError, match="is not a single address, which a proxy requires"):
        RemoteTransparentLlm("ipv4:8.8.8.8:1,9.9.9.9:1", proxy=USED)
