"""Half a megabyte that unpacks to 512 MB: neither a server, nor a client, nor what stands between them unpacks it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from attack.victim import Victim, standing_by, victim
from support.deploy.envoy import envoy_before
from support.network.http2 import answering_with, bomb, call_with
from support.servers.engines import SOON
from transparent_llm.wire.methods import SERVICE

pytestmark = pytest.mark.measured

UNPACKED = 512 * 2**20
GROWS_BY = 64 * 2**20
"""What all the attacks together may add to the most that a process ever had: far under one bomb."""

REFUSED = "Compression algorithm 'gzip' is disabled."
HEALTH = "/grpc.health.v1.Health/Check"
CLIENT = """
import re, sys
from pathlib import Path
from transparent_llm import RemoteTransparentLlm, errors

def most():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024

before = most()
with RemoteTransparentLlm(sys.argv[1], timeout_s=20) as llm:
    for method in (llm.server_info, llm.is_serving, lambda: llm.run(["My lord"])):
        try:
            method()
        except errors.TransparentLlmError as error:
            print(f"{type(error).__name__}: {error}")
        else:
            raise SystemExit("it took the bomb for an answer")
print(most() - before)
"""


@pytest.fixture(scope="module")
def packed() -> bytes:
    return bomb(UNPACKED)


@pytest.fixture(scope="module")
def attacked() -> Iterator[Victim]:
    with victim() as started:
        yield started


def most_bytes(process: int) -> int:
    """The most that a process ever had in memory."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text(encoding="ascii"))
    assert found is not None
    return int(found[1]) * 1024


def test_a_server_unpacks_nothing(attacked: Victim, packed: bytes, is_long: bool) -> None:
    """At either port, whether it lets the caller in or not."""
    token = dict(attacked.metadata())
    calls: list[tuple[str, str, dict[str, str]]] = [
        (attacked.address, f"/{SERVICE}/Run", token),
        (attacked.address, f"/{SERVICE}/Run", {}),
        (attacked.address, f"/{SERVICE}/Unembed", token),
        (attacked.address, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", token),
        (attacked.address, HEALTH, {}),
        (attacked.probe_address, HEALTH, {}),
    ]
    with standing_by(attacked) as bystander:
        before, made = most_bytes(attacked.process.pid), 0
        while len(bystander.health_s) < (400 if is_long else 40):
            for address, path, metadata in calls:
                assert b"grpc-status\x0212" in call_with(packed, address, path, **metadata)  # UNIMPLEMENTED
            made += len(calls)
        grown = most_bytes(attacked.process.pid) - before
    print(f"{made} calls with {len(packed)} bytes each: {grown / 2**20:.1f} MiB more at most")
    assert grown < GROWS_BY


def test_a_server_behind_envoy_is_sent_none(attacked: Victim, packed: bytes, tmp_path: Path) -> None:
    with envoy_before(attacked.probe_address, tmp_path) as proxy:
        before = most_bytes(attacked.process.pid), most_bytes(proxy.process)
        for path in (HEALTH, f"/{SERVICE}/Run"):
            call_with(packed, proxy.address, path)
        after = most_bytes(attacked.process.pid), most_bytes(proxy.process)
    grown = [later - earlier for earlier, later in zip(before, after, strict=True)]
    print(f"server {grown[0] / 2**20:.1f} MiB more at most, Envoy {grown[1] / 2**20:.1f}")
    assert max(grown) < GROWS_BY


@pytest.mark.parametrize("packing", [grpc.Compression.Gzip, grpc.Compression.Deflate], ids=["gzip", "deflate"])
def test_who_packs_is_told_that_nobody_unpacks(attacked: Victim, packing: Any) -> None:
    for address in (attacked.address, attacked.probe_address):
        with grpc.insecure_channel(address, compression=packing) as channel:
            with pytest.raises(grpc.RpcError) as refused:
                channel.unary_unary(HEALTH)(bytes(5000), timeout=SOON)
        error: Any = refused.value
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED
        assert re.fullmatch("Compression algorithm '(gzip|deflate)' is disabled.", error.details())


def test_a_client_unpacks_nothing_of_a_lying_server(packed: bytes) -> None:
    with answering_with(packed) as address:
        finished = subprocess.run([sys.executable, "-c", CLIENT, address], capture_output=True, text=True, timeout=120)
    assert finished.returncode == 0, finished.stderr
    *told, grown = finished.stdout.splitlines()
    print(f"client {int(grown) / 2**20:.1f} MiB more at most; {told[0]}")
    assert int(grown) < GROWS_BY
    assert REFUSED in told[0]
