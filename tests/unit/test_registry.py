"""The registry is whole or it is not read; parties follow from it and from nothing a caller says."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from countersign.type.v1.search_pb2 import GalleryClass
from shared.registry import Agency, OversightBody, Registry, RegistryError, TrustRoots
from support.orders import facts
from support.sources import ROOT

LAPD, LASD, VENDOR = "CA0194200", "CA0190000", "ZZ0000001"

WORLD = """
[agencies.CA0194200]
name = "Los Angeles Police Department"
jurisdiction = "US-CA"

[agencies.CA0190000]
name = "Los Angeles County Sheriff"
jurisdiction = "US-CA"

[agencies.ZZ0000001]
name = "A vendor"
jurisdiction = "US-NV"

[systems.lacris]
name = "LACRIS"
operator = "CA0190000"
commercial = false

[systems.facefind]
name = "Facefind"
operator = "ZZ0000001"
commercial = true

[galleries.lacris-booking]
name = "Booking photographs"
system = "lacris"
owner = "CA0190000"
gallery_class = "booking_photos"

[lists.lapd-fr-users]
title = "Officers who may use face recognition"
owner = "CA0194200"

[officers.lapd-40123]
agency = "CA0194200"
active = true
lists = ["lapd-fr-users"]
certificates = { LACRIS-FR = 2027-01-31 }
"""


def load(tmp_path: Path, text: str) -> Registry:
    (tmp_path / "registry.toml").write_text(text)
    return Registry.load(tmp_path / "registry.toml")


def test_registry_of_the_demonstration_is_whole() -> None:
    registry = Registry.load(ROOT / "directives" / "demo-registry.toml")
    assert {LAPD, LASD} <= set(registry.agencies)


def test_officer_has_lists_and_certificates(tmp_path: Path) -> None:
    officer = load(tmp_path, WORLD).officers["lapd-40123"]
    assert officer.lists == ("lapd-fr-users",)
    assert officer.certificates["LACRIS-FR"].isoformat() == "2027-01-31"


@pytest.mark.parametrize(
    ("written", "instead", "named"),
    [
        ('operator = "CA0190000"', 'operator = "CA0190001"', "systems.lacris.operator"),
        ('system = "lacris"', 'system = "lacriss"', "galleries.lacris-booking.system"),
        (
            'owner = "CA0190000"\ngallery_class',
            'owner = "CA0190001"\ngallery_class',
            "galleries.lacris-booking.owner",
        ),
        ('owner = "CA0194200"', 'owner = "CA0194201"', "lists.lapd-fr-users.owner"),
        ('agency = "CA0194200"', 'agency = "CA0194201"', "officers.lapd-40123.agency"),
        ('lists = ["lapd-fr-users"]', 'lists = ["others"]', "officers.lapd-40123.lists"),
        ("active = true", "active = true\nrank = 3", "officers.lapd-40123.rank"),
        ("commercial = false", "", "systems.lacris.commercial"),
        ("commercial = false", 'commercial = "perhaps"', "systems.lacris.commercial"),
        ('"booking_photos"', '"mugshots"', "galleries.lacris-booking.gallery_class"),
        ('jurisdiction = "US-NV"', 'jurisdiction = "Nevada"', "agencies.ZZ0000001.jurisdiction"),
        ("2027-01-31", '"soon"', "certificates.LACRIS-FR"),
        ("[agencies.CA0194200]", "[agencies.lapd]", "agencies.lapd"),
        ("[systems.facefind]", "[system.facefind]", "system"),
        ("[systems.lacris]", "[systems.lacris", "registry.toml"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, written: str, instead: str, named: str) -> None:
    assert WORLD.count(written) >= 1
    with pytest.raises(RegistryError, match=named):
        load(tmp_path, WORLD.replace(written, instead, 1))


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match=r"absent\.toml"):
        Registry.load(tmp_path / "absent.toml")


def test_digest_does_not_depend_on_the_order_of_lines(tmp_path: Path) -> None:
    blocks = WORLD.strip().split("\n\n")
    backwards = [
        "\n".join([block.split("\n")[0], *reversed(block.split("\n")[1:])])
        for block in reversed(blocks)
    ]
    assert load(tmp_path, "\n\n".join(backwards)).sha256 == load(tmp_path, WORLD).sha256


def test_digest_depends_on_what_is_said(tmp_path: Path) -> None:
    changed = load(tmp_path, WORLD.replace("active = true", "active = false"))
    assert changed.sha256 != load(tmp_path, WORLD).sha256


def test_parties_of_an_own_case(tmp_path: Path) -> None:
    parties = load(tmp_path, WORLD).parties(facts())
    assert (parties.origin, parties.beneficiary) == (LAPD, LAPD)
    assert (parties.operator, parties.gallery_owner) == (LASD, LASD)
    assert parties.jurisdictions == ("US-CA",)
    assert parties.gallery_class == GalleryClass.GALLERY_CLASS_BOOKING_PHOTOS


def test_absent_beneficiary_is_unknown_and_an_empty_one_is_nobody(tmp_path: Path) -> None:
    stated = facts()
    stated.ClearField("beneficiary_agency")
    assert load(tmp_path, WORLD).parties(stated).beneficiary is None
    stated.beneficiary_agency = ""
    assert load(tmp_path, WORLD).parties(stated).beneficiary == ""


def test_gallery_of_another_system_has_no_owner_and_no_class(tmp_path: Path) -> None:
    stated = facts()
    stated.system = "facefind"
    parties = load(tmp_path, WORLD).parties(stated)
    assert (parties.operator, parties.gallery_owner) == (VENDOR, None)
    assert parties.gallery_class == GalleryClass.GALLERY_CLASS_UNSPECIFIED
    assert parties.jurisdictions == ("US-CA", "US-NV")


def test_unknown_names_have_no_parties(tmp_path: Path) -> None:
    stated = facts()
    stated.system = stated.gallery = "unheard-of"
    stated.origin_agency = "XX0000000"
    parties = load(tmp_path, WORLD).parties(stated)
    assert (parties.operator, parties.gallery_owner) == (None, None)
    assert parties.origin == "XX0000000"


def _roots(**changes: Any) -> str:
    key = base64.b64encode(bytes(32)).decode()
    roots: dict[str, Any] = {
        "log_verifier_keys": ["log+00000000+AA=="],
        "broker_verify_keys": [key],
        "systems": {"lacris": {"sealing_public_key": key, "answer_verify_key": key}},
        "identity_providers": {LAPD: {"issuer": "https://id.lapd.test", "jwks": {"keys": []}}},
    }
    return json.dumps(roots | changes)


def test_trust_roots_are_read(tmp_path: Path) -> None:
    (tmp_path / "trust.json").write_text(_roots())
    roots = TrustRoots.load(tmp_path / "trust.json")
    assert roots.systems["lacris"].answer_verify_key == bytes(32)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{", "trust.json"),
        (_roots(log_verifier_keys=[]), "log_verifier_keys"),
        (_roots(broker_verify_keys=["AAAA"]), "broker_verify_keys"),
        (_roots(broker_verify_keys=["ä"]), "broker_verify_keys"),
        (_roots(broker_verify_keys=[7]), "broker_verify_keys"),
        (_roots(witnesses=[]), "witnesses"),
        (_roots(identity_providers={"LAPD": {}}), "identity_providers"),
    ],
)
def test_trust_roots_that_are_wrong_name_what_is(tmp_path: Path, text: str, named: str) -> None:
    (tmp_path / "trust.json").write_text(text)
    with pytest.raises(RegistryError, match=named):
        TrustRoots.load(tmp_path / "trust.json")


def test_oversight_watches_its_jurisdictions_and_a_country_its_states() -> None:
    state = OversightBody(name="Commission", jurisdictions=("US-CA",))
    assert [state.watches(one) for one in ("US-CA", "US-TX", "US", "US-C")] == [
        True,
        False,
        False,
        False,
    ]
    country = OversightBody(name="Court", jurisdictions=("US",))
    assert [country.watches(one) for one in ("US-CA", "US", "UK", "USA-1")] == [
        True,
        True,
        False,
        False,
    ]
    assert country.rights == ()


def test_who_oversees_changes_no_decision() -> None:
    agency = Agency(name="x", jurisdiction="US-CA")
    body = OversightBody(name="Commission", jurisdictions=("US-CA",), rights=("find",))
    alone = Registry(agencies={"CA0194200": agency})
    overseen = Registry(agencies={"CA0194200": agency}, oversight={"commission": body})
    assert alone.sha256 == overseen.sha256


def test_what_a_file_has_wrong_is_said_by_its_place_and_without_what_stands_there(
    tmp_path: Path,
) -> None:
    with pytest.raises(RegistryError) as refused:
        load(tmp_path, WORLD.replace("active = true", 'actve = "of Officer Doe"'))
    assert "officers.lapd-40123.actve: there is no such key" in str(refused.value)
    assert not {"Doe", "pydantic"} & set(str(refused.value).replace(".", " ").split())
    (tmp_path / "roots.json").write_text('{"sistems": {}}')
    with pytest.raises(RegistryError, match=r"roots\.json: .*sistems: there is no such key"):
        TrustRoots.load(tmp_path / "roots.json")
