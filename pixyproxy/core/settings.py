"""The server's settings, read from the environment and ``.env``.

Names are ``PIXYPROXY_`` + the field's name in capitals; the upstream's are those of the OpenAI SDK. ``.env.example``
lists them all; a test checks that it is complete.
"""

import json
import os
import re
from difflib import get_close_matches
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal

from dotenv import dotenv_values
from pydantic import AliasChoices, Field, HttpUrl, SecretStr, StringConstraints, ValidationError, field_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

from pixyproxy.core.models.tenant import Visibility
from pixyproxy.core.models.token import LONGEST_TOKEN_SECONDS
from pixyproxy.core.models.trusted_issuer import TrustedIssuer
from pixyproxy.core.models.upstream import BaseUrl, UpstreamSettings

Seconds = Annotated[float, Field(gt=0)]
MEBIBYTE = 1024 * 1024
AUTO = "auto"
"""A default size or quality that leaves the choice to the upstream."""
SHORTEST_SECRET = 32
FORMER_SECRET_VARIABLE = "PIXYPROXY_FORMER_SECRET_KEY"  # noqa: S105  (a name, not a secret)
NOT_OF_THE_SERVER = frozenset(
    {"PIXYPROXY_URL", "PIXYPROXY_API_KEY", "PIXYPROXY_TEST_MYSQL_URL", FORMER_SECRET_VARIABLE}
)
"""Variables with the settings' prefix that only client commands and tests read."""
DEFAULT_URL = "http://127.0.0.1:8000"
"""The default address of `pixyproxy serve`."""
PLAIN_URL = re.compile(r"https?://[^/?#@]+(/[A-Za-z0-9._~-]+)*/?")
ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[a-z0-9._-]+(:[0-9]+)?|https?://\[[0-9a-f:.]+\](:[0-9]+)?")
"""An origin as browsers serialize it (WHATWG HTML); extensions have their own schemes."""


