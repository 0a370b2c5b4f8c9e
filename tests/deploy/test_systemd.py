"""The unit for systemd: systemd's own checker takes it, and its command serves, reads files again and drains."""

from __future__ import annotations

import configparser
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from transparent_llm_server.config.server import ServerConfig

UNIT = Path(__file__).parents[2] / "deploy" / "systemd" / "transparent-llm.service"
PROGRAM = "/srv/transparent-llm/bin/transparent-llm"
OURS = Path(sys.prefix) / "bin" / "transparent-llm"


def service() -> configparser.SectionProxy:
    parser = configparser.RawConfigParser(strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # systemd's names have capitals
    parser.read_string(UNIT.read_text(encoding="utf-8"))
    return parser["Service"]


def test_systemd_takes_it(tmp_path: Path) -> None:
    if (checker := shutil.which("systemd-analyze")) is None:
        pytest.skip("no systemd-analyze here")
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text(encoding="utf-8").replace(PROGRAM, str(OURS)), encoding="utf-8")
    checked = subprocess.run([checker, "verify", str(unit)], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_its_command_serves_and_drains(tmp_path: Path) -> None:
    settings = tmp_path / "server.toml"
    settings.write_text('listen = "127.0.0.1:0"\ndevice = "cpu"\n', encoding="utf-8")
    start = service()["ExecStart"].replace("/etc/transparent-llm/server.toml", str(settings))
    program, *arguments = shlex.split(start)
    assert program == PROGRAM
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-m", "transparent_llm", *arguments], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("ready: 127.0.0.1:")
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0


def test_it_waits_for_the_drain_and_restarts_what_failed() -> None:
    unit = service()
    assert int(unit["TimeoutStopSec"]) >= ServerConfig.drain_announce_s + ServerConfig.drain_s + 15
    assert (unit["Restart"], unit["KillMode"]) == ("on-failure", "mixed")
    assert unit["ExecReload"].split()[1] == "-HUP"
