"""A first directive for an author to change: small, whole, and passing every guard and gate."""

from datetime import date
from string import Template
from typing import Final

from directive.document import CASES_FILE, MANIFEST_FILE, RULES_FILE

_MANIFEST: Final = Template("""\
name = "$name"
party = "$party"
title = "What this directive is about, in one line"
source = "The order that it encodes: its title, its date, and where it can be found"
# source_sha256 = "..."  # of the order on file: sha256sum order.pdf
caution = "A draft. Confirm it against the order's official text before relying on it."
author = "Who wrote the rules down"
vocabulary = "$vocabulary"
rule_prefix = "$prefix"
effective_from = $effective_from
# effective_until = $effective_from  # the first day without effect, when there is one
""")

_AGENCY_RULES: Final = Template("""\
// One requirement for each "when", so that a refusal can say which one was missing.

@id("${prefix}1")
@title("Our officers may search in a case")
@citation("The order, section 1: quote the sentence")
@requirement_1("an officer of this agency")
@requirement_2("an officer in active service")
@requirement_3("a case number")
@obligation_notice("lead-only")
permit (principal, action in Countersign::Action::"search", resource)
when { principal.agency == Countersign::Agency::"$party" }
when { principal.active }
when { context.caseNumber != "" };

""")

_JURISDICTION_RULES: Final = Template("""\
// One requirement for each "when", so that a refusal can say which one was missing.

@id("${prefix}1")
@title("A search may be made in a case")
@citation("The statute, section 1: quote the sentence")
@requirement_1("a case number")
@obligation_notice("lead-only")
permit (principal, action in Countersign::Action::"search", resource)
when { context.caseNumber != "" };

""")

_PROHIBITION: Final = Template("""\
@id("${prefix}2")
@title("No search of pictures collected from the web")
@citation("The order, section 2: quote the sentence")
forbid (principal, action in Countersign::Action::"search", resource)
when { resource.class == Countersign::GalleryClass::"webScraped" };
""")

_CASES: Final = Template("""\
at: ${effective_from}T12:00:00Z
seat: $seat
registry:
  # Those who take part in these cases only; add your own agencies, systems and officers.
  agencies:
    ZZ9999999: {name: Another agency (invented), jurisdiction: $jurisdiction}
  systems:
    example-system: {name: A system (invented), operator: ZZ9999999, commercial: false}
  galleries:
    example-booking:
      {name: Its pictures, system: example-system, owner: ZZ9999999, gallery_class: booking_photos}
    example-web:
      {name: Pictures from the web, system: example-system, owner: ZZ9999999, gallery_class: web_scraped}
  officers:
    example-active: {agency: $agency, active: true}
    example-retired: {agency: $agency, active: false}
    example-other: {agency: ZZ9999999, active: true}
ordinary:
  officer: example-active
  origin: $agency
  beneficiary: $agency
  system: example-system
  gallery: example-booking
  purpose: criminalInvestigation
  suspicion: reasonableSuspicion
  offence: {nibrs: "120", severity: violentFelony}
  provenance: crimeSceneRecording
  captureMode: storedVideoFrame
  caseNumber: "26-0001"
cases:
  - name: an ordinary case
    expect: permit
    rules: [${prefix}1]
    obligations: [notice]
  - name: no case number
    given: {caseNumber: ""}
    expect: forbid
    unmet: ["${prefix}1#$number"]
  - name: pictures collected from the web
    given: {gallery: example-web}
    expect: forbid
    rules: [${prefix}2]
""")

_AGENCY_CASES: Final = Template("""\
  - name: another agency's officer, on our behalf
    seat: beneficiary
    given: {officer: example-other, origin: ZZ9999999}
    expect: forbid
    unmet: ["${prefix}1#1"]
  - name: no longer in service
    given: {officer: example-retired}
    expect: forbid
    unmet: ["${prefix}1#2"]
""")


def default_prefix(party: str) -> str:
    """A prefix that no other party is likely to have."""
    return f"{party.replace('-', '')}-"


def files(
    name: str, party: str, jurisdiction: str, prefix: str, vocabulary: str, effective_from: date
) -> dict[str, str]:
    """The three files. A party that is its own jurisdiction is no agency."""
    is_agency = party != jurisdiction
    words = {
        "name": name,
        "party": party,
        "jurisdiction": jurisdiction,
        "prefix": prefix,
        "vocabulary": vocabulary,
        "effective_from": effective_from.isoformat(),
        "seat": "origin" if is_agency else "jurisdiction",
        "agency": party if is_agency else "ZZ9999999",
        "number": "3" if is_agency else "1",
    }
    rules = (_AGENCY_RULES if is_agency else _JURISDICTION_RULES, _PROHIBITION)
    cases = (_CASES, _AGENCY_CASES) if is_agency else (_CASES,)
    return {
        MANIFEST_FILE: _MANIFEST.substitute(words),
        RULES_FILE: "".join(part.substitute(words) for part in rules),
        CASES_FILE: "".join(part.substitute(words) for part in cases),
    }
