"""A real Prometheus: Debian's binary, on loopback, with the project's own configuration and other targets."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.network.ports import free_ports
from support.servers.polling import wait_until

DEPLOY = Path(__file__).parents[3] / "deploy"
CONFIG = DEPLOY / "prometheus" / "prometheus.yml"
JOB = "transparent-llm"


def binary(name: str) -> str:
    """Its path. A CI without it fails; elsewhere its tests are skipped."""
    path = shutil.which(name)
    if path is None:
        reason = f"no {name} here: scripts/install_prometheus.sh installs it"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return path


class Prometheus:
    """Its HTTP API."""

    def __init__(self, address: str) -> None:
        self._address = address

    def get(self, path: str, **parameters: str) -> Any:
        """What an endpoint answers; HTTPError if it refuses, with its words."""
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"http://{self._address}/api/v1/{path}?{query}", timeout=30) as response:
            return json.load(response)["data"]

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Labels and values of an instant vector."""
        return [(found["metric"], float(found["value"][1])) for found in self.get("query", query=expression)["result"]]

    def value(self, expression: str) -> float | None:
        """The one value of an expression; None if there is none."""
        found = self.query(expression)
        assert len(found) <= 1, found
        return found[0][1] if found else None

    def up(self) -> list[str]:
        """Instances that were scraped."""
        targets = self.get("targets", state="active")["activeTargets"]
        return sorted(target["labels"]["instance"] for target in targets if target["health"] == "up")

    def is_there(self) -> bool:
        try:
            self.get("query", query="1")
        except (OSError, urllib.error.URLError):
            return False
        return True


@contextmanager
def scraping(targets: Sequence[str], folder: Path) -> Iterator[Prometheus]:
    """It reads these servers twice a second, which is also what a scrape may take: a slow one makes them disappear."""
    config = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    config["global"] = {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"}
    config["rule_files"] = [str(CONFIG.parent / name) for name in config["rule_files"]]
    (scrape,) = (scrape for scrape in config["scrape_configs"] if scrape["job_name"] == JOB)
    del scrape["dns_sd_configs"]
    config["scrape_configs"] = [{**scrape, "static_configs": [{"targets": list(targets)}]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    listen = f"127.0.0.1:{free_ports(1)[0]}"
    files = (f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}")
    command = [binary("prometheus"), *files, f"--web.listen-address={listen}", "--log.level=warn"]
    with (folder / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            prometheus = Prometheus(listen)
            wait_until(lambda: prometheus.is_there() or process.poll() is not None)
            assert process.poll() is None, (folder / "log").read_text(encoding="utf-8")
            yield prometheus
        finally:
            process.terminate()
