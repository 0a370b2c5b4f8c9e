"""What breaks a cluster although every object is valid by itself. Each rule yields what it finds wrong, in words."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache
from typing import Any

import kubernetes_validate
import tomllib

from support.deploy.manifests import (
    ENVOY,
    FOLDER,
    ROOT,
    SERVER,
    Manifest,
    bytes_of,
    container_of,
    labels_of,
    least_replicas,
    named,
    of_kind,
    pod_of,
    ports_of,
    read_yaml,
    selected,
    selects,
    serve_flags,
    strings_in,
    written_port,
)
from support.deploy.network_rules import (
    Found,
    envoy_finds_the_servers,
    only_wanted_traffic_passes,
    services_lead_to_ports,
)
from transparent_llm.errors import InvalidRequestError
from transparent_llm_server.config.server import ServerConfig

KUBERNETES = ("1.27", "1.37")
"""The oldest and the newest that the manifests are for."""

SETTINGS, PAGE = "transparent-llm-server-settings", "transparent-llm-page"
MOST_BYTES_OF_AN_ANNOTATION = 256 * 2**10
SPARE_S = 10
"""What a pod needs beside its drain times, to close and to be noticed."""

DNS_TTL_S = 5
"""How long a cluster's DNS lets an address be kept."""

SPARE_BYTES = 2**30
"""Of a container on a CPU: Python with torch (0.5 GiB), small weights, a pass under way."""

GUIDE = ROOT / "docs" / "OPERATIONS.md"


def faults(objects: list[Manifest]) -> list[str]:
    """All that is wrong with what was built."""
    return [fault for rule in RULES for fault in rule(objects)]


def is_valid(objects: list[Manifest]) -> Found:
    for one in objects:
        yield from _faults_of_schema(json.dumps(one))


