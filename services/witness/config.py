"""The witness's configuration."""

from typing import Self

from pydantic import Field, field_validator, model_validator

from shared.settings import ConfigPath, KeptPath, ProcessSettings, Section
from tlog.cosignature import LogVerifier, parse_log_vkey
from tlog.errors import TlogError


class HttpSettings(Section):
    """Where the witness listens. Without certificate and key it speaks plain HTTP."""

    address: str = Field(pattern=r"^(\[[0-9a-fA-F:.]+\]|[^\s:\[\]]*):\d{1,5}$")
    """`host:port`; port 0 takes a free one, an empty host every interface."""
    prefix: str = Field(default="", pattern=r"^(/[A-Za-z0-9._~-]+)*$")
    """Path before every path of the protocol, such as `/witness`; empty for none."""
    certificate: ConfigPath | None = None
    """TLS certificate chain, as a PEM file. Read at the start."""
    key: ConfigPath | None = None
    """Its private key, as a PEM file."""
    port_file: KeptPath | None = None
    """When set, the port is written here once the server listens; for port 0."""

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key are given together or not at all")
        return self

    @property
    def host_and_port(self) -> tuple[str | None, int]:
        """The parts of the address; None for every interface."""
        host, _, port = self.address.rpartition(":")
        return host.strip("[]") or None, int(port)


class LogSettings(Section):
    """A log that the witness watches over."""

    keys: tuple[str, ...] = Field(min_length=1)
    """Verifier keys of the log, all under its name (origin); several while a key is being changed. A
    checkpoint signed by any of them is taken."""

    @field_validator("keys")
    @classmethod
    def _of_one_log(cls, keys: tuple[str, ...]) -> tuple[str, ...]:
        names = set()
        for key in keys:
            try:
                names.add(parse_log_vkey(key).name)
            except TlogError as error:
                raise ValueError(str(error)) from error
        if len(names) != 1:
            raise ValueError("the keys are of different logs; give each log a section of its own")
        return keys

    @property
    def verifiers(self) -> tuple[LogVerifier, ...]:
        """The keys, read."""
        return tuple(parse_log_vkey(key) for key in self.keys)

    @property
    def origin(self) -> str:
        """The log's name."""
        return self.verifiers[0].name


class WitnessSettings(ProcessSettings):
    """One file, `witness.toml`."""

    listen: HttpSettings
    database: KeptPath
    """SQLite file on a local disk: what this witness has cosigned. It must never be lost while the key
    is in use, nor be put back from a backup: a witness that forgets can be shown a second history."""
    create_if_missing: bool = False
    """Make the file when it is not there. Off by default, so that a lost file or a wrong path is
    noticed; set it for the first start only."""
    keys: tuple[ConfigPath, ...] = Field(min_length=1, max_length=8)
    """Key files as `countersign-witness new-key` writes them. Each checkpoint is cosigned with all."""
    logs: dict[str, LogSettings] = Field(min_length=1)
    """The logs it knows, each in a section `[logs.<label>]`; the label is yours. It answers 404 for any
    other."""

    @field_validator("logs")
    @classmethod
    def _each_once(cls, logs: dict[str, LogSettings]) -> dict[str, LogSettings]:
        origins = [log.origin for log in logs.values()]
        twice = sorted({origin for origin in origins if origins.count(origin) > 1})
        if twice:
            raise ValueError(f"{twice[0]} is there twice; put its keys into one section")
        return logs
