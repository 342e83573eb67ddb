"""One version of skew: each service of the last release beside those of today, on the release's own data.

`--last-release COMMIT` takes any commit for it. Which versions must be replaced together: docs/upgrading.md.
"""

from pathlib import Path

import pytest

from countersign.cli.main import exit_code
from countersign.installation.bundled import probes_folder
from countersign.installation.layout import Layout
from countersign.installation.ports import Ports
from countersign.installation.prepare import ensure_documents, systems_run_here
from support.installations import BURBANK, LAPD, InstallationUnderTest
from support.last_release import LastRelease, last_release

SEARCH = (
    *("search", "submit", str(probes_folder() / "id07_2.jpg"), "--officer", "lapd-40123"),
    *("--system", "lacris", "--gallery", "lacris-booking"),
    *("--purpose", "criminal-investigation", "--suspicion", "reasonable-suspicion"),
    *("--severity", "violent-felony", "--nibrs", "120", "--case-number", "26-0001"),
    *("--provenance", "crime-scene-recording", "--capture", "stored-video-frame"),
)
PERMITTED = (*SEARCH, "--own-case")
REFUSED = (*SEARCH, "--beneficiary", BURBANK)
# The ledger first: once that of today has opened its file, an older one may not know the schema.
SERVICES = ("ledger", "policy", "broker", "connector-lacris")


@pytest.fixture(name="release")
def _release(request: pytest.FixtureRequest, tmp_path: Path) -> LastRelease:
    return last_release(request.config.getoption("--last-release"), tmp_path / "release")


def searches(installation: InstallationUnderTest, beside: str) -> None:
    """One that is permitted and answered, and one that is refused; today's client verifies both."""
    config = ("--config", str(installation.client(LAPD)))
    assert exit_code([*PERMITTED, *config]) == 0, f"{beside} of the last release: no answer"
    assert exit_code([*REFUSED, *config]) == 1, f"{beside} of the last release: no refusal"


@pytest.mark.fault
def test_each_service_of_the_last_release_works_beside_those_of_today(
    release: LastRelease, tmp_path: Path
) -> None:
    layout = Layout(tmp_path / "data")
    ports = Ports.free(systems_run_here(ensure_documents(Layout(tmp_path / "unused"))))
    release.prepare(layout, ports)
    today = InstallationUnderTest(layout.root, ports=ports)
    parts = {name: today.processes[name].part for name in SERVICES}
    first, *others = SERVICES
    today.processes[first].part = release.part(parts[first])
    with today as running:
        for name in (first, *others):
            process = running.processes[name]
            if name != first:
                process.stop()
                process.part = release.part(parts[name])
                process.start()
            # What stands first in PYTHONPATH is what was imported.
            assert str(release.folder).encode() in Path(f"/proc/{process.pid}/environ").read_bytes()
            searches(running, name)
            process.stop()
            process.part = parts[name]
            process.start()
        # Agencies replace their systems in their own time.
        config = ("--config", str(release.kept(running.client(LAPD))))
        assert release.countersign(*PERMITTED, *config).returncode == 0
        assert release.countersign(*REFUSED, *config).returncode == 1
        searches(running, "nothing")
