"""Settings, read once from the environment (prefix ``CALLTRAIL_``) and from command-line options.

The agents' file is TOML::

    [[agent]]
    user = "15000"
    password = "…"
    login = false        # true: send StartContactCenterSession as this agent
    source = "session"   # "tap": recorded by the tap alone
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from service.errors import BadConfig


class Agent(BaseModel):
    """An agent whose CometD session we keep and for whom we may command transfers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    user: str = Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")
    password: SecretStr
    login: bool = False
    """Whether to log the agent in (`StartContactCenterSession`); by default we only listen."""
    place: str | None = None
    """The place to log in at, where GWS wants one."""
    source: Literal["session", "tap"] = "session"
    """What records the agent: a CometD session of our own, or the application's, as the tap sees it."""


def default_data_dir() -> Path:
    """``$XDG_DATA_HOME/calltrail``, by default below the user's home (XDG Base Directory Specification)."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "calltrail"


class Settings(BaseSettings):
    """Everything that can be set. Units stand in the names."""

    model_config = SettingsConfigDict(env_prefix="CALLTRAIL_", extra="ignore", populate_by_name=True)

    database_url: str | None = Field(
        default=None, validation_alias=AliasChoices("DATABASE_URL", "database_url")
    )
    """A Postgres of your own. Unset: an embedded one in `data_dir`."""
    data_dir: Path = Field(default_factory=default_data_dir)
    """Where the embedded Postgres, the log's signing key and the sessions' state are."""
    postgres_options: Annotated[dict[str, str], NoDecode] = Field(default_factory=dict)
    """Server settings of the embedded Postgres; for tests."""

    gws_url: str = "http://127.0.0.1:8080"
    """GWS, without ``/api/v2``."""
    agents_file: Path | None = None
    """TOML, see above. Or `user` and `password` for a single agent."""
    user: str | None = None
    password: SecretStr | None = None
    login: bool = False
    gws_timeout_s: float = Field(default=10.0, gt=0)
    """How long to wait for GWS's answer to a REST request; after it a transfer is in doubt."""

    host: str = "127.0.0.1"
    port: int = Field(default=8282, ge=0, le=65535)
    insecure: bool = False
    """Listen beyond loopback although there is no access control yet; send passwords over plain HTTP."""

    tap: str | None = None
    """GWS as the tap passes requests on to it, ``https://host:port``; unset: no tap."""
    tap_listen: str = "127.0.0.1:8383"
    """Where agents' applications reach the tap, ``host:port``; port 0 takes a free one."""
    tap_ca_file: Path | None = None
    """Certificates (PEM) by which GWS is known to the tap, instead of the system's."""
    tap_certificate: Path | None = None
    tap_key: Path | None = None
    """The tap's own certificate and key (PEM) towards clients; unset: plain HTTP."""
    tap_keep_host: bool = False
    """Let GWS see the Host that the client asked for, instead of its own name."""
    tap_cometd_path: str = "/api/v2/notifications"
    """Where GWS serves CometD; what is below it is recorded too."""
    when_log_fails: Literal["pass", "refuse"] = "pass"
    """What the tap does with what it cannot record: pass it on and record a gap, or answer 503."""
    log_patience_s: float = Field(default=2.0, gt=0)
    """How long the tap waits for the log before `when_log_fails` decides."""
    drain_s: float = Field(default=40.0, ge=0)
    """How long the tap lets open requests come to their end when it is stopped."""

    settle_window_s: float = Field(default=20.0, gt=0)
    """How long after GWS's answer evidence of a transfer is awaited before the call is asked for."""
    wait_for_outcome_s: float = Field(default=10.0, ge=0)
    """How long a repeated request waits for the first one's outcome before it is told 409."""
    max_payload_bytes: int = Field(default=1 << 20, ge=640 << 10)
    """The largest event payload that the log takes; an element is cut into events of half a MiB and a bit."""
    max_request_bytes: int = Field(default=256 << 10, gt=0)
    """The largest body of a command."""

    time_zone: str = "UTC"
    """The site's, by its IANA name: analytics tell local dates, hours and weekdays."""
    reason_keys: tuple[str, ...] = Field(default=("TransferReason",), min_length=1)
    """Keys of userData that may hold a transfer's reason; the first that is there counts."""
    reason_names: dict[str, str] = Field(default_factory=dict)
    """How reasons are called in analytics, by how they are written in userData, in whatever case."""

    broker: str | None = None
    """``embedded`` or a NATS URL; unset: no broker."""
    subject_prefix: str = "calltrail"
    """What the relay's subjects begin with: ``<prefix>.log.<kind>``."""

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ValueError, OSError, ZoneInfoNotFoundError):
            raise ValueError(f"{name!r} is no time zone known here; write one like Europe/Berlin") from None
        return name

    @property
    def zone(self) -> ZoneInfo:
        """The site's time zone."""
        return ZoneInfo(self.time_zone)

    def agents(self) -> list[Agent]:
        """The configured agents.

        Raises:
            BadConfig: the file cannot be read or an entry is wrong; the text names file, entry and field.

        """
        if self.agents_file is not None:
            return read_agents(self.agents_file)
        if self.user is None:
            return []
        if self.password is None:
            raise BadConfig(
                "CALLTRAIL_PASSWORD", "is missing beside CALLTRAIL_USER", "Set both or use agents_file"
            )
        return [Agent(user=self.user, password=self.password, login=self.login)]


def load_settings(**overrides: Any) -> Settings:
    """Settings from the environment, with `overrides` (those that are not None) on top.

    Raises:
        BadConfig: a value is wrong; the text names the setting.

    """
    try:
        return Settings(**{name: value for name, value in overrides.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        raise BadConfig(
            name, first["msg"], f"Set CALLTRAIL_{name.upper()} or the option of that name"
        ) from None


def read_agents(path: Path) -> list[Agent]:
    """Read an agents' file."""
    try:
        text = path.read_text(encoding="utf-8")
        document = tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise BadConfig(str(path), f"cannot be read ({error})", "Give the path of a TOML file") from error
    except tomllib.TOMLDecodeError as error:
        raise BadConfig(str(path), str(error), "Correct the TOML at the place named") from error
    entries = document.get("agent")
    if not isinstance(entries, list) or not entries:
        raise BadConfig(str(path), "has no [[agent]] table", "Add one [[agent]] table per agent")
    agents: list[Agent] = []
    for number, entry in enumerate(entries, start=1):
        try:
            agents.append(Agent.model_validate(entry))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            name = ".".join(str(part) for part in first["loc"])
            place = where(text, number, name)
            raise BadConfig(f"{path}: {place}: {name}", first["msg"], "Correct this entry") from None
    users = [agent.user for agent in agents]
    for number, user in enumerate(users, start=1):
        if user in users[: number - 1]:
            place = where(text, number, "user")
            raise BadConfig(f"{path}: {place}: user", f"{user} is there twice", "Keep one of the two")
    return agents


def where(text: str, number: int, field: str) -> str:
    """Where agent `number` (from 1) says `field`, or where its table begins: ``line 7, agent 2``."""
    found = 0
    line_found = None
    for line, content in enumerate(text.splitlines(), start=1):
        if content.lstrip().startswith("["):
            found += content.replace(" ", "").startswith("[[agent]]")
            if found == number and line_found is None:
                line_found = line
        elif found == number and content.partition("=")[0].strip().strip("\"'") == field:
            line_found = line
            break
    return f"agent {number}" if line_found is None else f"line {line_found}, agent {number}"
