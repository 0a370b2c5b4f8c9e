"""What is in the wheel and in the sdist, file by file, and that they can be made again to the byte."""

from __future__ import annotations

import shutil
import tarfile
import zipfile
from pathlib import Path

from packaging.metadata import Metadata

from support.deploy.checkout import ROOT, needs_a_checkout, project_files
from support.deploy.published import build
from transparent_llm.version import __version__

PACKAGES = {"transparent_llm": "python_client", "transparent_llm_server": "server"}
NAMED = f"transparent_llm-{__version__}"
NEEDED = {
    "transparent_llm/py.typed",
    "transparent_llm/client/transport/service_config.json",
    "transparent_llm/wire/_gen/service_pb2.py",
    "transparent_llm/wire/_gen/service_pb2.pyi",
    "transparent_llm/integrations/transformer_lens/driver.py",
    "transparent_llm_server/py.typed",
    "transparent_llm_server/http/page/index.html",
    "transparent_llm_server/http/page/page.css",
    "transparent_llm_server/http/page/page.js",
    "transparent_llm_server/demo/model/config.json",
    "transparent_llm_server/demo/model/model.safetensors",
    "transparent_llm_server/demo/model/tokenizer.json",
}
DIST_INFO = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"}
BESIDE = {"CHANGELOG.md", "LICENSE", "PKG-INFO", "README.md", "pyproject.toml", ".gitignore"}
"""In the sdist, beside the packages and the schema. By .gitignore Hatch leaves out what this project leaves out."""


def in_wheel(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def in_sdist(path: Path) -> dict[str, bytes]:
    found = {}
    with tarfile.open(path) as archive:
        for member in archive.getmembers():
            assert member.isfile(), f"{member.name} is no plain file"
            content = archive.extractfile(member)
            assert content is not None
            found[member.name] = content.read()
    return found


def required_by(extra: str, metadata: Metadata) -> set[str]:
    """Requirements of an extra, without its name."""
    found = [str(requirement).partition("; ") for requirement in metadata.requires_dist or []]
    return {requirement for requirement, _, marker in found if marker == f'extra == "{extra}"'}


@needs_a_checkout
def test_the_wheel_has_the_two_packages_and_nothing_else(wheel: Path) -> None:
    sources = {name.removeprefix(f"{folder}/") for folder in PACKAGES.values() for name in project_files(folder)}
    assert in_wheel(wheel).keys() == sources | {f"{NAMED}.dist-info/{name}" for name in DIST_INFO}
    assert sources >= NEEDED


@needs_a_checkout
def test_the_sdist_has_the_packages_the_schema_and_nothing_else(built: tuple[Path, Path]) -> None:
    sources = {*project_files(*PACKAGES.values(), "protos")}
    assert in_sdist(built[0]).keys() == {f"{NAMED}/{name}" for name in sources | BESIDE}
    assert "protos/transparent_llm/v1/service.proto" in sources


def test_files_are_as_they_are_here(built: tuple[Path, Path]) -> None:
    sdist, wheel = built
    for name, content in in_sdist(sdist).items():
        if not name.endswith("/PKG-INFO"):
            assert content == (ROOT / name.removeprefix(f"{NAMED}/")).read_bytes(), name
    for name, content in in_wheel(wheel).items():
        package = name.partition("/")[0]
        if package in PACKAGES:
            assert content == (ROOT / PACKAGES[package] / name).read_bytes(), name
    assert in_wheel(wheel)[f"{NAMED}.dist-info/licenses/LICENSE"] == (ROOT / "LICENSE").read_bytes()


def test_no_file_names_this_machine(built: tuple[Path, Path]) -> None:
    contents = {**in_sdist(built[0]), **in_wheel(built[1])}
    assert [name for name, content in contents.items() if str(ROOT).encode() in content] == []


def test_the_metadata_are_right(built: tuple[Path, Path]) -> None:
    written = in_wheel(built[1])[f"{NAMED}.dist-info/METADATA"]
    assert written == in_sdist(built[0])[f"{NAMED}/PKG-INFO"]
    metadata = Metadata.from_email(written, validate=True)  # raises for what an index would refuse
    assert (metadata.name, str(metadata.version)) == ("transparent-llm", __version__)
    assert metadata.license_expression == "Apache-2.0"
    assert metadata.license_files == ["LICENSE"]
    assert metadata.description_content_type == "text/markdown"
    extras = {extra: required_by(extra, metadata) for extra in metadata.provides_extra or []}
    assert {"server", "observability", "transformer-lens"} <= extras.keys()
    assert extras["transformer-lens"] <= extras["server"], "the versions of one library differ"
    assert in_wheel(built[1])[f"{NAMED}.dist-info/entry_points.txt"] == (
        b"[console_scripts]\ntransparent-llm = transparent_llm.cli:main\n"
    )


@needs_a_checkout
def test_they_can_be_made_again_to_the_byte(built: tuple[Path, Path], tmp_path: Path) -> None:
    """Elsewhere, later, and with other times on the files."""
    source, folder = tmp_path / "elsewhere", tmp_path / "dist"
    for name in {*project_files(*PACKAGES.values(), "protos")} | BESIDE - {"PKG-INFO"}:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, source / name)
    for first, second in zip(built, build(source, folder), strict=True):
        assert second.name == first.name
        assert second.read_bytes() == first.read_bytes(), first.name
