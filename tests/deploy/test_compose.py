"""docker-compose.yml against the specification's schema, and against the files, flags and ports that it names."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.deploy.cluster_rules import SPARE_BYTES, SPARE_S, notice_s
from support.deploy.manifests import ROOT, Manifest, bytes_of, read_yaml, serve_flags, strings_in, written_port
from transparent_llm_server.config.server import ServerConfig, settings_of

MAIN, GPU = (ROOT / f"docker-compose{name}.yml" for name in ("", ".gpu"))
SCHEMA = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]


def compose() -> Manifest:
    found: Manifest = read_yaml(MAIN.read_text(encoding="utf-8"))
    return found


def services() -> dict[str, Manifest]:
    found: dict[str, Manifest] = compose()["services"]
    return found


def seconds(text: str) -> float:
    number, unit = re.fullmatch(r"(\d+)(s|m)", text).groups()  # type: ignore[union-attr]
    return int(number) * {"s": 1, "m": 60}[unit]


def mounts(service: Manifest) -> Iterator[tuple[str, str]]:
    """Source and target of each volume."""
    for text in service.get("volumes", []):
        default = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)
        source, target = default.split(":")[:2]
        yield source, target


def test_all_files_follow_the_specification() -> None:
    finished = subprocess.run([*SCHEMA, MAIN, GPU], capture_output=True, text=True, timeout=120)
    assert finished.returncode == 0, finished.stdout + finished.stderr


def test_a_misspelt_key_would_be_seen(tmp_path: Path) -> None:
    broken = tmp_path / "docker-compose.yml"
    broken.write_text(MAIN.read_text(encoding="utf-8").replace("stop_grace_period:", "stop_grace:"))
    finished = subprocess.run([*SCHEMA, broken], capture_output=True, text=True, timeout=120)
    assert finished.returncode == 1
    assert "'stop_grace' was unexpected" in finished.stdout


def test_every_file_that_is_mounted_is_in_the_repository() -> None:
    files = [source for service in services().values() for source, _ in mounts(service) if source.startswith(".")]
    assert len(files) >= 6
    assert [file for file in files if not (ROOT / file).exists()] == []


def test_every_named_volume_is_declared_and_used() -> None:
    used = {source for service in services().values() for source, _ in mounts(service) if not source.startswith(".")}
    assert used == set(compose()["volumes"])


def test_every_configuration_that_a_command_names_is_mounted() -> None:
    for name, service in services().items():
        targets = [target for _, target in mounts(service)]
        words = [word.rpartition("=")[2] for word in service.get("command", [])]
        files = [word for word in words if word.startswith("/") and "." in word]
        assert [file for file in files if file not in targets] == [], name


def test_envoy_finds_every_file_that_it_names() -> None:
    mounted = [(target, ROOT / source) for source, target in mounts(services()["envoy"]) if source.startswith(".")]
    config = read_yaml((ROOT / "deploy" / "envoy" / "envoy.yaml").read_text(encoding="utf-8"))
    wanted = {Path(text) for text in strings_in(config) if text.startswith("/etc/envoy/")}
    assert len(wanted) >= 4
    for file in wanted:
        found = [source / file.relative_to(target) for target, source in mounted if file.is_relative_to(target)]
        assert [path for path in found if path.is_file()], file


def test_the_command_knows_every_argument() -> None:
    flags, unknown = serve_flags(services()["server"]["command"])
    assert unknown == []
    assert flags.insecure


def test_the_settings_are_settings_and_leave_room() -> None:
    server = services()["server"]
    config = ServerConfig.of(settings_of(ROOT / "deploy" / "server" / "server.toml"))
    limits = server["deploy"]["resources"]["limits"]
    assert config.run_store_bytes + SPARE_BYTES <= bytes_of(limits["memory"])
    assert server["environment"]["OMP_NUM_THREADS"] == limits["cpus"]


def test_a_server_has_the_time_to_drain_and_envoy_to_notice() -> None:
    server = services()["server"]
    flags, _ = serve_flags(server["command"])
    assert seconds(server["stop_grace_period"]) >= flags.drain_announce_s + flags.drain_s + SPARE_S
    envoy = (ROOT / "deploy" / "envoy" / "envoy.yaml").read_text(encoding="utf-8")
    assert flags.drain_announce_s >= notice_s(envoy)


def test_replicas_can_be_many() -> None:
    server = services()["server"]
    assert "container_name" not in server
    assert "ports" not in server


def test_envoy_finds_the_servers_and_is_found() -> None:
    configuration = read_yaml((ROOT / "deploy" / "envoy" / "envoy.yaml").read_text(encoding="utf-8"))[
        "static_resources"
    ]
    (cluster,) = (one for one in configuration["clusters"] if one["name"] == "replicas")
    (endpoint,) = (e for group in cluster["load_assignment"]["endpoints"] for e in group["lb_endpoints"])
    address = endpoint["endpoint"]["address"]["socket_address"]
    server, envoy = services()["server"], services()["envoy"]
    assert server["networks"]["default"]["aliases"] == [address["address"]]
    assert written_port(server["command"], "--listen") == address["port_value"]
    listening = [one["address"]["socket_address"]["port_value"] for one in configuration["listeners"]]
    (published,) = envoy["ports"]
    assert int(published.rpartition(":")[2]) == listening[0]
    assert f"/dev/tcp/127.0.0.1/{listening[1]}" in envoy["healthcheck"]["test"][-1]
    assert envoy["depends_on"]["server"]["condition"] == "service_healthy"


def test_a_server_is_asked_for_its_health_where_it_answers() -> None:
    server = services()["server"]
    command, address = server["healthcheck"]["test"][1:]
    assert command == "is-serving"
    assert address == f"127.0.0.1:{written_port(server['command'], '--probe-listen')}"


@pytest.mark.parametrize("name", ["server", "envoy", "prometheus", "grafana"])
def test_a_container_can_do_no_more_than_it_must(name: str) -> None:
    service: dict[str, Any] = services()[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service["user"].startswith(("0", "root"))
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory"}
    assert "healthcheck" in service


@pytest.mark.parametrize("name", ["envoy", "prometheus", "grafana"])
def test_what_asks_for_no_password_is_for_this_machine_alone(name: str) -> None:
    published = [re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", port) for port in services()[name]["ports"]]
    assert [port for port in published if not port.startswith("127.0.0.1:")] == []


def test_prometheus_and_grafana_come_only_when_asked_for() -> None:
    assert {name for name, service in services().items() if service.get("profiles") == ["observability"]} == {
        "prometheus",
        "grafana",
    }


def test_prometheus_looks_for_names_and_ports_that_are_there() -> None:
    configuration = read_yaml((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
    looked_for = {
        name: found["port"]
        for job in configuration["scrape_configs"]
        for found in job.get("dns_sd_configs", [])
        for name in found["names"]
    }
    server, envoy = services()["server"], services()["envoy"]
    (alias,) = server["networks"]["default"]["aliases"]
    (stats,) = re.findall(r"/dev/tcp/127\.0\.0\.1/(\d+)", envoy["healthcheck"]["test"][-1])
    assert looked_for == {alias: written_port(server["command"], "--metrics-listen"), "envoy": int(stats)}


def test_grafana_looks_for_folders_that_are_mounted() -> None:
    grafana = {target: source for source, target in mounts(services()["grafana"])}
    provisioning = ROOT / grafana["/etc/grafana/provisioning"]
    (file,) = (provisioning / "dashboards").glob("*.yml")
    (provider,) = read_yaml(file.read_text(encoding="utf-8"))["providers"]
    assert list((ROOT / grafana[provider["options"]["path"]]).glob("*.json")) != []
    (sources,) = (provisioning / "datasources").glob("*.yml")
    (source,) = read_yaml(sources.read_text(encoding="utf-8"))["datasources"]
    (published,) = services()["prometheus"]["ports"]
    assert source["url"] == f"http://prometheus:{published.rpartition(':')[2]}"


def test_the_file_for_gpus_changes_a_service_that_is_there() -> None:
    over = read_yaml(GPU.read_text(encoding="utf-8"))
    assert set(over) == {"services"}
    assert set(over["services"]) == {"server"} <= set(services())
    server = over["services"]["server"]
    assert server["build"]["args"].keys() <= services()["server"]["build"]["args"].keys()
    (device,) = server["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
