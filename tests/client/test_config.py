"""What a client can be told, and what it refuses before it calls anybody."""

from __future__ import annotations

import math
from typing import Any

import pytest

from transparent_llm import RemoteTransparentLlm, errors
from transparent_llm.client.config import ClientConfig
from transparent_llm.network.target import Host, parsed

SECONDS = ("timeout_s", "keepalive_s", "keepalive_timeout_s", "reconnect_s")
BYTES = ("cache_bytes", "read_ahead_bytes", "weights_bytes", "weights_dir_bytes", "max_bytes", "max_message_bytes")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1, -1e-9, 1e300, 10**30, "5", True, None], ids=str)
@pytest.mark.parametrize("name", SECONDS)
def test_times_are_finite_numbers_of_seconds(name: str, value: Any) -> None:
    with pytest.raises(errors.InvalidRequestError, match=f"{name} is .*: it must be a number of seconds, "):
        ClientConfig(**{name: value})


@pytest.mark.parametrize("name", SECONDS)
def test_no_time_at_all_is_one_for_waiting_only(name: str) -> None:
    if name == "reconnect_s":
        ClientConfig(reconnect_s=0)
        return
    with pytest.raises(errors.InvalidRequestError, match=f"{name} is 0: .*, more than 0 and at most "):
        ClientConfig(**{name: 0})  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [-1, 1.5, math.nan, "5", True], ids=str)
@pytest.mark.parametrize("name", BYTES)
def test_sizes_are_whole_numbers_of_bytes(name: str, value: Any) -> None:
    with pytest.raises(errors.InvalidRequestError, match=f"{name} is .*: it must be a whole number, "):
        ClientConfig(**{name: value})


def test_a_message_is_no_larger_than_grpc_can_count() -> None:
    with pytest.raises(errors.InvalidRequestError, match="1 or more and at most 2147483647"):
        ClientConfig(max_message_bytes=2**31)


@pytest.mark.parametrize("token", ["", " ", "a ", " a", 5, b"a"], ids=repr)
def test_a_token_is_text_without_blanks_around_it(token: Any) -> None:
    with pytest.raises(errors.InvalidRequestError, match="the token "):
        ClientConfig(token=token)


def test_a_folder_that_cannot_be_is_refused_and_an_empty_name_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(errors.InvalidRequestError, match="not a valid folder name"):
        RemoteTransparentLlm(weights_dir="a\0b")
    monkeypatch.setenv("TRANSPARENT_LLM_WEIGHTS_DIR", "elsewhere")
    assert RemoteTransparentLlm(weights_dir="")._config.weights_dir is None


@pytest.mark.parametrize("port", ["99999", "65536", "0", "-1", "", "1e3", " 1", "1 ", "+1", "\u0661", "9" * 5000])
@pytest.mark.parametrize("form", ["127.0.0.1:{}", "[::1]:{}", "box:{}", "dns:///box:{}", "ipv4:1.1.1.1:1,1.1.1.1:{}"])
def test_a_port_that_is_none_is_refused_and_not_shortened_to_another(form: str, port: str) -> None:
    with pytest.raises(errors.InvalidRequestError, match=r"its port is|is not a server address"):
        RemoteTransparentLlm(form.format(port))


@pytest.mark.parametrize(
    "target",
    [
        *(
            "http://box:1",
            "https://box",
            "grpc://box:1",
            "box:1\n",
            "box :1",
            "b\x1b[2Jx:1",
            "\u202ebox:1",
            "unix:/a\0b",
        ),
        *("unix:/" + "x" * 107, "unix://" + "x" * 108, "ipv4:box:1", "ipv6:zz:1", 5, b"box:1"),
    ],
    ids=ascii,
)
def test_what_is_no_address_is_refused_in_words(target: Any) -> None:
    with pytest.raises(errors.InvalidRequestError, match=r"write HOST:PORT|cannot call |: write 'box") as caught:
        ClientConfig(target=target)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("target", "hosts"),
    [
        ("box:1", (Host("box", 1),)),
        ("box", (Host("box"),)),
        ("box:https", (Host("box"),)),
        ("[::1]:5", (Host("::1", 5),)),
        ("[::1]", (Host("::1"),)),
        ("::1", (Host("::1"),)),
        ("dns:box:1", (Host("box", 1),)),
        ("dns:///box:1", (Host("box", 1),)),
        ("dns://8.8.8.8/box:1", (Host("box", 1),)),
        ("ipv4:1.1.1.1:1,2.2.2.2:2", (Host("1.1.1.1", 1), Host("2.2.2.2", 2))),
        ("ipv6:[::1]:1", (Host("::1", 1),)),
        ("ipv6:%5B::1%5D:1", (Host("::1", 1),)),
        ("unix:relative", ()),
        ("unix:///absolute", ()),
        ("unix-abstract:x", ()),
        ("xds:///x", ()),
    ],
)
def test_targets_are_read_as_grpc_reads_them(target: str, hosts: tuple[Host, ...]) -> None:
    assert parsed(target).hosts == hosts


@pytest.mark.parametrize(
    ("name", "value"), [("ADDRESS", "127.0.0.1:99999"), ("TOKEN", "a\nb"), ("PROXY", "socks5://x:1"), ("TLS_CERT", "x")]
)
def test_nonsense_of_the_environment_is_refused_too(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"TRANSPARENT_LLM_{name}", value)
    with pytest.raises(errors.InvalidRequestError):
        RemoteTransparentLlm()
