"""`countersign machine`: what one machine for production reads, with systemd's units in deploy/systemd."""

from pathlib import Path

import click

from countersign.cli.output import OK, json_option, out, print_json
from countersign.installation.machine import (
    CONFIGURATION,
    STATE,
    Answers,
    Connector,
    Machine,
    Prepared,
    listed,
    prepare_machine,
)
from countersign.installation.ports import PORT_BASE, Ports

_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
_FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)
_MADE = click.Path(path_type=Path, file_okay=False)


@click.group()
def machine() -> None:
    """Prepare one machine for production; see docs/operating-one-machine.md."""


@machine.command("init")
@click.option("--trust-domain", required=True, help="SPIFFE trust domain of the installation.")
@click.option(
    "--host",
    "hosts",
    multiple=True,
    required=True,
    help="Name under which agencies reach this machine.",
)
@click.option("--registry", type=_FILE, required=True, help="Who takes part (TOML).")
@click.option(
    "--directives",
    type=_FOLDER,
    required=True,
    help="Folder with the vocabulary and the signed directives.",
)
@click.option(
    "--trust-roots", type=_FILE, required=True, help="Everybody else's public keys (JSON)."
)
@click.option("--system", help="Run the connector of this system here.")
@click.option("--gallery", default="", help="Its gallery, when the registry gives it several.")
@click.option("--pictures", type=_FOLDER, help="Folder with the pictures of that gallery.")
@click.option(
    "--threshold", type=float, help="Score from which on a candidate is a possible match."
)
@click.option("--witnesses", type=_FILE, help="tlog-policy file, for a log with witnesses.")
@click.option(
    "--dir", "folder", type=_MADE, default=CONFIGURATION, show_default=True, help="Where to write."
)
@click.option(
    "--state", type=_MADE, default=STATE, show_default=True, help="Where processes keep things."
)
@click.option(
    "--port-base",
    type=click.IntRange(1024, 65_000),
    default=PORT_BASE,
    show_default=True,
    help="First port of a row: broker, ledger, policy, NATS, the log for anybody, the connector.",
)
@json_option
def init(
    trust_domain: str,
    hosts: tuple[str, ...],
    registry: Path,
    directives: Path,
    trust_roots: Path,
    system: str | None,
    gallery: str,
    pictures: Path | None,
    threshold: float | None,
    witnesses: Path | None,
    folder: Path,
    state: Path,
    port_base: int,
    as_json: bool,
) -> int:
    """Write configuration, keys and requests for certificates. Nothing is started.

    Run it again after the registry, the directives or anybody's keys have changed: those are written anew.
    Keys and the processes' own files are left as they are.

    \b
    Example:
      countersign machine init --trust-domain faces.example --host faces.example \\
        --registry registry.toml --directives directives --trust-roots others.json
    """
    connector = None
    if system is not None:
        if pictures is None or threshold is None:
            raise click.UsageError("--system needs --pictures and --threshold")
        connector = Connector(system, pictures.absolute(), threshold, gallery)
    answers = Answers(trust_domain, hosts, registry, directives, trust_roots, connector, witnesses)
    ports = Ports.fixed([system] if system is not None else [], port_base)
    done = prepare_machine(Machine(folder.absolute(), state.absolute()), answers, ports)
    _tell(done, folder, as_json=as_json)
    return OK


def _tell(done: Prepared, folder: Path, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "written": listed(done.written),
                "kept": listed(done.kept),
                "wanted": listed(done.wanted),
            }
        )
        return
    console = out()
    for what, paths in (("written", done.written), ("kept", done.kept), ("wanted", done.wanted)):
        for path in paths:
            console.print(f"  {what:8} {path}", markup=False, soft_wrap=True)
    if done.wanted:
        console.print(
            f"\nHave your authority sign the requests (*.csr) in {folder / 'tls'}, and put what is wanted "
            "there.",
            markup=False,
            soft_wrap=True,
        )
