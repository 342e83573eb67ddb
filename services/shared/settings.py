"""Configuration: one strict TOML file for each process, read into frozen models.

A key that is unknown, missing or of the wrong type stops the start and is named. A value may be
overridden from the environment, for containers: `COUNTERSIGN_<SECTION>__<KEY>`. Relative paths are
relative to the file that names them.

docs/configuration.md is made from the models: what stands below a field is what its reader learns of it.
"""

import tomllib
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings import SettingsError as UnreadableSource

from shared.settings_problems import DELIMITER, PREFIX, FileRefused, Problem, problems_in
from shared.settings_problems import SettingsError as SettingsError

_FOLDER: ContextVar[Path | None] = ContextVar("folder of the file being read", default=None)


def _from_the_file(path: Path) -> Path:
    folder = _FOLDER.get()
    return path if folder is None else folder / path


@dataclass(frozen=True)
class Kept:
    """Marks a path that the process itself fills: it need not be there before."""


ConfigPath = Annotated[Path, AfterValidator(_from_the_file)]
"""What must be there when the process starts."""
KeptPath = Annotated[Path, AfterValidator(_from_the_file), Kept()]
"""What the process makes and keeps."""


class Section(BaseModel):
    """A section of a configuration file."""

    # A threshold that is not a number would compare with nothing, and say so to nobody.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


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
    scrape: str | None = None
    """`host:port` where Prometheus fetches metrics, at `/metrics` without TLS. Off when left out."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """What is less urgent is not written to the log (standard error, one JSON document a line)."""


class ListenSettings(Section):
    """Where a gRPC server listens."""

    address: str
    """`host:port`; port 0 takes a free one."""
    tls: TlsFiles
    """Shown to callers, who must show one too."""
    port_file: KeptPath | None = None
    """When set, the port is written here once the server listens; for port 0."""


class ProbesSettings(Section):
    """Where an orchestrator asks for the process's health, without TLS: Kubernetes shows no certificate."""

    address: str
    """`host:port`. It serves health checks and nothing else, and tells nobody more than that."""


class ProcessSettings(BaseSettings):
    """Base of every process's configuration."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=PREFIX, env_nested_delimiter=DELIMITER
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
        file, environment = cls.given(path)
        token = _FOLDER.set(path.parent.absolute())
        try:
            return cls(**file)
        except ValidationError as error:
            raise FileRefused(path, problems_in(error, cls, file, environment)) from error
        finally:
            _FOLDER.reset(token)

    @classmethod
    def given(cls, path: Path) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """What the file says, and what the environment does, unchecked; raises SettingsError."""
        try:
            file = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            # Its own text would name the file a second time.
            do = "name a file that this user may read"
            raise FileRefused(path, [Problem("", error.strerror or str(error), do)]) from error
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise FileRefused(
                path, [Problem("", str(error), "correct it: this is TOML")]
            ) from error
        for key in file:
            # The constructor would take these as options of its own, not as keys.
            if key.startswith("_"):
                raise FileRefused(path, [Problem(key, "there is no such key", "remove it")])
        try:
            return file, EnvSettingsSource(cls)()
        except UnreadableSource as error:
            do = f"in the environment, write a list or a section as JSON ({PREFIX}...)"
            raise FileRefused(path, [Problem("", str(error), do)]) from error
