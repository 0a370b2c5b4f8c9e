"""Where metrics are served: started and stopped with the server, one for each, and none without the extra."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.servers.figures import LOOPBACK, Figures, figures
from support.servers.polling import wait_until
from support.servers.servers import running
from transparent_llm import RemoteTransparentLlm
from transparent_llm.errors import InvalidRequestError
from transparent_llm_server.app import Server
from transparent_llm_server.config.server import ServerConfig
from transparent_llm_server.telemetry import endpoint

WITHOUT_THE_EXTRA = """
import sys
sys.modules["opentelemetry"] = sys.modules["prometheus_client"] = None  # as if they were not installed
from transparent_llm.errors import InvalidRequestError
from transparent_llm_server.app import Server
from transparent_llm_server.config.server import ServerConfig
"""


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


def run(statements: str) -> str:
    command = [sys.executable, "-c", WITHOUT_THE_EXTRA + statements]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def test_it_ends_with_the_server_and_leaves_nothing() -> None:
    before = threads()
    with running(metrics_listen=LOOPBACK) as server:
        address = server.metrics_address
        assert figures(server).families
        assert "metrics" in threads()
    host, _, port = address.rpartition(":")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), timeout=30)
    assert "metrics" not in threads() - before
    with running(metrics_listen=address) as server:  # the address is free again at once
        assert server.metrics_address == address


def test_servers_of_one_process_count_for_themselves() -> None:
    with running(metrics_listen=LOOPBACK) as one, running(metrics_listen=LOOPBACK) as other:
        with RemoteTransparentLlm(one.address) as llm:
            llm.model_info()
        assert figures(one)("transparent_llm_calls_total") == 1
        assert figures(other)("transparent_llm_calls_total") == 0


def test_scrapes_at_one_time_do_not_mix() -> None:
    with running(metrics_listen=LOOPBACK) as server, ThreadPoolExecutor(8) as scrapers:
        addresses = [server.metrics_address] * 40
        for scrape in scrapers.map(Figures, addresses):
            names = [family.name for family in scrape.families]
            assert len(names) == len(set(names))
            assert scrape("transparent_llm_models") == 1


def test_a_connection_that_says_nothing_holds_no_other_up() -> None:
    with running(metrics_listen=LOOPBACK) as server:
        host, _, port = server.metrics_address.rpartition(":")
        with socket.create_connection((host, int(port))):
            assert figures(server).families


def test_a_connection_that_says_nothing_is_closed_without_a_word(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(endpoint._Handler, "timeout", 0.2)
    with running(metrics_listen=LOOPBACK) as server:
        host, _, port = server.metrics_address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=30) as silent:
            assert silent.recv(1) == b""
        monkeypatch.undo()
        assert figures(server).families
    assert "Traceback" not in capfd.readouterr().err


def test_there_is_no_endpoint_unless_asked_for() -> None:
    before = threads()
    with running() as server:
        assert server.metrics_address == ""
        assert "metrics" not in threads() - before


def test_it_serves_metrics_also_while_models_are_loaded_and_the_server_drains() -> None:
    server = Server(ServerConfig(listen="localhost:0", metrics_listen=LOOPBACK, drain_s=1.0, drain_announce_s=60.0))
    server.start()
    assert figures(server)("transparent_llm_models") == 0
    server.ready()
    stopping = threading.Thread(target=server.stop)
    stopping.start()
    assert figures(server).families
    server._failed.set()  # ends the announcement
    stopping.join()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"http://{server.metrics_address}/metrics", timeout=30)


@pytest.mark.parametrize(
    "listen", ["9464", ":9464", "localhost", "localhost:http", "localhost:70000", "localhost:99999", "localhost:-1"]
)
def test_an_address_that_is_none_is_refused(listen: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        Server(ServerConfig(metrics_listen=listen))
    assert refused.value.message == (
        f"metrics_listen is {listen!r}: write HOST:PORT with a port from 0 to 65535, as in 127.0.0.1:50051"
    )


def test_an_address_that_is_taken_is_refused() -> None:
    with running(metrics_listen=LOOPBACK) as server:
        taken = server.metrics_address
        other = Server(ServerConfig(listen="localhost:0", metrics_listen=taken))
        with pytest.raises(InvalidRequestError, match=f"cannot serve metrics on {taken}: is it in use by another"):
            other.start()
        other.stop()
        wait_until(lambda: figures(server).families)


def test_without_the_extra_a_server_starts_and_serves() -> None:
    said = run(
        f"""
sys.path[:0] = {sys.path!r}
from support.servers.servers import running
from transparent_llm import RemoteTransparentLlm
with running() as server, RemoteTransparentLlm(server.address) as llm:
    print("served", llm.model_info().name)
"""
    )
    assert "served tiny" in said


@pytest.mark.parametrize(
    ("setting", "flag"),
    [("metrics_listen='127.0.0.1:0'", "--metrics-listen"), ("otlp_endpoint='http://x:1'", "--otlp-endpoint")],
)
def test_without_the_extra_they_are_refused_with_what_to_install(setting: str, flag: str) -> None:
    said = run(
        f"""
try:
    Server(ServerConfig({setting}))
except InvalidRequestError as error:
    print(error.reason, error.message)
"""
    )
    assert said.startswith(f"INVALID_REQUEST {flag} requires the [observability] extra, and ")
    assert " is not installed: run pip install 'PATH[observability]', where PATH is " in said


def test_a_server_without_metrics_and_traces_loads_no_library_for_them() -> None:
    statements = (
        "from transparent_llm_server.app import Server; from transparent_llm_server.config.server import ServerConfig"
    )
    report = "Server(ServerConfig()); import sys; print({n.split('.')[0] for n in sys.modules})"
    loaded = subprocess.check_output([sys.executable, "-c", f"{statements}\n{report}"], text=True, timeout=120)
    assert "transparent_llm_server" in loaded
    assert "opentelemetry" not in loaded
    assert "prometheus_client" not in loaded
