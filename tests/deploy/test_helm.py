"""The Helm chart makes what kustomize makes, and refuses values that mean nothing."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest
import tomllib
from jsonschema import Draft7Validator

from support.deploy.cluster_rules import faults
from support.deploy.helm import SCHEMA, HelmError, lint, notes, render, values_file
from support.deploy.manifests import (
    FOLDER,
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
from transparent_llm_server.config.server import ServerConfig

GPU = values_file("values-gpu.yaml")
TLS = {"tls": {"enabled": True}}
HUB = {"hub": {"enabled": True}}
FORMS: dict[str, dict[str, Any]] = {
    "cpu": {},
    "gpu": GPU,
    "tls": TLS,
    "tls on gpus": {**GPU, **TLS},
    "hub": HUB,
    "hub on gpus": {**GPU, **HUB},
}


def by_kustomize(form: str, scratch: Path) -> list[Manifest]:
    if form in {"cpu", "gpu", "tls"}:
        return build(FOLDER / "overlays" / form)
    component, overlay = form.split(" ")[0], "gpu" if "gpus" in form else "cpu"
    return build_with(component, overlay, scratch)


def essence(objects: list[Manifest]) -> dict[tuple[str, str], Any]:
    """Without what only says who made it, comments in settings, and what the two have for noticing a change."""
    for one in objects:
        if one["kind"] in {"ConfigMap", "PersistentVolumeClaim"}:  # to which kustomize gives none
            one["metadata"].pop("labels", None)
    return {(one["kind"], unhashed(one["metadata"]["name"])): stripped(one) for one in objects}


def unhashed(name: str) -> str:
    return re.sub(r"-(?=[a-z0-9]*\d)[a-z0-9]{10}$", "", name)


def stripped(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        inner = {k: stripped(v, k) for k, v in value.items() if not k.startswith(("checksum/", "helm.sh/"))}
        for made_by in ("instance", "managed-by", "version") if key == "labels" else ():
            inner.pop(f"app.kubernetes.io/{made_by}", None)
        return {k: v for k, v in inner.items() if (k, v) != ("annotations", {})}
    if isinstance(value, list):
        inside = [stripped(one) for one in value]
        return (
            sorted(inside, key=lambda one: json.dumps(one, sort_keys=True))
            if key in {"env", "volumeMounts", "volumes", "args", "egress"}
            else inside
        )
    if key in {"transparent_llm.pb", "page.js.gz"}:
        return base64.b64decode(value)
    if key == "server.toml":
        return tomllib.loads(value)
    return unhashed(value) if key == "name" else value


@pytest.mark.parametrize("form", FORMS)
def test_it_makes_what_kustomize_makes(form: str, tmp_path: Path) -> None:
    made, wanted = essence(render(FORMS[form])), essence(by_kustomize(form, tmp_path))
    assert made.keys() == wanted.keys()
    for name, one in wanted.items():
        assert made[name] == one, name


@pytest.mark.parametrize("form", FORMS)
def test_it_is_valid_holds_together_and_passes_helms_linter(form: str) -> None:
    assert faults(render(FORMS[form])) == []
    assert lint(FORMS[form]) == []


def test_what_is_set_arrives() -> None:
    objects = render(
        {
            "image": {"server": "registry.example/llm:1", "pullPolicy": "Always", "pullSecrets": ["registry"]},
            "autoscaling": {"enabled": False},
            "replicas": 2,
            "server": {"cpus": 6, "memory": "32Gi", "env": {"HF_ENDPOINT": "https://hub"}, "nodeSelector": {"a": "b"}},
            "settings": 'device = "cpu"\nrun_store_bytes = 4294967296\n',
            "hub": {"enabled": True, "claim": "shelf", "tokenSecret": "hub-token"},
            "envoy": {"service": {"type": "LoadBalancer", "annotations": {"x": "y"}}},
            **TLS,
        }
    )
    deployment = named(objects, "Deployment", SERVER)
    pod, container = pod_of(deployment), container_of(deployment)
    assert (deployment["spec"]["replicas"], of_kind(objects, "HorizontalPodAutoscaler")) == (2, [])
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    assert {each["image"] for each in (container, *pod["initContainers"])} == {"registry.example/llm:1"}
    assert {each["imagePullPolicy"] for each in (container, *pod["initContainers"])} == {"Always"}
    assert pod["nodeSelector"] == {"a": "b"}
    own = {each["name"]: each.get("value") for each in container["env"]}
    assert (own["OMP_NUM_THREADS"], own["HF_ENDPOINT"]) == ("6", "https://hub")
    assert container["resources"]["limits"] == {"cpu": "6", "memory": "32Gi"}
    assert pod["initContainers"][0]["env"][0]["valueFrom"]["secretKeyRef"]["name"] == "hub-token"
    (cache,) = (each for each in pod["volumes"] if each["name"] == "cache")
    assert cache["persistentVolumeClaim"] == {"claimName": "shelf"}
    assert of_kind(objects, "PersistentVolumeClaim") == []
    (service,) = (each for each in of_kind(objects, "Service") if each["metadata"]["name"] == "transparent-llm")
    assert (service["spec"]["type"], service["metadata"]["annotations"]) == ("LoadBalancer", {"x": "y"})
    settings = named(objects, "ConfigMap", "transparent-llm-server-settings")["data"]["server.toml"]
    assert ServerConfig.of(tomllib.loads(settings)).run_store_bytes == 2**32


@pytest.mark.parametrize("form", FORMS)
def test_the_command_knows_every_argument(form: str) -> None:
    pod = pod_of(named(render(FORMS[form]), "Deployment", SERVER))
    for container in (*pod["containers"], *pod.get("initContainers", [])):
        assert serve_flags(container["args"])[1] == []


def test_another_setting_restarts_the_replicas_and_another_release_does_not() -> None:
    def annotations(values: dict[str, Any]) -> Any:
        return named(render(values), "Deployment", SERVER)["spec"]["template"]["metadata"]["annotations"]

    assert annotations({"settings": 'device = "cpu"\nhang_s = 1.0\n'}) != annotations({})
    assert annotations({"envoy": {"replicas": 3}}) == annotations({})


def test_one_replica_has_no_budget_that_would_hold_its_node() -> None:
    alone = {"autoscaling": {"enabled": False}, "replicas": 1, "envoy": {"replicas": 1}}
    assert of_kind(render(alone), "PodDisruptionBudget") == []


def test_without_policies_there_are_none() -> None:
    assert of_kind(render({"network": {"enabled": False}}), "NetworkPolicy") == []


def test_notes_say_what_stands_open() -> None:
    assert "neither TLS nor a token" in notes({})
    assert "neither TLS nor a token" not in notes(TLS)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a misspelt value": ({"server": {"cpu": 2}}, "'cpu' not allowed"),
    "a number for a text": ({"server": {"memory": 4}}, "memory"),
    "a share of a CPU": ({"server": {"cpus": 0.5}}, "cpus"),
    "no replica": ({"replicas": 0}, "replicas"),
    "the hub's token in the open": ({"server": {"env": {"HF_TOKEN": "hf_secret"}}}, "env"),
    "a name that is none": ({"models": {"claim": "My Claim"}}, "claim"),
    "open to the world without TLS": ({"envoy": {"service": {"type": "LoadBalancer"}}}, "tls"),
    "settings as a table": ({"settings": {"device": "cpu"}}, "settings"),
}


@pytest.mark.parametrize("name", WRONG)
def test_values_that_mean_nothing_are_refused(name: str) -> None:
    values, text = WRONG[name]
    with pytest.raises(HelmError, match=re.escape(text)):
        render(values)
    assert lint(values)


def test_more_at_least_than_at_most_is_refused() -> None:
    with pytest.raises(HelmError, match=r"autoscaling\.minReplicas is 9, over autoscaling\.maxReplicas, 8"):
        render({"autoscaling": {"minReplicas": 9}})


def test_the_schema_is_one_and_fits_the_values() -> None:
    """By another reader of schemas than Helm's; Helm looks at what it has merged."""
    Draft7Validator.check_schema(SCHEMA)
    own = values_file("values.yaml")
    Draft7Validator(SCHEMA).validate(own)
    merged = {key: {**own[key], **value} if isinstance(value, dict) else value for key, value in GPU.items()}
    Draft7Validator(SCHEMA).validate({**own, **merged})
    broken = {**own, "tls": {**own["tls"], "enable": True}}
    assert [each.message for each in Draft7Validator(SCHEMA).iter_errors(broken)]


def test_every_value_has_its_place_in_the_schema() -> None:
    def names(tree: Any, path: str = "") -> set[str]:
        if not isinstance(tree, dict) or not tree:
            return {path}
        return {name for key, inner in tree.items() for name in names(inner, f"{path}.{key}")}

    def known(schema: dict[str, Any], path: str = "") -> set[str]:
        if "properties" not in schema:
            return {path}
        return {name for key, inner in schema["properties"].items() for name in known(inner, f"{path}.{key}")}

    assert names(values_file("values.yaml")) == known(SCHEMA) - {".global"}
