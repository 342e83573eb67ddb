"""An operator's own overlay, as the README shows it."""

import os
import re

import pytest

from support.manifests import DEPLOY, Rendered, rendered

DIGEST = f"sha256:{'0' * 64}"


@pytest.fixture(name="made", scope="module")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    folder = tmp_path_factory.mktemp("overlay")
    page = (DEPLOY / "README.md").read_text()
    found = re.search(r"^## Your own overlay\n\n```yaml\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert found is not None
    text = found[1].replace("countersign/deploy/k8s", os.path.relpath(DEPLOY, folder))
    (folder / "kustomization.yaml").write_text(text.replace("sha256:...", DIGEST))
    (folder / "broker.toml").write_text("# ours\n")
    return rendered(folder)


def test_images_are_the_operator_s_by_digest(made: Rendered) -> None:
    images = {one["image"] for pod in made.pods for one in pod.containers}
    ours = {image for image in images if "countersign" in image}
    assert ours == {f"registry.example/countersign@{DIGEST}"}


def test_a_configuration_that_changed_rolls_its_pods_out(made: Rendered) -> None:
    def mounted(manifests: Rendered) -> str:
        volumes = manifests.pod("broker").spec["volumes"]
        (name,) = (one["configMap"]["name"] for one in volumes if one["name"] == "config")
        return str(name)

    before = rendered(DEPLOY / "overlays" / "production")
    assert made.named("ConfigMap", mounted(made))["data"] == {"broker.toml": "# ours\n"}
    assert mounted(made) != mounted(before)


def test_certificates_are_of_the_operator_s_trust_domain(made: Rendered) -> None:
    uris = {uri for one in made.of_kind("Certificate") for uri in one["spec"]["uris"]}
    services = {f"service/{name}" for name in ("broker", "ledger", "nats", "policy")}
    assert uris == {"spiffe://faces.example"} | {
        f"spiffe://faces.example/{name}" for name in services | {"oversight/reader-gateway"}
    }
