"""Write the SHA-256 of each archive that pip would install, as requirements with hashes.

    python scripts/hash_archives.py --output FILE REQUIREMENT...

With `pip install --no-deps --require-hashes -r FILE` no archive of other content is installed, whatever an index says.
The hashes are those of the index that pip is set up with, for this Python and platform: trust it when they are made.
Torch is left out, which an image takes from an index of its own, and so is what lies in a folder.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LEFT_OUT = {"torch"}


def report(requirements: list[str]) -> list[dict[str, Any]]:
    """What pip would install into an empty environment."""
    pip = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", "--report", "-"]
    finished = subprocess.run(
        [*pip, "--constraint", ROOT / "constraints.txt", *requirements], capture_output=True, text=True, cwd=ROOT
    )
    if finished.returncode:
        sys.exit(finished.stderr)
    found: list[dict[str, Any]] = json.loads(finished.stdout)["install"]
    return found


def lines(installed: list[dict[str, Any]]) -> list[str]:
    """A requirement for each archive."""
    found = []
    for each in installed:
        name, version = each["metadata"]["name"], each["metadata"]["version"]
        archive = each["download_info"].get("archive_info")
        if archive is not None and name.lower() not in LEFT_OUT:
            found.append(f"{name}=={version} --hash=sha256:{archive['hashes']['sha256']}")
    return sorted(found, key=str.lower)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("requirements", nargs="+")
    arguments = parser.parse_args()
    written = lines(report(arguments.requirements))
    python = f"Python {sys.version_info.major}.{sys.version_info.minor} on {sys.platform}"
    notice = f"# By scripts/hash_archives.py, for {python}."
    arguments.output.write_text("\n".join([notice, *written]) + "\n", encoding="utf-8")
    print(f"{len(written)} archives in {arguments.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
