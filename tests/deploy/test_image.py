"""The image as far as it goes without Docker: its files, and the script that is its build."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from support.deploy.build_context import ROOT, copy_to, ignore_rules, is_sent
from support.deploy.manifests import FOLDER, build, container_of, named, pod_of, read_yaml, serve_flags
from support.servers import read_only
from support.servers.polling import wait_until
from support.servers.servers import running
from transparent_llm import connect
from transparent_llm.version import __version__

FILES = ROOT / "deploy" / "docker"
DOCKERFILE = (FILES / "Dockerfile").read_text(encoding="utf-8")
SCRIPT, IS_SERVING = FILES / "build_image_root.sh", FILES / "is_serving.py"


def asked(address: str) -> subprocess.CompletedProcess[str]:
    """What it says, again if the answer took longer than its three seconds."""
    for _ in range(10):
        finished = subprocess.run([sys.executable, IS_SERVING, address], capture_output=True, text=True, timeout=60)
        if "Deadline Exceeded" not in finished.stderr:
            break
    return finished


def test_the_dockerfile_has_no_known_mistakes() -> None:
    hadolint = Path(sys.prefix, "bin", "hadolint")
    finished = subprocess.run([hadolint, FILES / "Dockerfile"], capture_output=True, text=True, timeout=60)
    assert finished.returncode == 0, finished.stdout


def test_the_script_has_no_known_mistakes() -> None:
    shellcheck = Path(sys.prefix, "bin", "shellcheck")
    finished = subprocess.run([shellcheck, SCRIPT, ROOT / ".ci" / "run"], capture_output=True, text=True, timeout=60)
    assert finished.returncode == 0, finished.stdout


def test_the_build_is_sent_what_it_copies_and_nothing_that_lies_about() -> None:
    rules = ignore_rules()
    for name in ("pyproject.toml", "constraints.txt", "LICENSE", "README.md", "deploy/docker/build_image_root.sh"):
        assert is_sent(name, rules), name
    client = "python_client/transparent_llm"
    for name in ("server/transparent_llm_server/app.py", f"{client}/client/transport/service_config.json"):
        assert is_sent(name, rules), name
    for name in (
        ".git/config",
        ".env",
        "alice.token",
        "tests/conftest.py",
        ".venv/bin/python",
        "deploy/envoy/envoy.yaml",
    ):
        assert not is_sent(name, rules), name
    assert not is_sent("server/transparent_llm_server/__pycache__/app.pyc", rules)


def test_the_minor_version_of_python_is_the_one_of_the_pins() -> None:
    (minor,) = re.findall(r"^ARG PYTHON_IMAGE=python:(\d+\.\d+)-slim", DOCKERFILE, re.MULTILINE)
    assert f"on Python {minor}." in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()[0]


def test_the_user_of_the_image_is_the_user_of_compose_and_kubernetes() -> None:
    (user,) = re.findall(r"^USER (\S+)$", DOCKERFILE, re.MULTILINE)
    composed = read_yaml((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]["server"]["user"]
    context = pod_of(named(build(FOLDER / "overlays" / "cpu"), "Deployment", "transparent-llm-server"))[
        "securityContext"
    ]
    assert user == composed == f"{context['runAsUser']}:{context['runAsGroup']}"


def test_folders_that_are_written_to_are_volumes() -> None:
    (volumes,) = re.findall(r"^VOLUME (.+)$", DOCKERFILE, re.MULTILINE)
    (cache,) = re.findall(r"HF_HOME=(/\w+)", DOCKERFILE)
    assert volumes.split() == ["/models", cache]
    mounts = container_of(named(build(FOLDER / "overlays" / "cpu"), "Deployment", "transparent-llm-server"))[
        "volumeMounts"
    ]
    assert {"/models", cache, "/tmp"} <= {mount["mountPath"] for mount in mounts}


def test_the_command_of_the_image_is_known_and_lets_nobody_in() -> None:
    (listed,) = re.findall(r"^CMD \[(.+)\]$", DOCKERFILE, re.MULTILINE)
    flags, unknown = serve_flags(re.findall(r'"([^"]+)"', listed))
    assert flags.listen == "0.0.0.0:50051"
    assert not flags.insecure
    assert unknown == []


def test_is_serving_says_what_health_says() -> None:
    with running() as server:
        finished = asked(server.address)
        assert (finished.returncode, finished.stderr) == (0, "")
        server._tell_health(False)
        finished = asked(server.address)
        assert finished.returncode == 1
        assert finished.stderr == f"is-serving: {server.address} says NOT_SERVING\n"
        address = server.address
    finished = asked(address)
    assert finished.returncode == 1
    assert f"is-serving: no answer from {address}: " in finished.stderr


def test_is_serving_loads_neither_torch_nor_the_packages() -> None:
    code = f"import runpy, sys; runpy.run_path({str(IS_SERVING)!r}); print(*sys.modules)"
    loaded = subprocess.check_output([sys.executable, "-c", code], text=True, timeout=60).split()
    assert "grpc" in loaded
    assert not {"torch", "transparent_llm", "transparent_llm_server"} & set(loaded)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "write: build_image_root.sh PREFIX cpu|cuda"),
        (["build/root", "cpu"], "PREFIX is build/root: it must be an absolute path"),
        (["/tmp", "cpu"], "PREFIX is /tmp, which is there already: choose a path that is free"),
        (["/nowhere/root", "gpu"], "the variant is gpu: it must be cpu or cuda"),
    ],
)
def test_the_script_says_what_it_wants(arguments: list[str], said: str) -> None:
    finished = subprocess.run([SCRIPT, *arguments], capture_output=True, text=True, timeout=60)
    assert finished.returncode == 1
    assert said in finished.stderr


def test_hashes_that_are_not_there_are_missed() -> None:
    environment = {**os.environ, "HASHES": "/nowhere/hashes.txt"}
    command = [SCRIPT, "/nowhere/root", "cpu"]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert finished.returncode == 1
    assert "there is no file /nowhere/hashes.txt (HASHES): make one with make hashes" in finished.stderr


def hash_archives(output: Path, requirement: str) -> None:
    """What `make hashes` does."""
    command = [sys.executable, ROOT / "scripts" / "hash_archives.py", "--output", output, requirement]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert finished.returncode == 0, finished.stderr


def test_an_archive_of_other_content_is_not_installed(tmp_path: Path) -> None:
    hashes = tmp_path / "hashes.txt"
    hash_archives(hashes, "packaging")
    (line,) = re.findall(r"^packaging==\S+ --hash=sha256:[0-9a-f]{64}$", hashes.read_text(), re.MULTILINE)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes", "--requirement", hashes]
    good = subprocess.run([*pip, "--target", tmp_path / "good"], capture_output=True, text=True, timeout=120)
    assert good.returncode == 0, good.stderr
    hashes.write_text(line[:-1] + ("0" if line[-1] != "0" else "1"))
    bad = subprocess.run([*pip, "--target", tmp_path / "bad"], capture_output=True, text=True, timeout=120)
    assert bad.returncode != 0
    assert "THESE PACKAGES DO NOT MATCH THE HASHES" in bad.stderr


@pytest.fixture(scope="module")
def image_root(pytestconfig: pytest.Config) -> Iterator[Path]:
    """What the script makes out of what Docker would be sent, in an empty folder."""
    if not pytestconfig.getoption("--image", default=False):
        pytest.skip("installs torch, two minutes: make image-test, or --image")
    with read_only.reachable_folder() as folder:
        source, root = folder / "source", folder / "root"
        assert copy_to(source)
        hash_archives(source / "deploy" / "docker" / "hashes.txt", ".[server,gguf,observability]")
        environment = {**read_only.clean_environment(), "PYTHON": sys.executable}
        command = [source / "deploy" / "docker" / SCRIPT.name, root, "cpu"]
        finished = subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, timeout=1200)
        assert finished.returncode == 0, finished.stderr
        assert finished.stdout.splitlines()[-1] == f"{__version__} for cpu in {root}"
        yield root


@pytest.mark.skipif(torch.version.cuda is not None, reason="pip finds a torch with CUDA here")
def test_an_image_for_gpus_is_not_made_of_a_torch_without_them(image_root: Path) -> None:
    prefix = image_root.parent / "gpu"
    script = image_root.parent / "source" / "deploy" / "docker" / SCRIPT.name
    environment = {**read_only.clean_environment(), "PYTHON": sys.executable}
    finished = subprocess.run([script, prefix, "cuda"], env=environment, capture_output=True, text=True, timeout=1200)
    assert finished.returncode == 1
    assert "is a build without CUDA: pass a TORCH_INDEX_URL that has one" in finished.stderr
    assert not prefix.exists()


def test_the_image_has_pinned_versions_and_says_which(image_root: Path) -> None:
    listed = (image_root / "share" / "transparent-llm" / "installed.txt").read_text(encoding="utf-8")
    installed = dict(line.split("==") for line in listed.splitlines() if "==" in line)
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    pinned = dict(re.findall(r"^([\w.-]+)==([^\s;]+)", pins, re.MULTILINE))
    lowered = {name.lower().replace("-", "_"): version for name, version in pinned.items()}
    for name, version in installed.items():
        assert version.partition("+")[0] == lowered[name.lower().replace("-", "_")], name
    assert {"torch", "grpcio", "opentelemetry-sdk"} <= installed.keys()
    assert "pytest" not in installed
    assert not (image_root / "bin" / "pip").exists()


def test_the_image_has_its_bill_of_materials(image_root: Path) -> None:
    share = image_root / "share" / "transparent-llm"
    text = (share / "sbom.cdx.json").read_text(encoding="utf-8")
    bill = json.loads(text)
    assert (bill["bomFormat"], bill["metadata"]["component"]["name"]) == ("CycloneDX", "transparent-llm")
    listed = {each["name"].lower().replace("_", "-"): each for each in bill["components"]}
    frozen = (share / "installed.txt").read_text(encoding="utf-8").splitlines()
    installed = dict(line.lower().replace("_", "-").split("==") for line in frozen if "==" in line)
    assert {"torch", "grpcio", "protobuf", "transformers"} <= installed.keys()
    for name, version in installed.items():
        assert listed[name]["version"].lower() == version, name
        assert listed[name]["purl"].startswith(f"pkg:pypi/{name}@"), name
    assert not {"pytest", "cyclonedx-bom"} & listed.keys()
    assert str(image_root.parent) not in text


@pytest.mark.skipif(not read_only.is_possible(), reason="only root makes a file system read-only")
def test_the_image_serves_as_nobody_where_nothing_can_be_written(image_root: Path) -> None:
    with serving_read_only(image_root) as (address, process):
        assert Path(f"/proc/{process.pid}").stat().st_uid == read_only.NOBODY
        with connect(address) as llm:
            llm.run(["My lord, the king of France"])
            assert llm.residual_out(3).shape[-1] == llm.model_info().d_model
        probe = subprocess.run([image_root / "bin" / "is-serving", address], capture_output=True, text=True, timeout=60)
        assert probe.returncode == 0, probe.stderr
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    scratch = image_root.parent / "scratch"
    assert [path for path in scratch.rglob("*") if path.is_file()] == []  # libraries want a /tmp and keep nothing there


@contextmanager
def serving_read_only(image_root: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A server of the image's files under a root that is read-only, but for one folder; its address and process."""
    log = image_root.parent / "serve.log"
    command = [image_root / "bin" / "transparent-llm", "serve", "--listen", "127.0.0.1:0"]
    with read_only.process(command, image_root / "bin", image_root.parent / "scratch", log) as process:
        wait_until(lambda: "ready: " in log.read_text() or process.poll() is not None)
        found = re.search(r"ready: (\S+)", log.read_text())
        assert found is not None, log.read_text()
        yield found[1], process


@pytest.mark.skipif(not read_only.is_possible(), reason="only root makes a file system read-only")
def test_nothing_can_be_written_there_indeed() -> None:
    with read_only.reachable_folder() as folder:
        log = folder / "log"
        script = 'echo kept > "$TMPDIR/file"; echo lost > "$1/file"; id -u'
        command = ["bash", "-c", script, "bash", str(folder)]
        with read_only.process(command, folder, folder / "scratch", log) as process:
            process.wait(60)
        assert (folder / "scratch" / "file").read_text() == "kept\n"
        assert "Read-only file system" in log.read_text()
        assert log.read_text().splitlines()[-1] == str(read_only.NOBODY)
