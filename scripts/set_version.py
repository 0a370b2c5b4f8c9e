"""Set the project's version in every file that names it, or tell whether they agree.

    python scripts/set_version.py 0.2.0     # write it everywhere, if every file has its place for it
    python scripts/set_version.py --check   # print the version; exit 1 if the files do not agree

Versions are MAJOR.MINOR.PATCH, which Python, npm, CMake and Go read alike. Go itself takes the version of a module from
a tag: `git tag clients/go/v0.2.0`.
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VERSION = re.compile(r"(0|[1-9]\d*)(\.(0|[1-9]\d*)){2}")


@dataclass(frozen=True)
class Place:
    """Where a file names the version."""

    path: str
    pattern: str
    """Its one group is the version."""

    times: int = 1
    """How often the file has it."""

    def found(self, root: Path) -> list[re.Match[str]]:
        """Where the version is.

        Raises:
            ValueError: the file is not there, or does not name the version so often.
        """
        if not (root / self.path).is_file():
            raise ValueError(f"{self.path} is not here")
        found = list(re.finditer(self.pattern, self.read(root), re.MULTILINE))
        if len(found) != self.times:
            raise ValueError(f"{self.path} names the version {len(found)} times, not {self.times}: {self.pattern}")
        return found

    def versions(self, root: Path) -> set[str]:
        return {match[1] for match in self.found(root)}

    def replaced(self, root: Path, version: str) -> str:
        """The file's text with another version."""
        found = self.found(root)
        text = self.read(root)
        for match in reversed(found):
            text = text[: match.start(1)] + version + text[match.end(1) :]
        return text

    def read(self, root: Path) -> str:
        return (root / self.path).read_text(encoding="utf-8")


PLACES = (
    Place("python_client/transparent_llm/version.py", r'^__version__ = "(.+)"$'),
    Place("clients/typescript/package.json", r'^  "version": "(.+)",$'),
    Place("clients/typescript/package-lock.json", r'"name": "transparent-llm",\n +"version": "(.+)",$', times=2),
    Place("clients/cpp/CMakeLists.txt", r"^project\(\s*\w+\s+VERSION\s+([\d.]+)"),
    Place("clients/go/version.go", r'^const Version = "(.+)"$'),
    Place("deploy/helm/transparent-llm/Chart.yaml", r"^(?:version|appVersion): ([\d.]+)$", times=2),
)
"""Image tags and labels, the wheel and the archives take theirs from the first."""


def agreed(root: Path) -> str:
    """The version that all files name.

    Raises:
        ValueError: a file is missing, or they do not agree.
    """
    named = {place.path: ", ".join(sorted(place.versions(root))) for place in PLACES}
    if len(set(named.values())) > 1:
        raise ValueError("the files do not agree: " + "; ".join(f"{path}: {name}" for path, name in named.items()))
    return next(iter(named.values()))


def write(root: Path, version: str) -> None:
    """Have all files name this version.

    Raises:
        ValueError: it is no version, or a file is not as it should be; nothing was written.
    """
    if not VERSION.fullmatch(version):
        raise ValueError(f"{version!r} is no version: write MAJOR.MINOR.PATCH, such as 0.2.0")
    texts = {place.path: place.replaced(root, version) for place in PLACES}
    for path, text in texts.items():
        (root / path).write_text(text, encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    wanted = parser.add_mutually_exclusive_group(required=True)
    wanted.add_argument("version", nargs="?", help="the new version")
    wanted.add_argument("--check", action="store_true", help="write nothing; exit 1 if the files do not agree")
    arguments = parser.parse_args()
    try:
        if arguments.check:
            print(agreed(ROOT))
        else:
            write(ROOT, arguments.version)
            print(f"{arguments.version} is set; say in CHANGELOG.md what it changes")
    except ValueError as error:
        print(f"set_version.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