@cache
def _faults_of_schema(text: str) -> tuple[str, ...]:
    """Kept, as the schemas are large and most objects are the same from test to test."""
    one = json.loads(text)
    for version in KUBERNETES:
        try:
            kubernetes_validate.validate(one, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            return (f"{one['kind']} {one['metadata'].get('name')}, {version}: {error.message}",)
    return ()


def selectors_find_pods(objects: list[Manifest]) -> Found:
    for one in of_kind(objects, "Deployment"):
        if not selects(one["spec"]["selector"]["matchLabels"], labels_of(one)):
            yield f"{one['metadata']['name']} does not select its own pods"
        for spread in pod_of(one)["topologySpreadConstraints"]:
            if not selects(spread["labelSelector"]["matchLabels"], labels_of(one)):
                yield f"{one['metadata']['name']} spreads other pods than its own"
    for kind, path in (("Service", ()), ("PodDisruptionBudget", ("matchLabels",))):
        for one in of_kind(objects, kind):
            selector = one["spec"]["selector"]
            for step in path:
                selector = selector[step]
            if len(selected(objects, selector)) != 1:
                yield f"{kind} {one['metadata']['name']} selects {selector}, which is not one Deployment"


def probes_ask_ports_that_are_there(objects: list[Manifest]) -> Found:
    for deployment in of_kind(objects, "Deployment"):
        container, there = container_of(deployment), ports_of(deployment)
        for name in ("startupProbe", "readinessProbe", "livenessProbe"):
            probe = container.get(name, {})
            port = probe.get("grpc", probe.get("httpGet", {})).get("port")
            if port not in there and port not in there.values():
                yield f"{deployment['metadata']['name']}: {name} asks port {port}, which is not there"
            if "grpc" in probe and port != written_port(container["args"], "--probe-listen"):
                yield f"{deployment['metadata']['name']}: {name} asks port {port}, not that of --probe-listen"
        allowed = container["startupProbe"]["periodSeconds"] * container["startupProbe"]["failureThreshold"]
        if deployment["spec"].get("progressDeadlineSeconds", 600) <= allowed:
            yield f"{deployment['metadata']['name']}: a start may take {allowed} s, longer than progressDeadlineSeconds"


def server_listens_where_its_ports_are(objects: list[Manifest]) -> Found:
    deployment = named(objects, "Deployment", SERVER)
    arguments = container_of(deployment)["args"]
    flags = {"grpc": "--listen", "probe": "--probe-listen", "metrics": "--metrics-listen"}
    written = {name: written_port(arguments, flag) for name, flag in flags.items()}
    if written != ports_of(deployment):
        yield f"the server listens on {written}, its container says {ports_of(deployment)}"
    scraped = deployment["spec"]["template"]["metadata"]["annotations"]["prometheus.io/port"]
    if int(scraped) != written["metrics"]:
        yield f"Prometheus is sent to port {scraped}, metrics are on {written['metrics']}"


def drains_fit(objects: list[Manifest]) -> Found:
    server, envoy = named(objects, "Deployment", SERVER), named(objects, "Deployment", ENVOY)
    flags, _ = serve_flags(container_of(server)["args"])
    needed = flags.drain_announce_s + flags.drain_s + SPARE_S
    if pod_of(server)["terminationGracePeriodSeconds"] < needed:
        yield f"a server needs {needed:g} s to drain and is killed before"
    noticed = notice_s(named(objects, "ConfigMap", ENVOY)["data"]["envoy.yaml"])
    if flags.drain_announce_s < noticed:
        yield f"--drain-announce-s is {flags.drain_announce_s:g}, and Envoy may take {noticed:g} s to notice"
    script = container_of(envoy)["lifecycle"]["preStop"]["exec"]["command"][-1]
    sleep_s = int(re.findall(r"^sleep (\d+)$", script, re.MULTILINE)[0])
    (drain_s,) = (
        int(text.partition("=")[2]) for text in container_of(envoy)["args"] if text.startswith("--drain-time-s=")
    )
    if drain_s > sleep_s:
        yield f"Envoy drains for {drain_s} s and is stopped after {sleep_s}"
    if pod_of(envoy)["terminationGracePeriodSeconds"] < sleep_s + SPARE_S:
        yield f"Envoy's preStop takes {sleep_s} s and it is killed before"


def notice_s(configuration: str) -> float:
    """How long this Envoy may send calls to a replica that has said it will end."""
    (replicas,) = (c for c in read_yaml(configuration)["static_resources"]["clusters"] if c["name"] == "replicas")
    check = replicas["health_checks"][0]
    by_health = _seconds(check["interval"]) * check["unhealthy_threshold"] + _seconds(check["timeout"])
    return max(by_health, _seconds(replicas["cluster_type"]["typed_config"]["dns_refresh_rate"]) + DNS_TTL_S)


def _seconds(text: str) -> float:
    return float(text.removesuffix("s"))


def budgets_leave_somebody(objects: list[Manifest]) -> Found:
    for budget in of_kind(objects, "PodDisruptionBudget"):
        (deployment,) = selected(objects, budget["spec"]["selector"]["matchLabels"]) or [{}]
        least = least_replicas(objects, deployment) if deployment else 0
        if not 0 < budget["spec"]["maxUnavailable"] < least:
            yield f"PodDisruptionBudget {budget['metadata']['name']} may take all of {least} pods, or none"


def scaling_measures_something(objects: list[Manifest]) -> Found:
    values = read_yaml((FOLDER / "prometheus-adapter-values.yaml").read_text(encoding="utf-8"))
    made = {rule["name"]["as"] for rule in values["rules"]["custom"]}
    for scaler in of_kind(objects, "HorizontalPodAutoscaler"):
        target = named(objects, "Deployment", scaler["spec"]["scaleTargetRef"]["name"])
        if "replicas" in target["spec"]:
            yield f"{target['metadata']['name']} has replicas of its own, which undo the autoscaler's at each apply"
        for metric in scaler["spec"]["metrics"]:
            if metric["pods"]["metric"]["name"] not in made:
                yield f"nothing makes the metric {metric['pods']['metric']['name']}"
        if scaler["spec"]["minReplicas"] > scaler["spec"]["maxReplicas"]:
            yield "minReplicas is over maxReplicas"


def mounts_are_there(objects: list[Manifest]) -> Found:
    guide = GUIDE.read_text(encoding="utf-8")
    maps = {one["metadata"]["name"]: one for one in of_kind(objects, "ConfigMap")}
    for deployment in of_kind(objects, "Deployment"):
        volumes = {volume["name"]: volume for volume in pod_of(deployment)["volumes"]}
        for mount in container_of(deployment)["volumeMounts"]:
            volume = volumes.get(mount["name"], {})
            if not volume:
                yield f"{mount['mountPath']} mounts {mount['name']}, which is no volume"
            elif "configMap" in volume and mount.get("subPath", "") not in {"", *_keys(maps, volume)}:
                yield f"{mount['mountPath']} mounts {mount['subPath']}, which the ConfigMap lacks"
        for volume in volumes.values():
            if "configMap" in volume and volume["configMap"]["name"] not in maps:
                yield f"there is no ConfigMap {volume['configMap']['name']}"
            secret, claim = volume.get("secret", {}), volume.get("persistentVolumeClaim", {})
            for name in (secret.get("secretName"), claim.get("claimName")):
                if name is not None and f"`{name}`" not in guide:
                    yield f"{name} is the operator's to make, and {GUIDE.name} does not say so"


def _keys(maps: dict[str, Manifest], volume: Manifest) -> set[str]:
    return _keys_of(maps.get(volume["configMap"]["name"], {}))


def _keys_of(found: Manifest) -> set[str]:
    return {*found.get("data", {}), *found.get("binaryData", {})}


def objects_can_be_applied(objects: list[Manifest]) -> Found:
    """`kubectl apply` writes each into an annotation of itself."""
    for one in objects:
        size = len(json.dumps(one))
        if size > MOST_BYTES_OF_AN_ANNOTATION:
            yield f"{one['metadata']['name']} has {size} bytes, over {MOST_BYTES_OF_AN_ANNOTATION}"


def files_that_are_named_are_mounted(objects: list[Manifest]) -> Found:
    """Those of the arguments, and those that Envoy's files name in turn."""
    configuration = named(objects, "ConfigMap", ENVOY)["data"]
    for deployment in of_kind(objects, "Deployment"):
        container = container_of(deployment)
        mounted = [mount["mountPath"] for mount in container["volumeMounts"]]
        wanted = [text.partition("=")[2] for text in container["args"] if re.match(r"--[\w-]+=/", text)]
        for file in wanted:  # which grows
            if not _below(file, mounted):
                yield f"{file} is read, and nothing is mounted there"
            folder, _, key = file.rpartition("/")
            if folder == "/etc/envoy/page" and key not in _keys_of(named(objects, "ConfigMap", PAGE)):
                yield f"{file} is read, and its ConfigMap lacks it"
            text = configuration.get(file.removeprefix("/etc/envoy/"), "{}")
            wanted.extend(inner for inner in strings_in(read_yaml(text)) if inner.startswith("/etc/envoy/"))


def _below(path: str, folders: list[str]) -> bool:
    return any(path == folder or path.startswith(f"{folder}/") for folder in folders)


def pods_are_restricted(objects: list[Manifest]) -> Found:
    """The Pod Security Standard of that name, and a root file system that nobody writes to."""
    for deployment in of_kind(objects, "Deployment"):
        name, pod, container = deployment["metadata"]["name"], pod_of(deployment), container_of(deployment)
        own = {**pod["securityContext"], **container["securityContext"]}
        wanted: dict[str, Any] = {
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        }
        for key, value in wanted.items():
            if own.get(key) != value:
                yield f"{name}: {key} is {own.get(key)}, not {value}"
        kinds = {kind for volume in pod["volumes"] for kind in volume if kind != "name"}
        if kinds - {"configMap", "emptyDir", "secret", "persistentVolumeClaim"} or own.get("runAsUser", 0) == 0:
            yield f"{name}: volumes {sorted(kinds)} or user {own.get('runAsUser')} are not restricted"
        if any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")):
            yield f"{name} shares a name space with its host"
        account = named(objects, "ServiceAccount", pod["serviceAccountName"])
        if account["automountServiceAccountToken"] or pod["automountServiceAccountToken"]:
            yield f"{name} has a token for the cluster"


def sizes_fit(objects: list[Manifest]) -> Found:
    container = container_of(named(objects, "Deployment", SERVER))
    limits, requests = container["resources"]["limits"], container["resources"]["requests"]
    settings = tomllib.loads(named(objects, "ConfigMap", SETTINGS)["data"]["server.toml"])
    try:
        config = ServerConfig.of(settings)
    except InvalidRequestError as error:
        yield f"server.toml: {error}"
        return
    on_gpu = "nvidia.com/gpu" in limits
    if (config.device == "cuda") != on_gpu:
        yield f"server.toml computes on {config.device}, the pod has {'a' if on_gpu else 'no'} GPU"
    if not on_gpu and config.run_store_bytes + SPARE_BYTES > bytes_of(limits["memory"]):
        yield f"{config.run_store_bytes} bytes of runs leave less than 1 GiB of {limits['memory']}"
    if {key: limits[key] for key in ("cpu", "memory")} != {key: requests[key] for key in ("cpu", "memory")}:
        yield "the server's requests are not its limits"
    threads = {variable["name"]: variable["value"] for variable in container["env"]}.get("OMP_NUM_THREADS")
    if threads != limits["cpu"]:
        yield f"{threads} threads compute on {limits['cpu']} CPUs"


RULES: tuple[Callable[[list[Manifest]], Found], ...] = (
    is_valid,
    selectors_find_pods,
    services_lead_to_ports,
    probes_ask_ports_that_are_there,
    server_listens_where_its_ports_are,
    envoy_finds_the_servers,
    drains_fit,
    budgets_leave_somebody,
    scaling_measures_something,
    mounts_are_there,
    files_that_are_named_are_mounted,
    objects_can_be_applied,
    only_wanted_traffic_passes,
    pods_are_restricted,
    sizes_fit,
)
