"""The real Envoy with deploy/page/login.yaml, for as long as standard input is open: PAGE_PORT TOKEN. Prints its port.

alice has the password "wonderland".
"""

import base64
import hashlib
import json
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from support.deploy.envoy import BINARY, FOLDER
from support.network.ports import free_port
from support.servers.polling import wait_until

PAGE = FOLDER.parent / "page"


def main(page_port: int, token: str) -> None:
    """Until standard input ends."""
    port, admin = free_port(["127.0.0.1"]), free_port(["127.0.0.1"])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        password = base64.b64encode(hashlib.sha1(b"wonderland").digest()).decode()
        (folder / "people.txt").write_text(f"alice:{{SHA}}{password}\n", encoding="utf-8")
        bearer = (PAGE / "bearer.yaml").read_text(encoding="utf-8").replace("Bearer TOKEN", f"Bearer {token}")
        (folder / "bearer.yaml").write_text(bearer, encoding="utf-8")
        text = (PAGE / "login.yaml").read_text(encoding="utf-8").replace("/etc/envoy", name)
        config = yaml.safe_load(text.replace("port_value: 8000", f"port_value: {port}"))
        endpoints = config["static_resources"]["clusters"][0]["load_assignment"]["endpoints"]
        endpoints[0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]["port_value"] = page_port
        config["admin"] = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": admin}}}
        path = folder / "envoy.json"
        path.write_text(json.dumps(config), encoding="utf-8")
        command = [BINARY, "-c", path, "--concurrency", "1", "--use-dynamic-base-id", "--log-level", "error"]
        with subprocess.Popen(command) as process:
            try:
                wait_until(lambda: _is_listening(port) or process.poll() is not None)
                if process.poll() is not None:
                    sys.exit("Envoy ended; what it said stands above")
                print(port, flush=True)
                sys.stdin.read()
            finally:
                process.terminate()


def _is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


main(int(sys.argv[1]), sys.argv[2])