class Settings(BaseSettings):
    """The settings, validated once at startup and passed on explicitly; never a global."""

    model_config = SettingsConfigDict(
        env_prefix="PIXYPROXY_",
        env_file=".env",
        extra="ignore",
        frozen=True,
        env_ignore_empty=True,
        # A rejected database URL contains a password.
        hide_input_in_errors=True,
    )

    data_dir: Path = Field(default=Path("var"), description="Folder for secrets and the embedded database.")
    database_url: SecretStr | None = Field(
        default=None,
        description="`mysql://user:password@host:3306/pixyproxy` or `sqlite:///path`; embedded SQLite when empty.",
    )
    database_pool_size: Annotated[int, Field(ge=1, le=100)] = Field(
        default=8,
        description="Database connections per process, and so concurrent transactions; searches have two more.",
    )
    database_wait_seconds: Seconds = Field(
        default=5, description="How long a request waits for a connection before it gets 503."
    )
    database_timeout_seconds: Seconds = Field(
        default=10, description="How long one database statement may take before the connection is dropped."
    )
    search_seconds: Seconds = Field(
        default=3, description="How long one search may take in the database before it is aborted."
    )
    images: Path = Field(default=Path("images"), description="Folder for the pictures.")
    public_url: HttpUrl | None = Field(
        default=None,
        description="Where clients reach this server: in links, and as the issuer of access tokens. May have a path.",
    )
    secret_key: SecretStr | None = Field(
        default=None,
        description=(
            "Encrypts the signing keys, protects cursors, and is the source of webhook secrets; the same for every "
            "process. Created in the data folder when empty. Set it when several machines serve."
        ),
    )

    openai_api_key: SecretStr | None = Field(
        default=None,
        validation_alias=AliasChoices("OPENAI_API_KEY", "openai_api_key"),
        description="The upstream's API key; without one, the offline generator draws sketches.",
    )
    openai_base_url: BaseUrl = Field(
        default=HttpUrl("https://api.openai.com/v1"),
        validation_alias=AliasChoices("OPENAI_BASE_URL", "openai_base_url"),
        description="Any server that speaks the OpenAI Images API.",
    )
    default_model: Annotated[str, StringConstraints(min_length=1, max_length=128)] = Field(
        default="gpt-image-2.5-flare", description="The model used when a request names none."
    )
    default_size: Annotated[str, StringConstraints(pattern=r"^([1-9][0-9]{0,4}x[1-9][0-9]{0,4}|auto)$")] = Field(
        default="1024x1024",
        description="The size sent where a request names none and the model has a price for it; `auto` sends none.",
    )
    default_quality: Annotated[str, StringConstraints(min_length=1, max_length=64)] = Field(
        default="medium",
        description="The quality sent where a request names none and the model has a price for it; `auto` sends none.",
    )
    upstream_timeout_seconds: Seconds = Field(
        default=300, description="How long one generation may take, from connecting to the last byte."
    )
    upstream_connect_seconds: Seconds = Field(default=10, description="How long a connection to the upstream may take.")
    upstreams: tuple[UpstreamSettings, ...] = Field(
        default=(),
        description=(
            "Several upstreams instead of the one of OPENAI_API_KEY, as a JSON list; "
            "see docs/how-to/configure-an-upstream.md."
        ),
    )
    picture_allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description=(
            "Hosts or networks that a picture may be fetched from if an upstream returns a URL, besides the upstream's "
            "own host and public hosts."
        ),
    )
    queue_size: Annotated[int, Field(ge=1, le=100_000)] = Field(
        default=1000,
        description="How many orders of a tenant may wait for a slot at an upstream; further ones get 503.",
    )
    queue_seconds: Seconds = Field(default=600, description="How long an order may wait for a slot at an upstream.")
    generations_at_once: Annotated[int, Field(ge=1, le=100_000)] = Field(
        default=1000, description="How many generations one process executes concurrently."
    )
    retry_window_seconds: Annotated[float, Field(ge=0, le=86_400)] = Field(
        default=600,
        description=(
            "How long an order without an Idempotency-Key answers a request of the same credential with the same "
            "content, after its client disconnected or its outcome became unknown; 0: never."
        ),
    )
    prices: Path | None = Field(
        default=None,
        description="A file of prices that replace or extend the built-in ones; see docs/reference/prices.md.",
    )
    max_picture_bytes: Annotated[int, Field(ge=1024)] = Field(
        default=64 * MEBIBYTE, description="The largest picture accepted from an upstream."
    )
    max_picture_pixels: Annotated[int, Field(ge=1)] = Field(
        default=100_000_000, description="The most pixels (width times height) of a picture."
    )

    images_per_minute: Annotated[int, Field(ge=1)] = Field(
        default=60, description="How many pictures a tenant may request per minute, unless it has its own limit."
    )
    reads_per_second: Annotated[int, Field(ge=1)] = Field(
        default=5000, description="How many reads a tenant, or an anonymous address, may make per second."
    )
    changes_per_minute: Annotated[int, Field(ge=1)] = Field(
        default=600, description="How many changes and administrator actions a tenant may make per minute."
    )
    sign_ins_per_minute: Annotated[int, Field(ge=1)] = Field(
        default=600, description="How many token requests one address may make per minute."
    )
    failures_per_address: Annotated[int, Field(ge=1)] = Field(
        default=1000,
        description=(
            "How many wrong keys and tokens one address may present per minute; a tenth as many wrong passwords."
        ),
    )
    failures_per_name: Annotated[int, Field(ge=1)] = Field(
        default=20, description="How many wrong secrets may be presented for one key id or user name per minute."
    )
    redis_url: SecretStr | None = Field(
        default=None,
        description="`redis://…` or `rediss://…`: rate limits hold across all processes; per process when empty.",
    )
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description=(
            "Addresses or networks of reverse proxies whose X-Forwarded-For is trusted; they may hold all connections."
        ),
    )

    signing_keys: SecretStr | None = Field(
        default=None,
        description="PEM private keys (EC P-256) for tokens; the first one signs. Created in the database when empty.",
    )
    access_token_seconds: Annotated[int, Field(ge=1, le=LONGEST_TOKEN_SECONDS)] = Field(
        default=900, description="Lifetime of an access token."
    )
    refresh_token_seconds: Annotated[int, Field(ge=1)] = Field(
        default=30 * 86_400, description="Lifetime of an unused refresh token."
    )
    password_sign_in: bool = Field(default=True, description="Whether users may sign in with a password.")
    password_checks_at_once: Annotated[int, Field(ge=1, le=64)] = Field(
        default=2, description="Passwords hashed concurrently; each takes 64 MiB and 0.1 s of a core."
    )
    trusted_issuers: tuple[TrustedIssuer, ...] = Field(
        default=(),
        description=(
            "OpenID Connect issuers whose tokens are accepted, as a JSON list; see docs/how-to/trust-an-issuer.md."
        ),
    )
    default_visibility: Visibility = Field(
        default=Visibility.PUBLIC, description="Visibility of new pictures in tenants created from now on."
    )
    max_body_bytes: Annotated[int, Field(ge=1024)] = Field(
        default=MEBIBYTE, description="The largest request body accepted."
    )
    max_upload_bytes: Annotated[int, Field(ge=1024)] = Field(
        default=64 * MEBIBYTE, description="The largest request body with input pictures accepted."
    )
    webhook_allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="Hosts or networks that webhooks may call even if private, or by http."
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="Origins of web pages whose scripts may use the whole API with a credential."
    )
    max_connections: Annotated[int, Field(ge=1)] = Field(
        default=4000,
        description=(
            "The most connections, and requests, per process; further ones get 503. One address may hold a quarter "
            "of them, unless it is a trusted proxy."
        ),
    )
    shutdown_seconds: Seconds = Field(
        default=30, description="How long a stopping server waits for running generations."
    )
    log_format: Literal["text", "json"] = Field(default="text", description="Log lines as text or as JSON.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="The lowest log level written."
    )

    @classmethod
    def from_environment(cls) -> "Settings":
        """Return the settings in the environment and ``.env``.

        Raise ``ValidationError`` or ``SettingsError``. The latter also for an unknown ``PIXYPROXY_…`` variable, so that
        a mistyped name is not ignored.
        """
        names = {f"PIXYPROXY_{name}".upper() for name, field in cls.model_fields.items() if not field.validation_alias}
        given = {
            name.upper() for name in (*os.environ, *dotenv_values(".env")) if name.upper().startswith("PIXYPROXY_")
        }
        if unknown := sorted(given - names - NOT_OF_THE_SERVER):
            raise UnknownSettingsError(unknown, names)
        return cls()

    @field_validator("secret_key")
    @classmethod
    def _long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        """Reject a secret that is short enough to guess."""
        if value is not None and len(value.get_secret_value()) < SHORTEST_SECRET:
            problem = (
                f"must have at least {SHORTEST_SECRET} characters; `openssl rand -base64 32` prints a suitable one"
            )
            raise ValueError(problem)
        return value

    @field_validator("openai_api_key")
    @classmethod
    def _sendable(cls, value: SecretStr | None) -> SecretStr | None:
        """Reject a key that an HTTP header cannot carry, such as an example with dots copied from the documentation."""
        if value is not None and not re.fullmatch(r"[\x21-\x7e]+", value.get_secret_value()):
            problem = "is not a valid key: it contains spaces or non-ASCII characters"
            raise ValueError(problem)
        return value

    @field_validator("public_url")
    @classmethod
    def _plain_url(cls, value: HttpUrl | None) -> HttpUrl | None:
        """Reject a URL that other URLs cannot be appended to; a path is allowed."""
        if value is not None and PLAIN_URL.fullmatch(str(value)) is None:
            problem = "must be a scheme, a host and optionally a plain path, such as https://example.com/pictures"
            raise ValueError(problem)
        return value

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, value: SecretStr | None) -> SecretStr | None:
        """Reject an untested database here rather than fail at the first query."""
        if value is not None and not value.get_secret_value().startswith(("sqlite:///", "mysql://", "mariadb://")):
            problem = "must start with mysql://, mariadb:// or sqlite:///"
            raise ValueError(problem)
        return value

    @field_validator("upstreams")
    @classmethod
    def _names_of_their_own(cls, value: tuple[UpstreamSettings, ...]) -> tuple[UpstreamSettings, ...]:
        """Reject duplicate names: the log and the generation's row identify an upstream by its name."""
        if len({upstream.name for upstream in value}) < len(value):
            problem = "every upstream needs a unique name"
            raise ValueError(problem)
        return value

    @field_validator("redis_url")
    @classmethod
    def _known_store(cls, value: SecretStr | None) -> SecretStr | None:
        """Reject any other scheme; no test covers one."""
        if value is not None and not value.get_secret_value().startswith(("redis://", "rediss://")):
            problem = "must start with redis:// or rediss://"
            raise ValueError(problem)
        return value

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _networks(cls, value: object) -> object:
        """Split a comma-separated list; reject ``*``, which would trust whatever a client sends about itself."""
        names = _separated(value)
        if isinstance(names, list | tuple):
            for name in names:
                ip_network(name)
        return names

    @field_validator("webhook_allowed_hosts", "picture_allowed_hosts", mode="before")
    @classmethod
    def _hosts(cls, value: object) -> object:
        """Split a comma-separated list."""
        return _separated(value)

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _separated_origins(cls, value: object) -> object:
        """Split a comma-separated list."""
        return _separated(value)

    @field_validator("cors_origins")
    @classmethod
    def _serialized_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        """Reject what no browser sends as ``Origin`` and so would never match."""
        for origin in value:
            if origin != "*" and ORIGIN.fullmatch(origin) is None:
                problem = "must be * or lower-case origins without a path, such as https://app.example.com"
                raise ValueError(problem)
        return value

    @property
    def default_options(self) -> dict[str, str]:
        """The default quality and size for orders that name none, without those left to the upstream."""
        named = {"quality": self.default_quality, "size": self.default_size}
        return {name: value for name, value in named.items() if value != AUTO}

    @property
    def base_url(self) -> str | None:
        """``public_url`` without a trailing slash."""
        return None if self.public_url is None else str(self.public_url).rstrip("/")

    @property
    def url_prefix(self) -> str:
        """The path of ``public_url``, the prefix of all paths: empty, or ``/path`` without a trailing slash."""
        return "" if self.public_url is None else (self.public_url.path or "").rstrip("/")

    @property
    def effective_database_url(self) -> SecretStr:
        """The configured database, or SQLite in the data folder."""
        return self.database_url or SecretStr(f"sqlite:///{self.data_dir.resolve() / 'pixyproxy.db'}")

    @property
    def embedded_database(self) -> Path | None:
        """The file of an SQLite database; None for a database server."""
        scheme, _, path = self.effective_database_url.get_secret_value().partition("sqlite:///")
        return None if scheme or not path else Path(path.partition("?")[0])


