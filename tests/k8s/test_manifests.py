"""What the rendered manifests promise, whichever overlay: hardening, names that lead somewhere, no more flows
than are written down."""

import re
import tomllib
from typing import Any

import pytest

from countersign.installation.nats_config import accounts
from support.manifests import KUSTOMIZATIONS, Manifest, Pod, Rendered, brought, rendered
from support.sources import ROOT

VOLUMES = {"configMap", "secret", "emptyDir", "persistentVolumeClaim", "projected"}
DNS_PORTS = {53, 1053, 5353}
PINNED = re.compile(r"[\w./-]+(:\d+\.\d+\.\d+[\w.-]*|@sha256:[0-9a-f]{64})")
HASHED = re.compile(r"-[a-z0-9]{10}$")


@pytest.fixture(params=KUSTOMIZATIONS, ids=lambda path: path.name, name="manifests")
def _manifests(request: pytest.FixtureRequest) -> Rendered:
    return rendered(request.param)


def containers(manifests: Rendered) -> list[tuple[Pod, Manifest]]:
    return [(pod, one) for pod in manifests.pods for one in pod.containers]


def test_the_namespace_enforces_restricted_pods(manifests: Rendered) -> None:
    (namespace,) = manifests.of_kind("Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    name = namespace["metadata"]["name"]
    offenders = [one for one in manifests.objects if one["metadata"].get("namespace", name) != name]
    assert not offenders


def test_pods_are_restricted(manifests: Rendered) -> None:
    """The standard's rules, and a little more: no token, no environment of services, no shared host."""
    for pod in manifests.pods:
        spec, context = pod.spec, pod.spec["securityContext"]
        assert context["runAsNonRoot"], pod.owner
        assert context["runAsUser"] > 0, pod.owner
        assert context["runAsGroup"] > 0, pod.owner
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, pod.owner
        assert context["fsGroupChangePolicy"] == "OnRootMismatch", pod.owner
        assert spec["automountServiceAccountToken"] is False, pod.owner
        assert spec["enableServiceLinks"] is False, pod.owner
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys(), pod.owner
        for volume in spec.get("volumes", ()):
            assert volume.keys() - {"name"} <= VOLUMES, (pod.owner, volume)
            if "emptyDir" in volume:
                assert volume["emptyDir"]["sizeLimit"], (pod.owner, volume)


def test_containers_have_no_privileges(manifests: Rendered) -> None:
    for pod, one in containers(manifests):
        assert one["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, (pod.owner, one["name"])


def test_containers_say_what_they_need(manifests: Rendered) -> None:
    """No limit of processor time: one that is held back in the middle of a commit holds up everybody."""
    for pod, one in containers(manifests):
        resources = one["resources"]
        assert resources["requests"].keys() == {"cpu", "memory"}, (pod.owner, one["name"])
        assert resources["limits"].keys() == {"memory"}, (pod.owner, one["name"])


def test_images_are_pinned(manifests: Rendered) -> None:
    for pod, one in containers(manifests):
        assert PINNED.fullmatch(one["image"]), (pod.owner, one["image"])


def test_accounts_are_each_part_s_own_and_may_nothing(manifests: Rendered) -> None:
    made = {one["metadata"]["name"]: one for one in manifests.of_kind("ServiceAccount")}
    used = {pod.spec["serviceAccountName"] for pod in manifests.pods}
    assert used == made.keys()
    assert all(one["automountServiceAccountToken"] is False for one in made.values())
    assert not manifests.of_kind("Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding")


def test_long_lived_pods_are_probed_drained_and_spread(manifests: Rendered) -> None:
    for pod in manifests.pods:
        if pod.kind == "CronJob":
            continue
        (one,) = pod.spec["containers"]
        asked = [one[f"{kind}Probe"] for kind in ("startup", "liveness", "readiness")]
        kinds = [str(probe.get("grpc") or probe["httpGet"]) for probe in asked]
        assert len(set(kinds)) == 3, f"{pod.owner}: two probes ask the same"
        pause = one["lifecycle"]["preStop"]["sleep"]["seconds"]
        # 25 s: calls under way, handlers on the bus, and what is left of telemetry.
        assert pod.spec["terminationGracePeriodSeconds"] >= pause + 25, pod.owner
        spread = {rule["topologyKey"] for rule in pod.spec["topologySpreadConstraints"]}
        assert spread == {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}, pod.owner
        for rule in pod.spec["topologySpreadConstraints"]:
            assert rule["whenUnsatisfiable"] == "ScheduleAnyway", "one node must be enough"
            assert pod in manifests.chosen(rule["labelSelector"])


def test_each_part_may_lose_one_pod_at_a_time(manifests: Rendered) -> None:
    budgets = manifests.of_kind("PodDisruptionBudget")
    for budget in budgets:
        assert budget["spec"]["maxUnavailable"] == 1, "a drain must be able to go on"
        assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    kept = [pod.owner for budget in budgets for pod in manifests.chosen(budget["spec"]["selector"])]
    assert sorted(kept) == sorted(pod.owner for pod in manifests.pods if pod.kind != "CronJob")


def test_what_runs_by_hand_never_runs_by_itself(manifests: Rendered) -> None:
    assert all(one["spec"]["suspend"] for one in manifests.of_kind("CronJob"))


def test_disks_outlive_what_uses_them(manifests: Rendered) -> None:
    for one in manifests.of_kind("StatefulSet"):
        policy = one["spec"]["persistentVolumeClaimRetentionPolicy"]
        assert policy == {"whenDeleted": "Retain", "whenScaled": "Retain"}


def test_services_lead_to_ports_on_which_their_pods_listen(manifests: Rendered) -> None:
    for one in manifests.of_kind("Service"):
        pods = manifests.chosen({"matchLabels": one["spec"]["selector"]})
        assert len(pods) == 1, one["metadata"]["name"]
        for port in one["spec"]["ports"]:
            target = port["targetPort"]
            assert pods[0].ports.get(target, target) == port["port"], one["metadata"]["name"]
    for one in manifests.of_kind("StatefulSet"):
        assert manifests.named("Service", one["spec"]["serviceName"])["spec"]["clusterIP"] == "None"


def test_what_our_configuration_files_connect_to_is_a_service(manifests: Rendered) -> None:
    ports = {
        (one["metadata"]["name"], port["port"])
        for one in manifests.of_kind("Service")
        for port in one["spec"]["ports"]
    }
    told = str([one.get("env") for pod in manifests.pods for one in pod.containers])
    elsewhere = {("nats", 4222)} if "COUNTERSIGN_BUS__SERVERS" in told else set()
    assert not elsewhere & ports, "the bus is here, or elsewhere"
    ports |= elsewhere
    for one in manifests.of_kind("ConfigMap"):
        for text in (one.get("data") or {}).values():
            for host, port in re.findall(r'"(?:tls://|https?://)?([a-z][a-z-]*):(\d+)"', text):
                assert (host, int(port)) in ports, one["metadata"]["name"]


def test_configuration_is_immutable_and_changes_its_name(manifests: Rendered) -> None:
    made = manifests.of_kind("ConfigMap")
    assert made
    for one in made:
        if "grafana_dashboard" in one["metadata"].get("labels", {}):
            # Nothing of ours reads it, and two of its releases side by side would have one uid.
            assert not HASHED.search(one["metadata"]["name"])
            continue
        assert one["immutable"] is True
        assert HASHED.search(one["metadata"]["name"])


def test_certificates_bear_the_names_that_the_bus_knows(manifests: Rendered) -> None:
    """A process whose certificate names another identity is nobody on the bus."""
    domain = "countersign.test"
    core = accounts(domain, ["lacris"])["COUNTERSIGN"]["users"]
    certificates = {
        one["spec"]["secretName"]: one["spec"] for one in manifests.of_kind("Certificate")
    }
    for pod in manifests.pods:
        for volume in pod.spec.get("volumes", ()):
            made = certificates.get(volume.get("secret", {}).get("secretName", ""))
            if made is None:
                continue
            (uri,) = made["uris"]
            assert uri in {user["user"] for user in core} | {f"spiffe://{domain}/service/nats"}
            assert made["privateKey"]["rotationPolicy"] == "Always"
            services = {one["metadata"]["name"] for one in manifests.of_kind("Service")}
            if pod.name in services:
                assert {pod.name, f"{pod.name}.countersign.svc"} <= set(made["dnsNames"])


def test_of_a_connector_there_is_one_with_its_record_on_a_disk_of_its_own(
    manifests: Rendered,
) -> None:
    """Two that do not share it run a search twice. A StatefulSet ends one pod before it starts the next."""
    found = [pod for pod in manifests.pods if pod.name == "connector"]
    scalers = manifests.of_kind("HorizontalPodAutoscaler", "ScaledObject")
    assert "connector" not in {one["spec"]["scaleTargetRef"]["name"] for one in scalers}
    systems = []
    for pod in found:
        assert pod.kind == "StatefulSet"
        workload = manifests.named("StatefulSet", pod.owner)["spec"]
        assert workload["replicas"] == 1
        (container,) = pod.spec["containers"]
        (config,) = (one["configMap"] for one in pod.spec["volumes"] if one["name"] == "config")
        (text,) = manifests.named("ConfigMap", config["name"])["data"].values()
        settings = tomllib.loads(text)
        systems.append(settings["system"])
        mounts = {one["mountPath"]: one["name"] for one in container["volumeMounts"]}
        assert mounts[settings["state"]] in pod.claims
        assert "COUNTERSIGN_STATE" not in {one["name"] for one in container["env"]}
    assert len(systems) == len(set(systems))


def test_autoscalers_are_the_only_ones_to_say_how_many(manifests: Rendered) -> None:
    scalers = manifests.of_kind("HorizontalPodAutoscaler", "ScaledObject")
    scaled = [one["spec"]["scaleTargetRef"]["name"] for one in scalers]
    assert len(scaled) == len(set(scaled)), "two would quarrel"
    for name in scaled:
        assert "replicas" not in manifests.named("Deployment", name)["spec"], name


def test_runbooks_of_alerts_are_there(manifests: Rendered) -> None:
    for one in manifests.of_kind("PrometheusRule"):
        for group in one["spec"]["groups"]:
            for rule in group["rules"]:
                page = rule["annotations"]["runbook_url"].partition("#")[0]
                assert (ROOT / page).is_file(), rule["alert"]


def test_what_prometheus_is_told_to_fetch_is_served(manifests: Rendered) -> None:
    """Each of our processes, where there is a PodMonitor of them; and then none sends the same as well."""
    monitors = [one for one in manifests.of_kind("PodMonitor") if "jobLabel" in one["spec"]]
    serving = set()
    for pod in manifests.pods:
        for one in pod.containers:
            told = {env["name"]: env.get("value") for env in one.get("env", ())}
            if (address := told.get("COUNTERSIGN_TELEMETRY__SCRAPE")) is not None:
                assert pod.ports["metrics"] == int(address.rpartition(":")[2]), pod.owner
                assert "COUNTERSIGN_TELEMETRY__EXPORTER" not in told, "counted twice"
                serving.add(pod.name)
                assert ("monitoring", pod.name, pod.ports["metrics"]) in flows(manifests)
    lasting = {pod.name for pod in manifests.pods if pod.kind != "CronJob"} - {"nats"}
    assert serving == (lasting if monitors else set())
    for monitor in monitors:
        assert {one["port"] for one in monitor["spec"]["podMetricsEndpoints"]} == {"metrics"}
        chosen = manifests.chosen(monitor["spec"]["selector"])
        assert serving <= {pod.name for pod in chosen}
        assert all(monitor["spec"]["jobLabel"] in pod.labels for pod in chosen)


def mounted(pod: Pod) -> set[tuple[str, str, str]]:
    """Kind, name and key of whatever a pod wants to be there; the key is empty for all of it."""
    wanted = set()
    volumes = [
        source
        for volume in pod.spec.get("volumes", ())
        for source in volume.get("projected", {}).get("sources", [volume])
    ]
    for volume in volumes:
        for key, kind in (("configMap", "ConfigMap"), ("secret", "Secret")):
            if (source := volume.get(key)) is not None:
                name = source.get("secretName") or source["name"]
                keys = [item["key"] for item in source.get("items", ())] or [""]
                wanted |= {(kind, name, one) for one in keys}
    for one in pod.containers:
        for variable in one.get("env", ()):
            for key, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
                if (ref := variable.get("valueFrom", {}).get(key)) is not None:
                    wanted.add((kind, ref["name"], ref["key"]))
    return wanted


def test_whatever_is_mounted_is_made_here_or_named_in_the_readme(manifests: Rendered) -> None:
    known = brought()
    for one in manifests.of_kind("ConfigMap"):
        known["ConfigMap", one["metadata"]["name"]] = set(one.get("data") or {})
    for one in manifests.of_kind("Certificate"):
        known["Secret", one["spec"]["secretName"]] = {"tls.crt", "tls.key", "ca.crt"}
    for pod in manifests.pods:
        for kind, name, key in mounted(pod):
            assert (kind, name) in known, f"{pod.owner} mounts {kind} {name}"
            assert not key or key in known[kind, name], f"{pod.owner}: {name} has no {key}"


# Flows


def flows(manifests: Rendered) -> set[tuple[str, str, int]]:
    """Who may open a connection to whom, on which port: what both sides' policies allow."""
    outgoing: set[tuple[str, str, int]] = set()
    incoming: set[tuple[str, str, int]] = set()
    for policy in manifests.of_kind("NetworkPolicy"):
        spec = policy["spec"]
        if policy["metadata"]["name"] in ("default-deny", "dns"):
            continue
        for pod in names_of(manifests, spec):
            for rule in spec.get("egress", ()):
                outgoing |= {(pod, to, port) for to, port in ends(manifests, rule, "to")}
            for rule in spec.get("ingress", ()):
                incoming |= {(by, pod, port) for by, port in ends(manifests, rule, "from")}
    names = within(manifests)
    inside = {flow for flow in outgoing if flow[1] in names}
    for source, target, port in inside:
        allowed = {(source, target, port), ("anybody", target, port)}
        assert allowed & incoming, f"{target} does not let {source} in at {port}"
    heard = {flow for flow in incoming if flow[0] in names}
    assert heard <= inside, f"never said: {heard - inside}"
    return outgoing | {flow for flow in incoming if flow[0] not in names}


def within(manifests: Rendered) -> set[str]:
    """Every part that runs in the namespace: our pods, and those that an operator makes."""
    subjects = {
        name
        for policy in manifests.of_kind("NetworkPolicy")
        if policy["spec"]["podSelector"]
        for name in names_of(manifests, policy["spec"])
    }
    return subjects | {pod.name for pod in manifests.pods}


def ends(manifests: Rendered, rule: Manifest, side: str) -> set[tuple[str, int]]:
    """The other ends of a rule, each with the port."""
    assert all(port["protocol"] == "TCP" for port in rule["ports"])
    ports = [port["port"] for port in rule["ports"]]
    if side not in rule:
        assert side == "from", "nobody may speak with the whole world"
        return {("anybody", port) for port in ports}
    return {
        (name, port) for peer in rule[side] for name in names_of(manifests, peer) for port in ports
    }


def names_of(manifests: Rendered, peer: dict[str, Any]) -> set[str]:
    """What the table of connections calls a peer."""
    if "ipBlock" in peer or "namespaceSelector" in peer:
        labels = peer.get("namespaceSelector", {}).get("matchLabels", {})
        return {labels.get("kubernetes.io/metadata.name", "outside")}
    found = {pod.name for pod in manifests.chosen(peer["podSelector"])}
    # Pods that an operator makes are known by the label that it gives them.
    return found or {
        peer["podSelector"]["matchLabels"][one] for one in peer["podSelector"]["matchLabels"]
    }


def written_down() -> set[tuple[str, str, int]]:
    """The table of connections in the living design."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    section = page.partition("\n## Connections\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([\w, -]+) \| ([\w, -]+) \| ([\d, ]+) \|", section, re.MULTILINE)
    return {
        (source, target, int(port))
        for sources, targets, ports in rows
        for source in sources.split(", ")
        for target in targets.split(", ")
        for port in ports.split(", ")
    }


def test_every_pod_is_cut_off_but_for_what_is_allowed(manifests: Rendered) -> None:
    policy = manifests.named("NetworkPolicy", "default-deny")["spec"]
    assert policy["podSelector"] == {}
    assert sorted(policy["policyTypes"]) == ["Egress", "Ingress"]
    assert not {"ingress", "egress"} & policy.keys()
    dns = manifests.named("NetworkPolicy", "dns")["spec"]
    assert {port["port"] for port in dns["egress"][0]["ports"]} == DNS_PORTS
    assert "from" not in str(dns)


def test_policies_allow_the_connections_of_the_design_and_no_others(manifests: Rendered) -> None:
    names = within(manifests)
    listening = {(pod.name, port) for pod in manifests.pods for port in pod.ports.values()}
    designed, found = written_down(), flows(manifests)
    foreign = {
        (source, target, port)
        for source, target, port in found
        if not {(source, target, port), ("anybody", target, port)} & designed
    }
    assert not foreign, "allowed, and not in docs/architecture.md"
    missing = {
        (source, target, port)
        for source, target, port in designed - found
        if (target, port) in listening and source in names | {"anybody"}
    }
    assert not missing, "in docs/architecture.md, and not allowed"


def test_allowed_ports_are_listened_on(manifests: Rendered) -> None:
    listening = {(pod.name, port) for pod in manifests.pods for port in pod.ports.values()}
    names = {pod.name for pod in manifests.pods}
    for _, target, port in flows(manifests):
        assert target not in names or (target, port) in listening, (target, port)
