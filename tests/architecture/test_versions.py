"""The version has one value, in every file that names it, and one script sets it."""

from __future__ import annotations

import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.deploy.checkout import ROOT, needs_a_checkout, project_files
from transparent_llm.version import __version__

SCRIPT = ROOT / "scripts" / "set_version.py"
PLACES = runpy.run_path(str(SCRIPT))["PLACES"]
LOCKED = {"constraints.txt", "package-lock.json", "go.sum", "go.mod"}
"""Files of other packages' versions."""

SAMPLES = {
    "python_client/transparent_llm/version.py": '__version__ = "1.2.3"\nAPI_VERSION = "1.2"\n',
    "clients/typescript/package.json": '{\n  "name": "transparent-llm",\n  "version": "1.2.3",\n  "files": []\n}\n',
    "clients/typescript/package-lock.json": (
        '{\n  "name": "transparent-llm",\n  "version": "1.2.3",\n  "packages": {\n    "": {\n'
        '      "name": "transparent-llm",\n      "version": "1.2.3",\n      "license": "Apache-2.0"\n    },\n'
        '    "node_modules/other": {\n      "version": "1.2.3",\n      "license": "MIT"\n    }\n  }\n}\n'
    ),
    "clients/cpp/CMakeLists.txt": (
        "cmake_minimum_required(VERSION 3.25)\nproject(transparent_llm VERSION 1.2.3 LANGUAGES CXX)\n"
    ),
    "clients/go/version.go": 'package transparentllm\n\n// Version of this client.\nconst Version = "1.2.3"\n',
    "deploy/helm/transparent-llm/Chart.yaml": (
        'name: transparent-llm\nversion: 1.2.3\nappVersion: 1.2.3\nkubeVersion: ">=1.27.0-0"\n'
    ),
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The script and all files that it knows, at version 1.2.3."""
    for name, text in SAMPLES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "scripts").mkdir()
    shutil.copy(SCRIPT, tmp_path / "scripts")
    return tmp_path


def texts(project: Path) -> dict[str, str]:
    return {name: (project / name).read_text(encoding="utf-8") for name in SAMPLES}


def set_version(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, project / "scripts" / SCRIPT.name, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.path)
def test_every_file_names_the_version_of_the_python_client(place: object) -> None:
    assert place.versions(ROOT) == {__version__}  # type: ignore[attr-defined]


def test_the_changelog_begins_with_it() -> None:
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings[0] == __version__


@needs_a_checkout
def test_no_other_file_names_it() -> None:
    known = {"CHANGELOG.md", *(place.path for place in PLACES)}
    named = re.compile(rb"(?<![\d.])%s(?![\d.]*\d)" % re.escape(__version__).encode())
    found = [
        name
        for name in project_files()
        if name not in known and Path(name).name not in LOCKED
        if not re.search(r"(^|/|_)tests?[/_.]", name) and named.search((ROOT / name).read_bytes())
    ]
    assert found == [], "take it from one of the places of scripts/set_version.py, or add it there"


def test_the_samples_are_of_all_places() -> None:
    assert {place.path for place in PLACES} == SAMPLES.keys()


def test_the_version_is_set_everywhere_and_nothing_else_is(project: Path) -> None:
    finished = set_version(project, "1.10.0")
    assert (finished.returncode, finished.stderr) == (0, "")
    assert finished.stdout == "1.10.0 is set; say in CHANGELOG.md what it changes\n"
    others = '    "node_modules/other": {\n      "version": "1.2.3",'
    expected = {name: text.replace("1.2.3", "1.10.0") for name, text in SAMPLES.items()}
    expected = {name: text.replace(others.replace("1.2.3", "1.10.0"), others) for name, text in expected.items()}
    assert texts(project) == expected
    assert set_version(project, "--check").stdout == "1.10.0\n"


@pytest.mark.parametrize("version", ["1.2", "v1.2.3", "1.2.3rc1", "1.2.3-rc.1", "01.2.3", ""])
def test_what_is_no_version_everywhere_is_refused(project: Path, version: str) -> None:
    finished = set_version(project, version)
    assert finished.returncode == 1
    assert finished.stderr == f"set_version.py: {version!r} is no version: write MAJOR.MINOR.PATCH, such as 0.2.0\n"
    assert texts(project) == SAMPLES


def test_nothing_is_written_if_a_file_is_missing(project: Path) -> None:
    (project / "clients/go/version.go").unlink()
    finished = set_version(project, "1.2.4")
    assert (finished.returncode, finished.stderr) == (1, "set_version.py: clients/go/version.go is not here\n")
    assert "1.2.3" in (project / "python_client/transparent_llm/version.py").read_text(encoding="utf-8")


def test_nothing_is_written_if_a_file_has_the_version_elsewhere(project: Path) -> None:
    (project / "clients/cpp/CMakeLists.txt").write_text("project(other)\n", encoding="utf-8")
    finished = set_version(project, "1.2.4")
    assert finished.returncode == 1
    assert finished.stderr.startswith("set_version.py: clients/cpp/CMakeLists.txt names the version 0 times, not 1: ")
    assert "1.2.3" in (project / "python_client/transparent_llm/version.py").read_text(encoding="utf-8")


def test_files_that_do_not_agree_are_named(project: Path) -> None:
    (project / "clients/go/version.go").write_text('const Version = "1.2.2"\n', encoding="utf-8")
    finished = set_version(project, "--check")
    assert finished.returncode == 1
    assert finished.stderr.startswith("set_version.py: the files do not agree: python_client/")
    assert "clients/go/version.go: 1.2.2; " in finished.stderr
