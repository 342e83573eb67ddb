"""The gateway for an oversight body's readers: what it leads on, to whom, as whom."""

from typing import Any

import pytest

from ledger.reading_doors import READING
from support.manifests import DEPLOY, Manifest, Rendered, brought, rendered
from support.reader_gateway import SERVICES, identity, method, routed

APPENDS = {"/countersign.ledger.v1.LedgerQueryService/ExportEntries"}
"""Open to every certificate, and each call is an entry: tests/integration/test_reader_gateway.py."""


@pytest.fixture(name="manifests", scope="module")
def _manifests() -> Rendered:
    return rendered(DEPLOY / "examples" / "everything")


@pytest.fixture(name="gateway")
def _gateway(manifests: Rendered) -> dict[str, Any]:
    spec: dict[str, Any] = manifests.named("Gateway", "reader-gateway")["spec"]
    return spec


@pytest.fixture(name="route")
def _route(manifests: Rendered) -> dict[str, Any]:
    spec: dict[str, Any] = manifests.named("GRPCRoute", "ledger-readers")["spec"]
    return spec


def test_it_leads_on_the_methods_that_read_public_fields_and_no_others(
    manifests: Rendered,
) -> None:
    methods = routed(manifests.objects)
    assert len(methods) == len(set(methods))
    assert {f"/{service}/{name}" for service, name in methods} == READING.keys() - APPENDS
    for service, name in methods:
        assert method(service, name).containing_service in SERVICES


def test_it_lets_in_only_whom_the_body_s_authority_has_certified(gateway: dict[str, Any]) -> None:
    """One listener: others of the gateway would have no such check, or lead elsewhere."""
    assert gateway["tls"]["frontend"].keys() == {"default"}
    assert gateway["tls"]["frontend"]["default"]["validation"]["mode"] == "AllowValidOnly"
    (listener,) = gateway["listeners"]
    assert listener["protocol"] == "HTTPS"
    assert listener["tls"]["mode"] == "Terminate"
    assert listener["allowedRoutes"]["namespaces"] == {"from": "Same"}
    assert [one["kind"] for one in listener["allowedRoutes"]["kinds"]] == ["GRPCRoute"]


def test_the_route_leads_from_its_listener_to_a_port_of_the_ledger(
    manifests: Rendered, gateway: dict[str, Any], route: dict[str, Any]
) -> None:
    (listener,) = gateway["listeners"]
    assert route["parentRefs"] == [{"name": "reader-gateway", "sectionName": listener["name"]}]
    assert route["hostnames"] == [listener["hostname"]]
    (rule,) = route["rules"]
    (backend,) = rule["backendRefs"]
    service = manifests.named("Service", backend["name"])
    (port,) = (one for one in service["spec"]["ports"] if one["port"] == backend["port"])
    (pod,) = manifests.chosen({"matchLabels": service["spec"]["selector"]})
    assert pod.ports[port["targetPort"]] == 7441
    (policy,) = manifests.of_kind("BackendTLSPolicy")
    assert policy["spec"]["targetRefs"] == [
        {"group": "", "kind": "Service", "name": backend["name"], "sectionName": port["name"]}
    ]
    checked = policy["spec"]["validation"]
    assert checked["hostname"] in manifests.named("Certificate", "ledger")["spec"]["dnsNames"]
    assert "wellKnownCACertificates" not in checked


def test_the_network_lets_its_pods_reach_that_port_and_nothing_else(
    manifests: Rendered, gateway: dict[str, Any], route: dict[str, Any]
) -> None:
    policy = manifests.named("NetworkPolicy", "reader-gateway")["spec"]
    label = {"gateway.networking.k8s.io/gateway-name": "reader-gateway"}
    assert policy["podSelector"] == {"matchLabels": label}
    assert sorted(policy["policyTypes"]) == ["Egress", "Ingress"]
    (listener,) = gateway["listeners"]
    assert policy["ingress"] == [{"ports": [{"protocol": "TCP", "port": listener["port"]}]}]
    (backend,) = route["rules"][0]["backendRefs"]
    service = manifests.named("Service", backend["name"])
    assert policy["egress"] == [
        {
            "ports": [{"protocol": "TCP", "port": backend["port"]}],
            "to": [{"podSelector": {"matchLabels": service["spec"]["selector"]}}],
        }
    ]


def references(value: object) -> list[Manifest]:
    """Every ConfigMap and Secret that something names."""
    if isinstance(value, list):
        return [found for one in value for found in references(one)]
    if not isinstance(value, dict):
        return []
    here = [value] if value.get("kind") in ("ConfigMap", "Secret") and "name" in value else []
    return here + [found for one in value.values() for found in references(one)]


def test_what_it_names_is_made_here_or_named_in_the_readme(
    manifests: Rendered, gateway: dict[str, Any]
) -> None:
    made = {one["spec"]["secretName"] for one in manifests.of_kind("Certificate")}
    (policy,) = manifests.of_kind("BackendTLSPolicy")
    named = references([gateway, policy["spec"]])
    assert len(named) == 4
    for one in named:
        keys = brought()[one["kind"], one["name"]]
        assert keys == {"tls.crt", "tls.key"} if one["kind"] == "Secret" else {"ca.crt"}
        assert one["kind"] == "ConfigMap" or one["name"] in made
        assert one["group"] == ""


def test_it_is_to_the_ledger_a_reader_that_no_registry_gives_a_right(
    manifests: Rendered, gateway: dict[str, Any]
) -> None:
    client = gateway["tls"]["backend"]["clientCertificateRef"]["name"]
    (spec,) = (
        one["spec"]
        for one in manifests.of_kind("Certificate")
        if one["spec"]["secretName"] == client
    )
    assert spec["uris"] == [str(identity())]
    assert (identity().kind, identity().name) == ("oversight", "reader-gateway")
    assert {"client auth", "server auth"} <= set(spec["usages"])
    (listener,) = gateway["listeners"]
    assert listener["hostname"] in spec["dnsNames"]
    others = manifests.named("Certificate", "ledger")["spec"]
    assert spec["issuerRef"] == others["issuerRef"], "the ledger knows this authority"
