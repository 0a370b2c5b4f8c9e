"""The real Envoy with the project's configuration, for as long as standard input is open. Prints its address."""

import sys
import tempfile
from pathlib import Path

from support.deploy.envoy import envoy_before


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, envoy_before(sys.argv[1], Path(folder)) as proxy:
        print(proxy.address, flush=True)
        sys.stdin.read()


main()
