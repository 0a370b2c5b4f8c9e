"""Run a command with TRANSPARENT_LLM_ADDRESS set to a server of the demo model, which lives as long as the command.

with_server.py COMMAND [ARGUMENT ...], by an interpreter with the project installed
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

READY = "ready: "


def main(command: list[str]) -> int:
    """The command's exit code; 1 if the server does not start."""
    serve = [
        sys.executable,
        "-m",
        "transparent_llm",
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--dataset",
        f"words={__file__}",
    ]
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(serve, stdout=subprocess.PIPE, stderr=log, text=True) as server,
    ):
        assert server.stdout is not None
        try:
            said = next((line for line in server.stdout if line.startswith(READY)), None)
            if said is None:
                log.seek(0)
                print("the server did not start:", log.read(), sep="\n", file=sys.stderr)
                return 1
            address = said.removeprefix(READY).strip()
            return subprocess.run(command, env={**os.environ, "TRANSPARENT_LLM_ADDRESS": address}).returncode
        finally:
            server.terminate()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
