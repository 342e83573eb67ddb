"""What kind of agency an ORI stands for."""

from countersign.type.v1.circumstances_pb2 import AgencyClass

_LAW_ENFORCEMENT = AgencyClass.AGENCY_CLASS_LAW_ENFORCEMENT
_OTHER_CLASS = AgencyClass.AGENCY_CLASS_OTHER
# UNCONFIRMED: which letter NCIC assigns to which kind was not checked against its Operating Manual. Any other
# letter counts as of limited access.
_CLASS_OF_LETTER = {
    "A": AgencyClass.AGENCY_CLASS_PROSECUTION,
    "B": AgencyClass.AGENCY_CLASS_PRETRIAL_SERVICES,
    "C": AgencyClass.AGENCY_CLASS_CORRECTIONS,
    "G": AgencyClass.AGENCY_CLASS_PROBATION_AND_PAROLE,
    "I": AgencyClass.AGENCY_CLASS_INTERPOL,
    "J": AgencyClass.AGENCY_CLASS_COURT,
}


def class_of_agency(ori: str) -> AgencyClass.ValueType:
    """What kind of agency an ORI stands for, by its ninth character."""
    last = ori[8:]
    return _LAW_ENFORCEMENT if last.isdigit() else _CLASS_OF_LETTER.get(last, _OTHER_CLASS)
