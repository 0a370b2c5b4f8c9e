"""What a person finds out with a generic tool, and no schema: `buf curl` (as grpcurl) by reflection."""

from __future__ import annotations

import base64
import json
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.servers.servers import running
from transparent_llm.wire.methods import SERVICE

BUF = Path(sys.prefix) / "bin" / "buf"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running() as server:
        yield f"http://{server.address}"


def curl(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(BUF), "curl", "--protocol", "grpc", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def ask(url: str, rpc: str, **request: Any) -> Any:
    answer = curl("--data", json.dumps(request), f"{url}/{SERVICE}/{rpc}")
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout)


def test_services_and_methods_are_listed(url: str) -> None:
    assert {SERVICE, "grpc.health.v1.Health"} <= set(curl("--list-services", url).stdout.split())
    assert f"{SERVICE}/DecomposedAttn" in curl("--list-methods", url).stdout.split()


def test_a_run_is_made_and_read(url: str) -> None:
    run = ask(url, "Run", tokens={"sequences": [{"token_ids": [1, 2, 3]}]})
    chunk = ask(url, "AttentionMatrix", run_id=run["runId"], batch_i=0, layer=1, head=2)
    assert chunk["header"]["dims"] == ["query_pos", "key_pos"]
    first, *_ = struct.unpack("<9f", base64.b64decode(chunk["data"]))
    assert first == 1.0  # the first position has only itself to look at


def test_an_error_says_what_is_wrong(url: str) -> None:
    run = ask(url, "Run", tokens={"sequences": [{"token_ids": [1]}]})
    refused = curl("--data", json.dumps({"run_id": run["runId"], "layer": 9}), f"{url}/{SERVICE}/ResidualOut")
    error = json.loads(refused.stderr)
    assert error["code"] == "out_of_range"
    assert error["message"] == "layer 9 is out of range: valid indices are 0 to 1"
    assert "google.rpc.ErrorInfo" in [detail["type"] for detail in error["details"]]
