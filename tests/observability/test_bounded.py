"""However many names strangers and owners make up, there are no more series."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest

from support.servers.figures import LOOPBACK, figures, settled
from support.servers.polling import wait_until
from support.servers.servers import running
from transparent_llm.wire.methods import RUN_KEY_HEADER, SERVICE
from transparent_llm_server.access.bearer_tokens import new_bearer_token
from transparent_llm_server.app import Server
from transparent_llm_server.rpc.interceptors.call_events import KNOWN

CALLS = "transparent_llm_calls_total"
MADE_UP = 300
OWNERS = 1000


def call(channel: grpc.Channel, path: str, **metadata: str) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as failed:
        channel.unary_unary(path)(b"\xff", timeout=30, metadata=list(metadata.items()))
    code: grpc.StatusCode = failed.value.code()
    return code


def series_after(server: Server, paths: list[str], **metadata: str) -> int:
    with grpc.insecure_channel(server.address) as channel:
        for path in paths:
            assert call(channel, path, **metadata) is not grpc.StatusCode.UNKNOWN
    wait_until(lambda: figures(server)("transparent_llm_active_calls") == 0)
    return figures(server).series


def made_up_paths() -> list[str]:
    return [
        path
        for number in range(MADE_UP // 3)
        for path in (f"/{SERVICE}/Made{number}", f"/made.up.Service{number}/Run", f"/made/up/{number}")
    ]


def test_unknown_methods_are_one_method() -> None:
    with running(metrics_listen=LOOPBACK) as server:
        first = series_after(server, [f"/{SERVICE}/None"])
        assert series_after(server, made_up_paths()) == first
        now = settled(server, {"other": MADE_UP + 1}, CALLS, "method")
        assert now(CALLS, code="UNIMPLEMENTED") == MADE_UP + 1


def test_unknown_methods_without_a_token_are_one_method(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text(new_bearer_token("alice")[1] + "\n", encoding="utf-8")
    with running(metrics_listen=LOOPBACK, tokens_file=tmp_path / "tokens") as server:
        first = series_after(server, [f"/{SERVICE}/None"])
        assert series_after(server, made_up_paths()) == first
        settled(server, {"UNAUTHENTICATED": MADE_UP + 1}, CALLS, "code")
        assert figures(server).by("method", CALLS) == {"other": MADE_UP + 1}


def test_every_known_method_with_every_outcome_is_a_bounded_number_of_series() -> None:
    methods, codes = len({method for _, method in KNOWN.values()}) + 1, len(grpc.StatusCode)
    assert methods * codes < 2000, "OpenTelemetry puts what is beyond into one series"
    with running(metrics_listen=LOOPBACK) as server:
        paths = [path for path in KNOWN if path.startswith(f"/{SERVICE}/")]
        series_after(server, paths)
        assert figures(server).by("method", CALLS).keys() == {KNOWN[path][1] for path in paths}


def test_owners_runs_and_traces_add_no_series(tmp_path: Path) -> None:
    tokens = [new_bearer_token(f"owner-{number}") for number in range(OWNERS)]
    (tmp_path / "tokens").write_text("".join(f"{line}\n" for _, line in tokens), encoding="utf-8")
    with running(metrics_listen=LOOPBACK, tokens_file=tmp_path / "tokens") as server:
        first = 0
        with grpc.insecure_channel(server.address) as channel:
            for number, (token, _) in enumerate(tokens, 1):
                trace = {RUN_KEY_HEADER: f"run-{number}", "traceparent": f"00-{number:032x}-{number:016x}-01"}
                code = call(channel, f"/{SERVICE}/BatchSize", authorization=f"Bearer {token}", **trace)
                assert code is grpc.StatusCode.INVALID_ARGUMENT
                first = first or figures(server).series
        now = settled(server, {"BatchSize": OWNERS}, CALLS, "method")
        assert now.series == first
        assert not any("owner-" in value for family in now.families for s in family.samples for value in values(s))


def values(sample: Any) -> list[str]:
    return list(sample.labels.values())
