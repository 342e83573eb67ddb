"""A registry document is read whole or refused, with the line that is wrong."""

from pathlib import Path

import pytest

from registry import document as documents
from registry.document import AGENCY_BYTES_MAX, OFFICERS_BYTES_MAX, parse_officers, parse_public
from registry.findings import RegistryRefused
from support.registrations import (
    CALIFORNIA,
    LAPD,
    LASD,
    OFFICERS,
    agency,
    document,
    gallery,
    kept_list,
    signer,
    system,
)

WHOLE = agency(LASD, system("lacris") + gallery("lacris-booking", "lacris") + kept_list("users"))
STATE = agency(
    CALIFORNIA,
    '\n[offence_sets.violent]\ntitle = "Violent felonies"\nnibrs = ["09A"]\n'
    '\n[oversight.inspector]\nname = "Inspector"\njurisdictions = ["US-CA"]\nrights = ["find"]\n',
)


def refusal(text: str, officers: str = "") -> str:
    with pytest.raises(RegistryRefused) as refused:
        document(text, officers)
    return str(refused.value)


UNION = f'owner = "EU"\nmembers = ["DE", "FR"]\n\n[keys]\nregistry = ["{signer("EU").vkey}"]\n'


def test_an_agency_says_what_it_operates_owns_and_keeps() -> None:
    read = document(WHOLE).public
    assert read.owner == LASD
    assert read.systems["lacris"].commercial is False
    assert read.galleries["lacris-booking"].as_of.isoformat() == "2026-11-01"
    assert read.lists["users"].entered_by == ()


def test_officers_stand_as_they_are_written() -> None:
    officers = document(agency(LAPD), OFFICERS).officers
    assert officers["lapd-40123"].lists == ("lapd-fr-users",)
    assert officers["lapd-50999"].certificates == {}


def test_a_jurisdiction_registers_offences_and_who_oversees() -> None:
    read = document(STATE).public
    assert not read.is_agency
    assert read.oversight["inspector"].watches("US-CA")


