"""A configuration is read whole or names what is wrong with it."""

from pathlib import Path

import pytest

from shared.settings import BusSettings, ProcessSettings, SettingsError

SOUND = """
[bus]
servers = ["tls://127.0.0.1:4222"]
[bus.tls]
certificate = "certificates/broker.pem"
key = "/etc/countersign/key.pem"
authority = "../authority.pem"
"""


class SomeSettings(ProcessSettings):
    """A process on the bus."""

    bus: BusSettings


def load(tmp_path: Path, text: str) -> SomeSettings:
    (tmp_path / "some.toml").write_text(text)
    return SomeSettings.load(tmp_path / "some.toml")


def test_relative_paths_are_relative_to_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    tls = load(tmp_path, SOUND).bus.tls
    assert tls.certificate == tmp_path / "certificates" / "broker.pem"
    assert tls.key == Path("/etc/countersign/key.pem")
    assert tls.authority.resolve() == tmp_path.parent / "authority.pem"


def test_file_may_be_named_relative_to_where_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "some.toml").write_text(SOUND)
    monkeypatch.chdir(tmp_path)
    assert SomeSettings.load(Path("some.toml")).bus.tls.certificate.is_absolute()


def test_telemetry_is_off_unless_asked_for(tmp_path: Path) -> None:
    assert load(tmp_path, SOUND).telemetry.exporter == "none"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "bus: is missing; give it"),
        (
            SOUND.replace("servers", "server"),
            "bus.server: there is no such key; .*did you mean servers",
        ),
        (SOUND.replace("servers", "server"), "bus.servers: is missing"),
        (SOUND + "password = 'x'\n", "bus.tls.password"),
        ("colour = 'blue'\n" + SOUND, "colour"),
        ("_env_file = 'elsewhere'\n" + SOUND, "_env_file"),
        (SOUND + "[telemetry]\nexporter = 'jaeger'\n", "telemetry.exporter"),
        (SOUND.replace('["tls://127.0.0.1:4222"]', "7"), "bus.servers"),
        (SOUND + "[bus", "some.toml"),
        ("\0", "some.toml"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        load(tmp_path, text)


def test_missing_file_and_file_that_is_no_text_are_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"absent\.toml"):
        SomeSettings.load(tmp_path / "absent.toml")
    (tmp_path / "some.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match=r"some\.toml"):
        SomeSettings.load(tmp_path / "some.toml")


def test_environment_overrides_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COUNTERSIGN_TELEMETRY__EXPORTER", "otlp")
    monkeypatch.setenv("COUNTERSIGN_BUS__SERVERS", '["tls://nats:4222"]')
    monkeypatch.setenv("COUNTERSIGN_BUS__TLS__KEY", "/run/secrets/key.pem")
    settings = load(tmp_path, SOUND)
    assert settings.telemetry.exporter == "otlp"
    assert settings.bus.servers == ("tls://nats:4222",)
    assert settings.bus.tls.key == Path("/run/secrets/key.pem")
    assert settings.bus.tls.certificate == tmp_path / "certificates" / "broker.pem"


@pytest.mark.parametrize(
    ("name", "value", "named"),
    [
        ("COUNTERSIGN_BUS__SERVERS", "tls://nats:4222", "bus"),
        ("COUNTERSIGN_BUS__COLOUR", "blue", "bus.colour: there .*COUNTERSIGN_BUS__COLOUR"),
        ("COUNTERSIGN_TELEMETRY__EXPORTER", "jaeger", "telemetry.exporter: should be"),
    ],
)
def test_environment_is_read_as_strictly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, named: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=named):
        load(tmp_path, SOUND)


def test_variables_of_others_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kubernetes sets such variables for every Service that it knows."""
    monkeypatch.setenv("COUNTERSIGN_BROKER_SERVICE_HOST", "10.0.0.1")
    assert load(tmp_path, SOUND).bus.servers
