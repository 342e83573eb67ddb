"""Which gallery record a candidate's identifier means: `python -m connector.records CONFIG ID...`.

For the holder of the gallery alone, who has the key: when a requester comes back about a candidate,
this finds the picture. Works offline and changes nothing.
"""

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from connector.answering import candidate_id
from connector.config import ConnectorSettings, ReferenceAdapter
from connector.gallery import record_names
from connector.state import StateError, candidate_key, open_state
from connector.system import SystemUnusable
from shared.settings import SettingsError


def find(
    key: bytes, gallery: str, records: Iterable[str], wanted: Sequence[str]
) -> Mapping[str, str]:
    """Identifier to record, for those of the identifiers that are of this gallery."""
    named = {candidate_id(key, gallery, record): record for record in records}
    return {one: named[one] for one in wanted if one in named}


def main() -> None:
    """Prints one line for each identifier. Exit code 1 when one was not found, 2 on wrong use."""
    parser = argparse.ArgumentParser(prog="python -m connector.records", description=__doc__)
    parser.add_argument("config", type=Path, help="the connector's configuration file (TOML)")
    parser.add_argument("id", nargs="+", help="a candidate's identifier")
    arguments = parser.parse_args()
    try:
        settings = ConnectorSettings.load(arguments.config)
        if not isinstance(settings.behind, ReferenceAdapter):
            raise SettingsError("only the reference adapter's gallery can be looked up here")
        key = candidate_key(open_state(settings.state))
        records = record_names(settings.behind.folder)
    except (SettingsError, StateError, SystemUnusable) as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
    found = find(key, settings.gallery, records, arguments.id)
    for one in arguments.id:
        sys.stdout.write(f"{one}  {found.get(one, 'not a record of this gallery')}\n")
    sys.exit(0 if len(found) == len(set(arguments.id)) else 1)


if __name__ == "__main__":
    main()
