"""Configuration: one strict TOML file for each process, read into frozen models.

A key that is unknown, missing or of the wrong type stops the start and is named. A value may be
overridden from the environment, for containers: `COUNTERSIGN_<SECTION>__<KEY>`. Relative paths are
relative to the file that names them.
"""

import tomllib
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings import SettingsError as UnreadableSource

_FOLDER: ContextVar[Path | None] = ContextVar("folder of the file being read", default=None)


class SettingsError(Exception):
    """The configuration cannot be used; the message names the file and each key."""


def _from_the_file(path: Path) -> Path:
    folder = _FOLDER.get()
    return path if folder is None else folder / path


ConfigPath = Annotated[Path, AfterValidator(_from_the_file)]


class Section(BaseModel):
    """A section of a configuration file."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class TlsFiles(Section):
    """Certificate, key and authority of this process, as PEM files."""

    certificate: ConfigPath
    """Certificate chain with the SPIFFE ID in its URI SAN."""
    key: ConfigPath
    """Private key, PKCS #8."""
    authority: ConfigPath
    """Certificates of the authorities that peers are checked against."""


class BusSettings(Section):
    """Where the bus is."""

    servers: tuple[str, ...]
    """URLs of the NATS servers: `tls://host:port`."""
    tls: TlsFiles
    """Presented to the server, which maps the SPIFFE ID to permissions."""


class TelemetrySettings(Section):
    """Where traces and metrics go. Endpoints and sampling follow the standard OTEL_* variables."""

    exporter: Literal["none", "console", "otlp"] = "none"
    """Off by default: nothing leaves the process."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"


class ListenSettings(Section):
    """Where a gRPC server listens."""

    address: str
    """`host:port`; port 0 takes a free one."""
    tls: TlsFiles
    port_file: ConfigPath | None = None
    """When set, the port is written here once the server listens; for port 0."""


class ProbesSettings(Section):
    """Where an orchestrator asks for the process's health, without TLS: Kubernetes shows no certificate."""

    address: str
    """`host:port`. It serves health checks and nothing else, and tells nobody more than that."""


class ProcessSettings(BaseSettings):
    """Base of every process's configuration."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix="COUNTERSIGN_", env_nested_delimiter="__"
    )

    telemetry: TelemetrySettings = TelemetrySettings()
    probes: ProbesSettings | None = None
    """Off when left out."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment over the file, and nothing else."""
        return env_settings, init_settings

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads the file; raises SettingsError."""
        token = _FOLDER.set(path.parent.absolute())
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
            # The constructor would take these as options of its own, not as keys.
            options = [key for key in values if key.startswith("_")]
            if options:
                raise SettingsError(f"{path}: {options[0]}: there is no such key")
            return cls(**values)
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
                for problem in error.errors()
            )
            raise SettingsError(f"{path}: {problems}") from error
        except OSError as error:
            # Its own text would name the file a second time.
            raise SettingsError(f"{path}: {error.strerror or error}") from error
        except (UnicodeDecodeError, tomllib.TOMLDecodeError, UnreadableSource) as error:
            raise SettingsError(f"{path}: {error}") from error
        finally:
            _FOLDER.reset(token)
