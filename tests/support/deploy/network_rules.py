"""Who reaches whom in the cluster: rules as those of `cluster_rules`, for services, Envoy and network policies."""

from __future__ import annotations

from collections.abc import Iterator

from support.deploy.manifests import (
    ENVOY,
    SERVER,
    Manifest,
    labels_of,
    named,
    of_kind,
    ports_of,
    read_yaml,
    selected,
    selects,
)

Found = Iterator[str]


def services_lead_to_ports(objects: list[Manifest]) -> Found:
    for service in of_kind(objects, "Service"):
        for deployment in selected(objects, service["spec"]["selector"]):
            there = ports_of(deployment)
            for port in service["spec"]["ports"]:
                target = port["targetPort"]
                if target not in there and target not in there.values():
                    yield f"Service {service['metadata']['name']}: no container has the port {target}"
                elif service["spec"].get("clusterIP") == "None" and there.get(target, target) != port["port"]:
                    name = service["metadata"]["name"]
                    yield f"Service {name} is headless and cannot turn {port['port']} into {target}"


def envoy_finds_the_servers(objects: list[Manifest]) -> Found:
    for name in ("envoy.yaml", "envoy-tls.yaml"):
        configuration = read_yaml(named(objects, "ConfigMap", ENVOY)["data"][name])
        (replicas,) = (c for c in configuration["static_resources"]["clusters"] if c["name"] == "replicas")
        (endpoint,) = (e for group in replicas["load_assignment"]["endpoints"] for e in group["lb_endpoints"])
        address = endpoint["endpoint"]["address"]["socket_address"]
        services = [s for s in of_kind(objects, "Service") if s["metadata"]["name"] == address["address"]]
        if not services or services[0]["spec"].get("clusterIP") != "None":
            yield f"Envoy looks for {address['address']}, which is no headless Service"
        elif address["port_value"] not in [port["port"] for port in services[0]["spec"]["ports"]]:
            yield f"Envoy calls port {address['port_value']}, which {address['address']} lacks"
        asked = endpoint["endpoint"]["health_check_config"]["port_value"]
        if asked != ports_of(named(objects, "Deployment", SERVER))["probe"]:
            yield f"Envoy asks for health at port {asked}, which is not the servers' for probes"
        listening = {
            one["address"]["socket_address"]["port_value"] for one in configuration["static_resources"]["listeners"]
        }
        if listening != set(ports_of(named(objects, "Deployment", ENVOY)).values()):
            yield f"Envoy listens on {sorted(listening)}, its container says otherwise"


def only_wanted_traffic_passes(objects: list[Manifest]) -> Found:
    policies = of_kind(objects, "NetworkPolicy")
    for deployment in of_kind(objects, "Deployment"):
        name = deployment["metadata"]["name"]
        own = [p for p in policies if selects(p["spec"]["podSelector"]["matchLabels"], labels_of(deployment))]
        if len(own) != 1 or set(own[0]["spec"]["policyTypes"]) != {"Ingress", "Egress"}:
            yield f"{name} is not guarded by one policy both ways"
            continue
        opened = {port["port"] for rule in own[0]["spec"]["ingress"] for port in rule["ports"]}
        wanted = set(ports_of(deployment).values())
        if opened != wanted:
            yield f"{name}: ports {sorted(opened)} are open to pods, {sorted(wanted)} are meant to be"
        if not all(rule.get("from") for rule in own[0]["spec"]["ingress"]):
            yield f"{name}: a port is open to everybody"
    yield from _way_from_envoy(policies, named(objects, "Deployment", SERVER), named(objects, "Deployment", ENVOY))


def _way_from_envoy(policies: list[Manifest], server: Manifest, envoy: Manifest) -> Found:
    out, into = (_rules(policies, envoy, "egress"), _rules(policies, server, "ingress"))
    for port in (ports_of(server)["grpc"], ports_of(server)["probe"]):
        if not any(_passes(rule.get("to", []), labels_of(server), rule, port) for rule in out):
            yield f"Envoy may not call the servers at {port}"
        if not any(_passes(rule.get("from", []), labels_of(envoy), rule, port) for rule in into):
            yield f"the servers let no Envoy in at {port}"
        if not all(
            _passes(rule.get("from", []), labels_of(envoy), rule, port) for rule in into if port in _ports(rule)
        ):
            yield f"the servers let others than Envoy in at {port}"


def _rules(policies: list[Manifest], deployment: Manifest, way: str) -> list[Manifest]:
    own = (p["spec"] for p in policies if selects(p["spec"]["podSelector"]["matchLabels"], labels_of(deployment)))
    return [rule for spec in own for rule in spec[way]]


def _passes(peers: list[Manifest], labels: dict[str, str], rule: Manifest, port: int) -> bool:
    wanted = [peer["podSelector"]["matchLabels"] for peer in peers if "podSelector" in peer]
    return any(selects(peer, labels) for peer in wanted) and port in _ports(rule)


def _ports(rule: Manifest) -> list[int]:
    return [one["port"] for one in rule["ports"]]
