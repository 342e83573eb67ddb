"""One JSON document on each line: what commands say that have no end."""

import json
from collections.abc import Mapping
from typing import Any

import click

from countersign.cli.escaping import escape_json


def line(document: Mapping[str, Any]) -> None:
    """Print one, at once: its reader may be a program that waits for it."""
    click.echo(escape_json(json.dumps(document, ensure_ascii=False)))
