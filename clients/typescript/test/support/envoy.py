"""The real Envoy with the project's configuration, for as long as standard input is open. Prints its address."""

import sys
import tempfile
from pathlib import Path

from support.envoy import envoy


def main() -> None:
    host, _, port = sys.argv[1].rpartition(":")
    with tempfile.TemporaryDirectory() as folder, envoy(int(port), Path(folder), host=host) as proxy:
        proxy.await_healthy(host)
        print(proxy.address, flush=True)
        sys.stdin.read()


main()