class UnknownSettingsError(SettingsError):
    """Environment variables with the settings' prefix that are not settings."""

    def __init__(self, unknown: list[str], known: set[str]) -> None:
        """Take the names of the unknown and of all known variables."""
        super().__init__(", ".join(unknown))
        self.problems = [f"{name}: unknown setting{_nearest(name, known)}" for name in unknown]


def _nearest(name: str, known: set[str]) -> str:
    found = get_close_matches(name, sorted(known), n=1)
    return f"; did you mean {found[0]}?" if found else "; see .env.example"


def _separated(value: object) -> object:
    """Split a comma-separated text into its names; leave anything else to the validation."""
    return [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value


def problems_of(error: ValidationError) -> list[str]:
    """Return one line for each invalid field: its name and what is wrong."""
    return [f"{'.'.join(map(str, item['loc']))}: {_message_of(item)}" for item in error.errors()]


def problems_of_settings(error: ValidationError | SettingsError) -> list[str]:
    """Return what is wrong with each environment variable and where it is documented, never its value."""
    if isinstance(error, UnknownSettingsError):
        return error.problems
    if isinstance(error, SettingsError):
        # Only the library's message names the setting.
        name = re.search(r'field "(\w+)"', str(error))
        cause = error.__cause__
        where = f" (line {cause.lineno}, column {cause.colno})" if isinstance(cause, json.JSONDecodeError) else ""
        return [_problem_of(name[1] if name else "a setting", "", f"is not valid JSON{where}")]
    return [
        _problem_of(str(item["loc"][0]), ".".join(map(str, item["loc"][1:])), _message_of(item))
        for item in error.errors()
    ]


def _problem_of(setting: str, member: str, problem: str) -> str:
    """Format a problem. ``setting`` is the field's name or alias, ``member`` the invalid part of its value."""
    field = Settings.model_fields.get(setting)
    variable = setting.upper() if field is None or field.validation_alias else f"PIXYPROXY_{setting}".upper()
    page = re.search(r"docs/[\w/-]+\.md", (field and field.description) or "")
    return f"{variable}{f' at {member}' if member else ''}: {problem}; see {page[0] if page else '.env.example'}"


def _message_of(item: ErrorDetails) -> str:
    return item["msg"].removeprefix("Value error, ")
