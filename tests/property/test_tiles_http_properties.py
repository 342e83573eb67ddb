"""Whatever a stranger asks for, the public port answers with a file of the log, or that there is none."""

import asyncio
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger.tile_files import parse_path
from support.examples import examples
from support.exports import export_of
from support.filled_logs import entries_of, filled_log
from support.ledgers import SIGNER
from support.tile_servers import Answered, tile_server

SIZE = 300
PARTS = st.sampled_from(
    [
        "tile",
        "entries",
        "checkpoint",
        "0",
        "1",
        "63",
        "000",
        "001",
        "x000",
        "x001",
        "000.p",
        "001.p",
    ]
)
WIDTHS = st.sampled_from(
    ["44", "45", "255", "256", "00", "0", "..", ".", "", "%2e", "%00", "1e1", "+1", "²"]
)
PATHS = st.one_of(
    st.lists(st.one_of(PARTS, WIDTHS), max_size=6).map("/".join),
    st.text(st.characters(min_codepoint=33, max_codepoint=255), max_size=80),
)


@pytest.fixture(name="path", scope="module")
def _path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return filled_log(tmp_path_factory.mktemp("log"), SIZE)


@settings(
    examples(0.5),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(asked=st.lists(PATHS, min_size=1, max_size=20))
def test_every_answer_is_a_file_of_the_log_or_none(path: Path, asked: list[str]) -> None:
    async def ask() -> list[Answered]:
        async with tile_server(path) as server:
            return [await server.get(f"/{one}") for one in asked]

    widest = export_of(entries_of(SIZE), SIGNER)
    for one, answer in zip(asked, asyncio.run(ask()), strict=True):
        assert answer.status in (200, 400, 404), (one, answer)
        if answer.status != 200:
            continue
        if one in ("checkpoint", "checkpoint.pending"):
            assert answer.body == widest["checkpoint"]
            continue
        name = parse_path(one)
        assert name is not None
        assert name.path == one
        start = one.partition(".p/")[0]
        (full,) = (content for file, content in widest.items() if file.partition(".p/")[0] == start)
        assert full.startswith(answer.body)


@given(st.text())
def test_a_path_has_one_spelling(text: str) -> None:
    name = parse_path(text)
    assert name is None or name.path == text