@pytest.mark.parametrize(
    ("written", "instead", "found"),
    [
        ("commercial = false", "", "agency.toml:10:1: systems.lacris.commercial"),
        ("commercial = false", 'commercial = "yes"', "agency.toml:12:1: systems.lacris.commercial"),
        ("records = 1", "records = -1", "galleries.lacris-booking.records"),
        ("records = 1\n", "", "galleries.lacris-booking.records"),
        ("as_of = 2026-11-01", 'as_of = "today"', "galleries.lacris-booking.as_of"),
        ("booking_photos", "mugshots", "galleries.lacris-booking.gallery_class"),
        ("[systems.lacris]", "[system.lacris]", "system"),
        ("[systems.lacris]", "[systems.lacris", "agency.toml:10:16: not TOML"),
        ("[systems.lacris]", "a" + ".a" * 5_000, "agency.toml:10:1: not TOML: more than 1000 dots"),
        ("[systems.lacris]", "[systems.LACRIS]", "systems.LACRIS"),
        ("jurisdiction", "rank", "agency.toml:5:1: agency.rank"),
        (f'owner = "{LASD}"', 'owner = "lasd"', "agency.toml:1:1: owner"),
        (f'owner = "{LASD}"', f'owner = "{CALIFORNIA}"', "a jurisdiction registers"),
        ("\n[agency]", "\n[agencies]", "agencies"),
        ("entered_by = []", f'entered_by = ["{LASD}"]', "agency.toml:23:1: lists.users"),
        ("entered_by = []", 'entered_by = ["LAPD"]', "lists.users.entered_by"),
        ("registry = [", 'registry = ["a+b+c", ', "keys.registry.0"),
        ("\n[keys]", "\n[keys.x]", "keys"),
        ("lacris", "l\u0430cris", "MIXED_SCRIPTS"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(written: str, instead: str, found: str) -> None:
    assert written in WHOLE
    assert found in refusal(WHOLE.replace(written, instead, 1))


@pytest.mark.parametrize(
    ("written", "instead", "found"),
    [
        ("active = true", "active = 1", "officers.toml:3:1: officers.lapd-40123.active"),
        ("active = true", "active = true\nname = 'Doe'", "officers.lapd-40123.name"),
        ("2099-01-01", '"soon"', "officers.toml:5:1: officers.lapd-40123.certificates"),
        ("[officers.lapd-40123]", "[officers.'LAPD 1']", "officers.LAPD 1"),
        ("[officers.lapd-40123]", "[officer.lapd-40123]", "officer"),
        ("lapd-50999", "lapd-40123", "not TOML"),
    ],
)
def test_what_is_wrong_with_officers_is_named(written: str, instead: str, found: str) -> None:
    assert written in OFFICERS
    assert found in refusal(agency(LAPD), OFFICERS.replace(written, instead, 1))


def test_an_agency_appoints_no_overseer_and_a_state_none_of_another() -> None:
    overseer = '\n[oversight.own]\nname = "Own"\njurisdictions = ["US-CA"]\n'
    assert "registered by jurisdictions" in refusal(agency(LAPD, overseer))
    assert "of which US-CA cannot dispose" in refusal(
        STATE.replace('jurisdictions = ["US-CA"]', 'jurisdictions = ["US-NV"]')
    )


@pytest.mark.parametrize(
    ("public", "found"),
    [
        (agency(LAPD).replace("\n[agency]", 'members = ["DE"]\n[agency]'), "registered by unions"),
        (UNION.replace('"EU"', '"US-CA"'), "a part of a country is no union"),
        (UNION.replace('"FR"', '"EU"'), "EU is EU itself"),
        (UNION.replace('"FR"', '"EU-X"'), "EU-X is EU itself, or a part of it"),
        (UNION.replace('"FR"', '"France"'), "members"),
    ],
)
def test_a_union_has_countries_for_members_and_nobody_else_has_any(public: str, found: str) -> None:
    assert found in refusal(public)


def test_a_jurisdiction_has_no_officers() -> None:
    assert "[OFFICERS_OF_NO_AGENCY]" in refusal(STATE, OFFICERS)


@pytest.mark.parametrize(
    "key",
    [
        '{ kty = "OKP", crv = "Ed25519", x = "AA", d = "AA" }',
        '{ kty = "oct", k = "AA" }',
    ],
)
def test_a_private_key_of_an_identity_provider_is_not_published(key: str) -> None:
    provider = f'identity_provider = {{ issuer = "https://idp", jwks = {{ keys = [{key}] }} }}\n'
    assert "private or secret" in refusal(agency(LAPD, provider))


def test_a_private_key_in_a_comment_is_not_published() -> None:
    assert "[PRIVATE_KEY]" in refusal(agency(LAPD, "# -----BEGIN PRIVATE KEY-----\n"))


def test_an_identity_provider_is_read() -> None:
    key = '{ kty = "OKP", crv = "Ed25519", x = "AA" }'
    provider = f'identity_provider = {{ issuer = "https://idp", jwks = {{ keys = [{key}] }} }}\n'
    found = document(agency(LAPD, provider)).public.keys.identity_provider
    assert found is not None
    assert found.issuer == "https://idp"


def test_a_file_of_ten_megabytes_is_not_read(tmp_path: Path) -> None:
    folder = tmp_path / "lapd"
    folder.mkdir()
    (folder / "agency.toml").write_bytes(b"#" * 10_000_000)
    with pytest.raises(RegistryRefused, match=r"lapd/agency\.toml: larger than") as refused:
        documents.read(folder)
    assert refused.value.as_error.reason == "REGISTRY_REFUSED"
    (folder / "agency.toml").write_text(agency(LAPD))
    (folder / "officers.toml").write_bytes(b"#" * 10_000_000)
    with pytest.raises(RegistryRefused, match="FILE_TOO_LARGE"):
        documents.read(folder)


def test_bytes_are_as_bounded_as_files() -> None:
    with pytest.raises(RegistryRefused, match="FILE_TOO_LARGE"):
        parse_public("x", b"#" * (AGENCY_BYTES_MAX + 1))
    public = document(agency(LAPD)).public
    with pytest.raises(RegistryRefused, match="FILE_TOO_LARGE"):
        parse_officers("x", b"#" * (OFFICERS_BYTES_MAX + 1), public)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(RegistryRefused, match=r"absent/agency\.toml: cannot be read"):
        documents.read(tmp_path / "absent")


def test_many_mistakes_of_one_kind_are_not_all_listed() -> None:
    many = "".join(f"[officers.o-{number}]\nactive = 1\n" for number in range(200))
    with pytest.raises(RegistryRefused) as refused:
        document(agency(LAPD), many)
    assert len(refused.value.findings) == 50
