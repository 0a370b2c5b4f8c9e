"""Envoy itself finds the configurations good, and the generated ones are current."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from support.deploy.envoy import BINARY, FOLDER, install
from support.servers.certificates import Authority
from transparent_llm.wire.methods import RUN_KEY_HEADER, SERVICE
from transparent_llm_server.config.server import ServerConfig

ROOT = FOLDER.parents[1]


def validate(config: Path, text: str) -> subprocess.CompletedProcess[str]:
    config.write_text(text, encoding="utf-8")
    command = [BINARY, "--mode", "validate", "--use-dynamic-base-id", "-c", config]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize("name", ["envoy.yaml", "envoy-tls.yaml"])
def test_envoy_accepts_it(name: str, tmp_path: Path) -> None:
    pair = Authority(tmp_path / "authority").issue("localhost")
    (tmp_path / "tls").mkdir()
    (tmp_path / "upstream").mkdir()
    (tmp_path / "tls" / "tls.crt").write_bytes(pair.cert.read_bytes())
    (tmp_path / "tls" / "tls.key").write_bytes(pair.key.read_bytes())
    (tmp_path / "upstream" / "ca.crt").write_bytes((tmp_path / "authority" / "ca.pem").read_bytes())
    install(tmp_path)
    text = (tmp_path / name).read_text(encoding="utf-8")
    checked = validate(tmp_path / name, text)
    assert checked.returncode == 0, checked.stderr[-2000:]
    broken = validate(tmp_path / name, text.replace("lb_policy: MAGLEV", "lb_policy: MAGLEW"))
    assert broken.returncode != 0


def test_generated_files_are_current() -> None:
    command = [sys.executable, ROOT / "scripts" / "generate_envoy.py", "--check"]
    checked = subprocess.run(command, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


def test_it_agrees_with_the_server() -> None:
    """Numbers that stand on both sides."""
    config = yaml.safe_load((FOLDER / "envoy.yaml").read_text(encoding="utf-8"))
    ingress = config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    replicas = config["static_resources"]["clusters"][0]
    (http2,) = (
        options["explicit_http_config"]["http2_protocol_options"]
        for options in replicas["typed_extension_protocol_options"].values()
    )
    server = ServerConfig()
    assert ingress["max_request_headers_kb"] * 1024 == server.max_metadata_bytes
    assert ingress["http2_protocol_options"]["max_concurrent_streams"] == server.max_streams_per_connection
    assert 64 < http2["max_concurrent_streams"] < server.max_streams_per_connection
    assert float(http2["connection_keepalive"]["interval"].rstrip("s")) > server.shortest_ping_s
    transcoder = ingress["http_filters"][2]["typed_config"]
    assert transcoder["services"] == [SERVICE]
    assert transcoder["max_request_body_size"] == server.max_request_bytes
    calls = ingress["route_config"]["virtual_hosts"][0]["routes"][1]
    assert calls["match"]["prefix"] == f"/{SERVICE}/"
    assert calls["route"]["hash_policy"] == [{"header": {"header_name": RUN_KEY_HEADER}}]
    assert replicas["circuit_breakers"]["thresholds"][0]["max_requests"] > server.max_streams
