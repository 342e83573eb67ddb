"""What all suites share: how long the fault suite runs, and picking tests by the promise they prove."""

from collections.abc import Callable
from datetime import UTC, datetime

import hypothesis
import pytest
from xdist.scheduler import LoadFileScheduling

# How long an example takes is a matter of what else the machine does.
hypothesis.settings.register_profile(
    "any machine",
    deadline=None,
    max_examples=50,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
# With `--fault-rounds`: what draws its examples with every change may draw fewer each time.
hypothesis.settings.register_profile(
    "long", hypothesis.settings.get_profile("any machine"), max_examples=500
)
hypothesis.settings.load_profile("any machine")

pytest_plugins = [
    "support.doors",
    "support.installations",
    "support.nats_servers",
    "support.postgres",
    "support.signals",
    "support.soft_hsm",
    # Last, since they use some of the others.
    "support.databases",
    "support.disclosures",
    "support.publishing",
]

# The files that take the fixture `installation`. On one worker they share one; on each of four they would
# start four of seven processes.
AGAINST_THE_INSTALLATION = frozenset(
    {
        "tests/fault/test_services_down.py",
        "tests/integration/test_authzen_installation.py",
        "tests/integration/test_bad_input.py",
        "tests/integration/test_command_line.py",
        "tests/integration/test_discharge.py",
        "tests/integration/test_installation_doors.py",
        "tests/integration/test_turned_away.py",
    }
)

# Once each is enough to see that a fault is survived; `make test-fault` asks for more, each round
# with a seed of its own.
FAULT_ROUNDS_DEFAULT = 1


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the project's own options."""
    group = parser.getgroup("countersign")
    group.addoption(
        "--fault-rounds",
        type=int,
        default=FAULT_ROUNDS_DEFAULT,
        help="how often each fault test with a random seed is repeated (default: %(default)s)",
    )
    group.addoption(
        "--last-release",
        default=None,
        metavar="COMMIT",
        help="whose services are run beside those of today (default: those of the last release's tag)",
    )
    group.addoption(
        "--promise",
        type=int,
        default=None,
        metavar="N",
        help="run only the tests that prove promise N of docs/promises.md",
    )


class FilesTogether(LoadFileScheduling):  # type: ignore[misc]
    """Keeps the tests of a file together, and those of files that share what is costly to start."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return "the installation" if file in AGAINST_THE_INSTALLATION else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> FilesTogether | None:
    """For `--dist loadfile`."""
    return FilesTogether(config, log) if config.getoption("dist") == "loadfile" else None


def pytest_configure(config: pytest.Config) -> None:
    """Draws more examples in the long form."""
    if config.getoption("--fault-rounds") > FAULT_ROUNDS_DEFAULT:
        hypothesis.settings.load_profile("long")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keeps the tests of one promise, if one was named."""
    promise = config.getoption("--promise")
    if promise is None:
        return
    kept = [item for item in items if promise in promises_of(item)]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept


def promises_of(item: pytest.Item) -> set[int]:
    """The numbers of the promises that a test is marked to prove."""
    return {number for mark in item.iter_markers("promise") for number in mark.args}


@pytest.fixture(name="tell")
def _tell(request: pytest.FixtureRequest, fault_rounds: int) -> Callable[[str], None]:
    """Writes how far a test has come, where somebody waits for the long form of it."""
    plugins = request.config.pluginmanager
    terminal = plugins.get_plugin("terminalreporter")
    capture = plugins.get_plugin("capturemanager")

    def tell(what: str) -> None:
        # A worker of several has no terminal.
        if fault_rounds > FAULT_ROUNDS_DEFAULT and terminal is not None and capture is not None:
            with capture.global_and_fixture_disabled():
                terminal.write_line(f"{datetime.now(UTC):%H:%M:%S} {request.node.name}: {what}")

    return tell


@pytest.fixture(name="fault_rounds", scope="session")
def _fault_rounds(request: pytest.FixtureRequest) -> int:
    """How often a fault test with a random seed repeats."""
    rounds: int = request.config.getoption("--fault-rounds")
    return rounds


@pytest.fixture(name="long_form", scope="session")
def _long_form(fault_rounds: int) -> None:
    """For what takes too long for each change: CI has twenty minutes for all of it."""
    if fault_rounds == FAULT_ROUNDS_DEFAULT:
        pytest.skip("the long form: `make test-fault`, or `--fault-rounds 2` or more")
