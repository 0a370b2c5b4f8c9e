"""What Docker would send to a build of the image, copied to a folder: the files that .dockerignore lets through."""

from __future__ import annotations

import shutil
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from support.deploy.checkout import ROOT, project_files


def ignore_rules() -> list[str]:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def is_sent(name: str, rules: list[str]) -> bool:
    """As Docker decides: the last rule that fits the file or a folder above it counts; `!` lets through."""
    paths = [name, *(str(parent) for parent in PurePosixPath(name).parents if str(parent) != ".")]
    sent = True
    for rule in rules:
        pattern = rule.removeprefix("!")
        if any(_fits(path, pattern) for path in paths):
            sent = rule.startswith("!")
    return sent


def _fits(path: str, pattern: str) -> bool:
    if pattern.startswith("**/"):
        return fnmatch(path.rpartition("/")[2], pattern.removeprefix("**/"))
    return path.count("/") == pattern.count("/") and fnmatch(path, pattern)


def copy_to(folder: Path) -> list[str]:
    """The files of this checkout, those that are not committed yet included; their names."""
    rules = ignore_rules()
    sent = [name for name in project_files() if is_sent(name, rules)]
    for name in sent:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    return sent
