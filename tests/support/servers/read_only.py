"""A process as a container runs it: nobody's, and nothing can be written but one folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

NOBODY = 65532

# A mount that is made before stays writable when the root is made read-only. The one capability that is left lets it
# read an interpreter that lies in somebody's home; it cannot write by it.
_IN_NAMESPACE = """
set -e
mount --make-rprivate /
mount --bind "$SCRATCH" "$SCRATCH"
mount -o remount,bind,ro /
cd /
exec setpriv --reuid "$NOBODY" --regid "$NOBODY" --clear-groups --no-new-privs \
    --inh-caps=-all,+dac_read_search --ambient-caps=-all,+dac_read_search --bounding-set=-all,+dac_read_search "$@"
"""


def is_possible() -> bool:
    """Whether this user may make a file system read-only for a process of theirs."""
    tools = all(shutil.which(tool) for tool in ("unshare", "mount", "setpriv"))
    if not tools or os.geteuid() != 0:
        return False
    tried = ["unshare", "--mount", "sh", "-c", "mount --make-rprivate / && mount -o remount,bind,ro /"]
    return subprocess.run(tried, capture_output=True, timeout=60).returncode == 0


@contextmanager
def reachable_folder() -> Iterator[Path]:
    """A folder of this test that other users may read; pytest's own are for one user."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


def clean_environment() -> dict[str, str]:
    """This one without what would lend it packages: other paths, or a virtual environment."""
    ours = ("PYTHON", "VIRTUAL_ENV", "TRANSPARENT_LLM")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


@contextmanager
def process(command: Sequence[str | Path], path: Path, scratch: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run it with an environment like the image's, its output in a file; ended with the block."""
    scratch.mkdir()
    os.chown(scratch, NOBODY, NOBODY)
    environment = {
        "PATH": f"{path}:/usr/sbin:/usr/bin:/sbin:/bin",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "HOME": str(scratch),
        "TMPDIR": str(scratch),
        "SCRATCH": str(scratch),
        "NOBODY": str(NOBODY),
    }
    with log.open("wb") as output:
        whole = ["unshare", "--mount", "bash", "-c", _IN_NAMESPACE, "bash", *command]
        running = subprocess.Popen(whole, stdout=output, stderr=subprocess.STDOUT, env=environment)
    try:
        yield running
    finally:
        running.kill()
        running.wait()
