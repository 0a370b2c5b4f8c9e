"""The project's Kubernetes manifests as kustomize builds them, and how to find one's way in them."""

from __future__ import annotations

import argparse
import copy
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from transparent_llm_server.config.flags import add_serve_flags

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "deploy" / "kubernetes"
OVERLAYS = ("cpu", "gpu", "tls")
SERVER, ENVOY = "transparent-llm-server", "transparent-llm-envoy"
KUBECTL = Path(sys.prefix, "bin", "kubectl")

Manifest = dict[str, Any]
Loader = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader


def build(folder: Path) -> list[Manifest]:
    """All objects of an overlay, fresh each time, so that a test may break one."""
    return copy.deepcopy(_built(folder))


@cache
def _built(folder: Path) -> list[Manifest]:
    command = [KUBECTL, "kustomize", folder]
    output = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    return list(yaml.load_all(output, Loader))


@cache
def read_yaml(text: str) -> Any:
    """Not to be changed by who reads it."""
    return yaml.load(text, Loader)


def build_with(component: str, overlay: str, scratch: Path) -> list[Manifest]:
    """An overlay of an operator's own: one of ours and a component."""
    parts = {"resources": FOLDER / "overlays" / overlay, "components": FOLDER / "components" / component}
    kustomization = {name: [os.path.relpath(path, scratch.resolve())] for name, path in parts.items()}
    (scratch / "kustomization.yaml").write_text(yaml.safe_dump({"kind": "Kustomization", **kustomization}))
    return build(scratch)


def of_kind(objects: list[Manifest], kind: str) -> list[Manifest]:
    return [found for found in objects if found["kind"] == kind]


def named(objects: list[Manifest], kind: str, name: str) -> Manifest:
    """The one object of this kind and name, but for the hash that kustomize puts behind names of ConfigMaps."""
    (found,) = (one for one in of_kind(objects, kind) if one["metadata"]["name"].startswith(name))
    return found


def pod_of(deployment: Manifest) -> Manifest:
    spec: Manifest = deployment["spec"]["template"]["spec"]
    return spec


def container_of(deployment: Manifest) -> Manifest:
    (container,) = pod_of(deployment)["containers"]
    return container  # type: ignore[no-any-return]


def labels_of(deployment: Manifest) -> dict[str, str]:
    labels: dict[str, str] = deployment["spec"]["template"]["metadata"]["labels"]
    return labels


def selects(selector: dict[str, str], labels: dict[str, str]) -> bool:
    return selector.items() <= labels.items()


def selected(objects: list[Manifest], selector: dict[str, str]) -> list[Manifest]:
    """The Deployments whose pods have these labels."""
    return [one for one in of_kind(objects, "Deployment") if selects(selector, labels_of(one))]


def ports_of(deployment: Manifest) -> dict[str, int]:
    return {port["name"]: port["containerPort"] for port in container_of(deployment)["ports"]}


def least_replicas(objects: list[Manifest], deployment: Manifest) -> int:
    """How many pods there are at the quietest time."""
    for scaler in of_kind(objects, "HorizontalPodAutoscaler"):
        if scaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]:
            return int(scaler["spec"]["minReplicas"])
    return int(deployment["spec"].get("replicas", 1))


def serve_flags(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """What `transparent-llm serve` makes of these arguments, and those that it does not know."""
    parser = argparse.ArgumentParser(exit_on_error=False, allow_abbrev=False)
    add_serve_flags(parser)
    return parser.parse_known_args([text for text in arguments if text != "serve"])


def written_port(arguments: list[str], flag: str) -> int:
    """Of `--flag=HOST:PORT`, whether or not the server knows that flag."""
    (address,) = (text.partition("=")[2] for text in arguments if text.startswith(f"{flag}="))
    return int(address.rpartition(":")[2])


def bytes_of(quantity: str) -> int:
    units = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "K": 10**3, "M": 10**6, "G": 10**9}
    for unit, factor in units.items():
        if quantity.endswith(unit):
            return int(quantity.removesuffix(unit)) * factor
    return int(quantity)


def strings_in(value: Any) -> Iterator[str]:
    """Every text of a nested structure."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from strings_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings_in(inner)
