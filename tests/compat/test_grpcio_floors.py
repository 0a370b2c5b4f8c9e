"""The oldest grpcio that pyproject.toml allows works, and unpacks no message: for a client, and for a server.

A server's must be one that bounds what it unpacks: versions up to 1.82.1, and 1.83.0, unpack first and look then.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from compat import client_script
from compat.environment import Environment, make_environment
from support.deploy.checkout import ROOT
from support.network.http2 import answering_with, bomb, call_with
from support.servers.engines import SOON
from transparent_llm import connect
from transparent_llm.testing import serve_in_process
from transparent_llm.wire.methods import SERVICE
from transparent_llm_server import TransformerLensTransparentLlm
from transparent_llm_server.demo import DEMO_MODEL

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROTOBUF = "5.29.6"
GROWS_BY = 64 * 2**20
BOMBED = """
import re, sys
from pathlib import Path
import grpc
from transparent_llm import RemoteTransparentLlm, errors

def most():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024

before = most()
with RemoteTransparentLlm(sys.argv[1], timeout_s=20) as llm:
    try:
        llm.server_info()
    except errors.TransparentLlmError as error:
        assert "Compression algorithm" in str(error), error
    else:
        raise SystemExit("it took the bomb for an answer")
print(grpc.__version__, most() - before)
"""


def floors(extra: str = "") -> dict[str, str]:
    """The lowest versions of gRPC's packages in the requirements, or in those of an extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = project["optional-dependencies"][extra] if extra else project["dependencies"]
    wanted = [Requirement(line) for line in lines if line.startswith("grpcio")]
    lowest = {each.name: next(part.version for part in each.specifier if part.operator == ">=") for each in wanted}
    return {name.replace("-", "_"): version for name, version in lowest.items()}


@pytest.fixture(scope="module")
def packed() -> bytes:
    return bomb(512 * 2**20)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return make_environment(tmp_path_factory.mktemp("client"), PROTOBUF, **floors())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return make_environment(tmp_path_factory.mktemp("server"), PROTOBUF, **{**floors(), **floors("server")})


@pytest.fixture(scope="module")
def local() -> TransformerLensTransparentLlm:
    return TransformerLensTransparentLlm(str(DEMO_MODEL), device="cpu")


def test_the_oldest_client_gives_exactly_the_values_of_the_local_model(
    client: Environment, local: TransformerLensTransparentLlm
) -> None:
    with serve_in_process(local.copy()) as llm:
        seen = client.run(client_script.__file__, llm.server.address, PROTOBUF)
    assert seen.startswith('{"is_serving": true')
    assert client_script.observe(local.copy())["residual_out"] in seen


def test_the_oldest_client_unpacks_nothing(client: Environment, packed: bytes) -> None:
    with answering_with(packed) as address:
        version, grown = client.run("-c", BOMBED, address).split()
    assert version == floors()["grpcio"]
    print(f"\ngrpcio {version}: {int(grown) / 2**20:.1f} MiB more at most")
    assert int(grown) < GROWS_BY


def test_the_oldest_server_answers_and_unpacks_nothing(
    server: Environment, local: TransformerLensTransparentLlm, packed: bytes
) -> None:
    assert server.run("-c", "import grpc; print(grpc.__version__)").strip() == floors("server")["grpcio"]
    with serving(server) as (address, process):
        with connect(address, device="cpu") as llm:
            assert client_script.observe(llm) == client_script.observe(local.copy())
        before = most_bytes(process)
        for path in (f"/{SERVICE}/Run", "/grpc.health.v1.Health/Check"):
            assert b"grpc-status\x0212" in call_with(packed, address, path)  # UNIMPLEMENTED
        grown = most_bytes(process) - before
    print(f"\ngrpcio {floors('server')['grpcio']}: {grown / 2**20:.1f} MiB more at most")
    assert grown < GROWS_BY


def test_the_oldest_grpcio_of_a_server_bounds_what_it_unpacks(server: Environment, packed: bytes) -> None:
    """By itself, where compression is let in: what is refused here is refused there before it is unpacked."""
    script = """
import concurrent.futures, grpc
class Anything(grpc.GenericRpcHandler):
    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(lambda request, context: b"")
threads, limit = concurrent.futures.ThreadPoolExecutor(1), ("grpc.max_receive_message_length", 2**22)
server = grpc.server(threads, [Anything()], options=[limit])
print(server.add_insecure_port("127.0.0.1:0"), flush=True)
server.start()
input()
"""
    command = [server.python, "-I", "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = f"127.0.0.1:{process.stdout.readline().strip()}"
        before = most_bytes(process)
        ended = call_with(packed, address, "/any/Call")
        grown = most_bytes(process) - before
        process.kill()
    assert b"Decompressed message larger than max" in ended
    assert grown < GROWS_BY


def most_bytes(process: subprocess.Popen[str]) -> int:
    """The most that it ever had in memory."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text(encoding="ascii"))
    assert found is not None
    return int(found[1]) * 1024


@contextmanager
def serving(environment: Environment) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The address and the process of a server of the demo model in this environment."""
    command = [environment.python, "-I", "-m", "transparent_llm", "serve", "--listen", "127.0.0.1:0", "--device", "cpu"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            line = process.stdout.readline()
            assert line.startswith("ready: "), process.stderr.read()
            yield line.removeprefix("ready: ").strip(), process
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=SOON)
