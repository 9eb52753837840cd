"""Every setting of the server, read from the environment and ``.env``.

Names are ``PIXYPROXY_`` + the field's name in capitals; the upstream's are the OpenAI SDK's own.
``.env.example`` lists them all, and a test keeps it complete.
"""

import json
import re
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AliasChoices, Field, HttpUrl, SecretStr, StringConstraints, ValidationError, field_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

from pixyproxy.core.models.tenant import Visibility
from pixyproxy.core.models.token import LONGEST_TOKEN_SECONDS
from pixyproxy.core.models.trusted_issuer import TrustedIssuer
from pixyproxy.core.models.upstream import BaseUrl, UpstreamSettings

Seconds = Annotated[float, Field(gt=0)]
MEBIBYTE = 1024 * 1024
DEFAULT_URL = "http://127.0.0.1:8000"
"""Where `pixyproxy serve` listens unless it is told otherwise."""


class Settings(BaseSettings):
    """Validated once at start and passed to whoever needs it; never a global."""

    model_config = SettingsConfigDict(
        env_prefix="PIXYPROXY_",
        env_file=".env",
        extra="ignore",
        frozen=True,
        env_ignore_empty=True,
        # A database URL that is refused has a password in it.
        hide_input_in_errors=True,
    )

    data_dir: Path = Field(default=Path("var"), description="Folder for secrets and the embedded database.")
    database_url: SecretStr | None = Field(
        default=None,
        description="`mysql://user:password@host:3306/pixyproxy` or `sqlite:///path`; embedded SQLite when empty.",
    )
    database_pool_size: Annotated[int, Field(ge=1, le=100)] = Field(
        default=8, description="Connections, and so transactions at once, per process."
    )
    database_wait_seconds: Seconds = Field(
        default=5, description="How long a request waits for a connection before it gets 503."
    )
    database_timeout_seconds: Seconds = Field(
        default=10, description="How long one answer of the database may take before the connection is given up."
    )
    images: Path = Field(default=Path("images"), description="Folder of the pictures.")
    public_url: HttpUrl | None = Field(
        default=None, description="Where clients reach this server: in links, and as the issuer of access tokens."
    )
    secret_key: SecretStr | None = Field(
        default=None,
        description=(
            "Protects cursors, and the secrets of webhooks come of it; made in the data folder when empty. "
            "Set it when several machines serve."
        ),
    )

    openai_api_key: SecretStr | None = Field(
        default=None,
        validation_alias=AliasChoices("OPENAI_API_KEY", "openai_api_key"),
        description="The upstream's key; without one the offline generator draws sketches.",
    )
    openai_base_url: BaseUrl = Field(
        default=HttpUrl("https://api.openai.com/v1"),
        validation_alias=AliasChoices("OPENAI_BASE_URL", "openai_base_url"),
        description="Any server that speaks the OpenAI Images API.",
    )
    default_model: Annotated[str, StringConstraints(min_length=1, max_length=128)] = Field(
        default="gpt-image-2.5-flare", description="The model asked for when a request names none."
    )
    upstream_timeout_seconds: Seconds = Field(
        default=300, description="How long one generation may take, from the connection to the last byte."
    )
    upstream_connect_seconds: Seconds = Field(default=10, description="How long a connection to the upstream may take.")
    upstreams: tuple[UpstreamSettings, ...] = Field(
        default=(),
        description="Several upstreams in place of OPENAI_API_KEY's one, as a JSON list; see docs/upstreams.md.",
    )
    picture_allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description=(
            "Hosts or networks, beside an upstream's own host and public ones, that a picture is fetched from "
            "if the upstream answers with its URL."
        ),
    )
    queue_size: Annotated[int, Field(ge=1, le=100_000)] = Field(
        default=1000, description="How many orders of a tenant may wait for an upstream before it gets 503."
    )
    queue_seconds: Seconds = Field(default=600, description="How long an order may wait for a place at an upstream.")
    prices: Path | None = Field(
        default=None, description="A file of prices that replace or extend ours; see docs/prices.md."
    )
    max_picture_bytes: Annotated[int, Field(ge=1024)] = Field(
        default=64 * MEBIBYTE, description="The largest picture that is accepted from the upstream."
    )
    max_picture_pixels: Annotated[int, Field(ge=1)] = Field(
        default=100_000_000, description="The most pixels (width times height) that a picture may claim."
    )

    images_per_minute: Annotated[int, Field(ge=1)] = Field(
        default=60, description="How many pictures a tenant may ask for in a minute, unless it has a limit of its own."
    )
    reads_per_second: Annotated[int, Field(ge=1)] = Field(
        default=5000, description="How many reads a tenant, or an anonymous address, may make in a second."
    )
    changes_per_minute: Annotated[int, Field(ge=1)] = Field(
        default=600, description="How many changes and acts of administration a tenant may make in a minute."
    )
    sign_ins_per_minute: Annotated[int, Field(ge=1)] = Field(
        default=600, description="How many requests for tokens one address may make in a minute."
    )
    failures_per_address: Annotated[int, Field(ge=1)] = Field(
        default=1000,
        description="How many wrong credentials one address may present in a minute; a wrong password counts 10.",
    )
    failures_per_name: Annotated[int, Field(ge=1)] = Field(
        default=20, description="How many wrong secrets may be presented for one key id or user name in a minute."
    )
    redis_url: SecretStr | None = Field(
        default=None,
        description="`redis://…` or `rediss://…`: limits hold over all processes and machines; in memory when empty.",
    )
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="Addresses or networks of reverse proxies whose X-Forwarded-For is believed."
    )

    signing_keys: SecretStr | None = Field(
        default=None,
        description="PEM private keys (EC P-256) for tokens, the first signs; made in the data folder when empty.",
    )
    access_token_seconds: Annotated[int, Field(ge=1, le=LONGEST_TOKEN_SECONDS)] = Field(
        default=900, description="How long an access token lives."
    )
    refresh_token_seconds: Annotated[int, Field(ge=1)] = Field(
        default=30 * 86_400, description="How long a refresh token may wait to be used."
    )
    password_sign_in: bool = Field(default=True, description="Whether users may get tokens for their password.")
    password_checks_at_once: Annotated[int, Field(ge=1, le=64)] = Field(
        default=2, description="Passwords that are hashed at the same time; each takes 64 MiB and 0.1 s of a core."
    )
    trusted_issuers: tuple[TrustedIssuer, ...] = Field(
        default=(),
        description="OpenID Connect issuers whose tokens are accepted, as a JSON list; see docs/identity.md.",
    )
    default_visibility: Visibility = Field(
        default=Visibility.PUBLIC, description="Visibility of new pictures in tenants made from now on."
    )
    max_body_bytes: Annotated[int, Field(ge=1024)] = Field(
        default=MEBIBYTE, description="The largest request body that is read."
    )
    max_upload_bytes: Annotated[int, Field(ge=1024)] = Field(
        default=64 * MEBIBYTE, description="The largest request with pictures to be edited that is read."
    )
    webhook_allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="Hosts or networks that webhooks may call though they are private, or by http."
    )
    max_connections: Annotated[int, Field(ge=1)] = Field(
        default=4000, description="Connections and requests per process beyond which new ones get 503."
    )
    shutdown_seconds: Seconds = Field(
        default=30, description="How long a stopping server waits for generations that are under way."
    )
    log_format: Literal["text", "json"] = Field(default="text", description="Log lines as text or as JSON.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(default="INFO", description="The least log level.")

    @field_validator("openai_api_key")
    @classmethod
    def _sendable(cls, value: SecretStr | None) -> SecretStr | None:
        """Refuse what no HTTP header can carry, such as the dots of an example that was copied."""
        if value is not None and not re.fullmatch(r"[\x21-\x7e]+", value.get_secret_value()):
            problem = "is no key: it has spaces or characters outside of ASCII"
            raise ValueError(problem)
        return value

    @field_validator("public_url")
    @classmethod
    def _without_path(cls, value: HttpUrl | None) -> HttpUrl | None:
        """Refuse a path: routes are at the root, and so are the links to them."""
        if value is not None and value.path not in {None, "/"}:
            problem = "must have no path, as in https://pictures.example.com"
            raise ValueError(problem)
        return value

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, value: SecretStr | None) -> SecretStr | None:
        """Refuse what no test covers rather than fail at the first query."""
        if value is not None and not value.get_secret_value().startswith(("sqlite:///", "mysql://", "mariadb://")):
            problem = "must start with mysql://, mariadb:// or sqlite:///"
            raise ValueError(problem)
        return value

    @field_validator("upstreams")
    @classmethod
    def _names_of_their_own(cls, value: tuple[UpstreamSettings, ...]) -> tuple[UpstreamSettings, ...]:
        """The log and the record of a generation tell upstreams apart by their names."""
        if len({upstream.name for upstream in value}) < len(value):
            problem = "every upstream needs a name of its own"
            raise ValueError(problem)
        return value

    @field_validator("redis_url")
    @classmethod
    def _known_store(cls, value: SecretStr | None) -> SecretStr | None:
        """Refuse what no test covers."""
        if value is not None and not value.get_secret_value().startswith(("redis://", "rediss://")):
            problem = "must start with redis:// or rediss://"
            raise ValueError(problem)
        return value

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _networks(cls, value: object) -> object:
        """Take a list separated by commas. ``*`` would believe what any client writes of itself."""
        names = _separated(value)
        if isinstance(names, list | tuple):
            for name in names:
                ip_network(name)
        return names

    @field_validator("webhook_allowed_hosts", "picture_allowed_hosts", mode="before")
    @classmethod
    def _hosts(cls, value: object) -> object:
        """Take a list separated by commas."""
        return _separated(value)

    @property
    def issuer(self) -> str:
        """The ``iss`` and ``aud`` of access tokens: where clients reach this server, as far as the settings tell."""
        return str(self.public_url or DEFAULT_URL).rstrip("/")

    @property
    def effective_database_url(self) -> SecretStr:
        """The database to use: the one that was set, or SQLite in the data folder."""
        return self.database_url or SecretStr(f"sqlite:///{self.data_dir.resolve() / 'pixyproxy.db'}")


