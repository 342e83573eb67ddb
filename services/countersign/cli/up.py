"""`countersign up`: every part on this machine."""

import asyncio
import shlex
from pathlib import Path
from typing import Final

import click

from countersign.cli.escaping import escape
from countersign.cli.invocation import invocation
from countersign.cli.output import OK, REFUSED, USAGE, err, out, print_error
from countersign.cli.signals import until_told
from countersign.installation.certificates import TRUST_DOMAIN
from countersign.installation.layout import Layout
from countersign.installation.parts import NatsServerMissing, Part
from countersign.installation.pki import PkiError
from countersign.installation.ports import (
    PORT_BASE,
    NoFreePort,
    Ports,
    PortTaken,
    address,
    url,
)
from countersign.installation.prepare import (
    ExternalBus,
    Installation,
    ensure_documents,
    prepare,
    systems_run_here,
)
from countersign.installation.supervisor import AlreadyRunning, PartFailed, alone, running
from shared.registry import RegistryError
from shared.signing import BadKey

DEFAULT_FOLDER: Final = Path(".countersign")

_UNUSABLE: Final = (
    AlreadyRunning,
    BadKey,
    NatsServerMissing,
    NoFreePort,
    OSError,
    PkiError,
    PortTaken,
    RegistryError,
)


@click.command()
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEFAULT_FOLDER,
    show_default=True,
    help="Data directory: keys, certificates, ledger, logs. Made when it is not there.",
)
@click.option(
    "--port-base",
    type=click.IntRange(1024, 65_000),
    default=PORT_BASE,
    show_default=True,
    help="First port of a row: broker, ledger, policy, NATS, the log for anybody, the connectors, "
    "the witness, AuthZEN.",
)
@click.option(
    "--with-witness",
    is_flag=True,
    help="Also run a witness, which must have cosigned what the log shows; see docs/witness.md.",
)
@click.option("--free-ports", is_flag=True, help="Take ports on which nobody listens instead.")
@click.option(
    "--nats-url",
    metavar="URL",
    help="Use this NATS server (tls://host:port) instead of starting the bundled one.",
)
@click.option(
    "--nats-authority",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Authority of that server's certificate, when it is not the data directory's own.",
)
def up(
    folder: Path,
    port_base: int,
    with_witness: bool,
    free_ports: bool,
    nats_url: str | None,
    nats_authority: Path | None,
) -> int:
    """Run every part on this machine until Ctrl-C.

    The first start makes a certificate authority, keys, a registry and directives in the data
    directory; later starts use them again. Everything listens on the loopback interface only.

    \b
    Example:
      countersign up
      countersign up --dir /srv/countersign --port-base 9000
    """
    layout = Layout(folder)
    bus = ExternalBus(nats_url, nats_authority) if nats_url is not None else None
    try:
        with alone(layout):
            registry = ensure_documents(layout)
            systems = systems_run_here(registry)
            ports = (
                Ports.free(systems, witness=with_witness)
                if free_ports
                else Ports.fixed(systems, port_base, witness=with_witness)
            )
            ports.must_be_free(bus=bus is None)
            installation = prepare(layout, registry, ports, bus)
            return asyncio.run(_until_told(installation))
    except _UNUSABLE as error:
        print_error(error)
        return USAGE


async def _until_told(installation: Installation) -> int:
    """Runs until SIGINT or SIGTERM (0), or until a process ends by itself (1)."""
    try:
        return await until_told(_supervise(installation))
    except asyncio.CancelledError:
        err().print("Stopped.")
        return OK


async def _supervise(installation: Installation) -> int:
    try:
        async with running(installation, _report) as supervisor:
            _print_how_to_use(installation)
            raise await supervisor.first_death()
    except PartFailed as failure:
        print_error(failure)
        tail = failure.log_tail()
        if tail:
            err().print(escape(tail), style="dim", soft_wrap=True)
        return REFUSED


def _report(part: Part, what: str) -> None:
    where = f" on {address(part.port)}" if what == "ready" else ""
    err().print(f"  {part.name:20} {what}{where}", markup=False)


def _print_how_to_use(installation: Installation) -> None:
    console = out()
    ports = installation.ports
    console.print()
    console.print("[bold]Everything runs.[/] Stop it with Ctrl-C.")
    console.print(f"  broker  {address(ports.broker)}")
    console.print(f"  ledger  {address(ports.ledger)}")
    console.print(f"  policy  {address(ports.policy)}")
    console.print(f"  AuthZEN https://{address(ports.authzen)}  (decisions; docs/authzen.md)")
    console.print(f"  log     {url(ports.ledger_http)}  (checkpoint and tiles, for anybody)")
    if ports.witness is not None:
        policy = escape(str(installation.layout.policy.absolute()))
        console.print(f"  witness {url(ports.witness)}  (policy: {policy})", soft_wrap=True)
    console.print(f"  data    {escape(str(installation.layout.root.absolute()))}")
    console.print()
    console.print(
        "Act for an agency by naming its configuration file, for example in another shell:"
    )
    layout = installation.layout
    for ori, agency in installation.registry.agencies.items():
        _print_choice(agency.name, layout.client(ori))
    _print_choice("Oversight: reads the ledger only", layout.oversight_client)
    command = escape(invocation())
    console.print(f"\nThen, for example: {command} ledger list", soft_wrap=True)
    console.print(
        f"\nKeys and certificates are for trying things out: whoever can read the data directory can "
        f"pass for anybody in {TRUST_DOMAIN}."
    )


def _print_choice(who: str, config: Path) -> None:
    path = escape(shlex.quote(str(config.absolute())))
    out().print(f"\n  # {escape(who)}\n  export COUNTERSIGN_CONFIG={path}", soft_wrap=True)