def _separated(value: object) -> object:
    """The names in a text that commas separate; anything else is left to the validation."""
    return [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value


def problems_of(error: ValidationError) -> list[str]:
    """What is wrong with which field, a line each."""
    return [f"{'.'.join(map(str, item['loc']))}: {_message_of(item)}" for item in error.errors()]


def problems_of_settings(error: ValidationError | SettingsError) -> list[str]:
    """What is wrong with which environment variable, and where to read about it; never what its value was."""
    if isinstance(error, SettingsError):
        # The library's words are all that names the setting.
        name = re.search(r'field "(\w+)"', str(error))
        cause = error.__cause__
        where = f" (line {cause.lineno}, column {cause.colno})" if isinstance(cause, json.JSONDecodeError) else ""
        return [_problem_of(name[1] if name else "a setting", "", f"is not the JSON that it has to be{where}")]
    return [
        _problem_of(str(item["loc"][0]), ".".join(map(str, item["loc"][1:])), _message_of(item))
        for item in error.errors()
    ]


def _problem_of(setting: str, member: str, problem: str) -> str:
    """``setting`` is the field's name, or its alias where it has one; ``member`` what in it is wrong."""
    field = Settings.model_fields.get(setting)
    variable = setting.upper() if field is None or field.validation_alias else f"PIXYPROXY_{setting}".upper()
    page = re.search(r"docs/\w+\.md", (field and field.description) or "")
    return f"{variable}{f' at {member}' if member else ''}: {problem}; see {page[0] if page else '.env.example'}"


def _message_of(item: ErrorDetails) -> str:
    return item["msg"].removeprefix("Value error, ")
