"""Every setting of the server, read from the environment and ``.env``.

Names are ``PIXYPROXY_`` + the field's name in capitals; the upstream's are the OpenAI SDK's own.
``.env.example`` lists them all, and a test keeps it complete.
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
"""Of a default size or quality: it is left to the upstream."""
SHORTEST_SECRET = 32
FORMER_SECRET_VARIABLE = "PIXYPROXY_FORMER_SECRET_KEY"  # noqa: S105  (a name, no secret)
NOT_OF_THE_SERVER = frozenset(
    {"PIXYPROXY_URL", "PIXYPROXY_API_KEY", "PIXYPROXY_TEST_MYSQL_URL", FORMER_SECRET_VARIABLE}
)
"""Variables with the prefix of settings that commands which are clients, and tests, read."""
DEFAULT_URL = "http://127.0.0.1:8000"
"""Where `pixyproxy serve` listens unless it is told otherwise."""
PLAIN_URL = re.compile(r"https?://[^/?#@]+(/[A-Za-z0-9._~-]+)*/?")
ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[a-z0-9._-]+(:[0-9]+)?|https?://\[[0-9a-f:.]+\](:[0-9]+)?")
"""As browsers write it (WHATWG HTML, "ASCII serialization of an origin"); extensions have schemes of their own."""


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
        default=8, description="Connections, and so transactions at once, per process; searches have two more."
    )
    database_wait_seconds: Seconds = Field(
        default=5, description="How long a request waits for a connection before it gets 503."
    )
    database_timeout_seconds: Seconds = Field(
        default=10, description="How long one answer of the database may take before the connection is given up."
    )
    search_seconds: Seconds = Field(
        default=3, description="How long one search may take in the database before it is ended."
    )
    images: Path = Field(default=Path("images"), description="Folder of the pictures.")
    public_url: HttpUrl | None = Field(
        default=None,
        description="Where clients reach this server: in links, and as the issuer of access tokens. May have a path.",
    )
    secret_key: SecretStr | None = Field(
        default=None,
        description=(
            "Encrypts the signing keys, protects cursors, and the secrets of webhooks come of it; the same for every "
            "process. Made in the data folder when empty. Set it when several machines serve."
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
    default_size: Annotated[str, StringConstraints(pattern=r"^([1-9][0-9]{0,4}x[1-9][0-9]{0,4}|auto)$")] = Field(
        default="1024x1024",
        description="The size sent where a request names none and the model has a price for it; `auto` sends none.",
    )
    default_quality: Annotated[str, StringConstraints(min_length=1, max_length=64)] = Field(
        default="medium",
        description="The quality sent where a request names none and the model has a price for it; `auto` sends none.",
    )
    upstream_timeout_seconds: Seconds = Field(
        default=300, description="How long one generation may take, from the connection to the last byte."
    )
    upstream_connect_seconds: Seconds = Field(default=10, description="How long a connection to the upstream may take.")
    upstreams: tuple[UpstreamSettings, ...] = Field(
        default=(),
        description=(
            "Several upstreams, as a JSON list, instead of the one of OPENAI_API_KEY; "
            "see docs/how-to/configure-an-upstream.md."
        ),
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
    generations_at_once: Annotated[int, Field(ge=1, le=100_000)] = Field(
        default=1000, description="How many generations one process executes at the same time."
    )
    retry_window_seconds: Annotated[float, Field(ge=0, le=86_400)] = Field(
        default=600,
        description=(
            "How long after its client is gone, or its outcome is unknown, an order without an Idempotency-Key answers "
            "a request of the same credential with the same content; 0: never."
        ),
    )
    prices: Path | None = Field(
        default=None, description="A file of prices that replace or extend ours; see docs/reference/prices.md."
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
        description=(
            "How many wrong keys and tokens one address may present in a minute, and a tenth as many wrong passwords."
        ),
    )
    failures_per_name: Annotated[int, Field(ge=1)] = Field(
        default=20, description="How many wrong secrets may be presented for one key id or user name in a minute."
    )
    redis_url: SecretStr | None = Field(
        default=None,
        description="`redis://…` or `rediss://…`: limits of requests hold over all processes; in memory when empty.",
    )
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description=(
            "Addresses or networks of reverse proxies whose X-Forwarded-For is believed; they may hold all connections."
        ),
    )

    signing_keys: SecretStr | None = Field(
        default=None,
        description="PEM private keys (EC P-256) for tokens, the first signs; made in the database when empty.",
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
        description=(
            "OpenID Connect issuers whose tokens are accepted, as a JSON list; see docs/how-to/trust-an-issuer.md."
        ),
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
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="Origins of web pages whose scripts may use the whole API with a credential."
    )
    max_connections: Annotated[int, Field(ge=1)] = Field(
        default=4000,
        description=(
            "Connections and requests per process beyond which new ones get 503; a quarter of them for one address, "
            "unless it is a trusted proxy."
        ),
    )
    shutdown_seconds: Seconds = Field(
        default=30, description="How long a stopping server waits for generations that are under way."
    )
    log_format: Literal["text", "json"] = Field(default="text", description="Log lines as text or as JSON.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(default="INFO", description="The least log level.")

    @classmethod
    def from_environment(cls) -> "Settings":
        """Return the settings in the environment and ``.env``.

        Raises ``ValidationError`` and ``SettingsError``, the latter also for a ``PIXYPROXY_…`` variable that is no
        setting: a mistyped name would otherwise be ignored.
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
        """Refuse a secret that can be guessed."""
        if value is not None and len(value.get_secret_value()) < SHORTEST_SECRET:
            problem = f"must have at least {SHORTEST_SECRET} characters; `openssl rand -base64 32` prints a good one"
            raise ValueError(problem)
        return value

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
    def _plain_url(cls, value: HttpUrl | None) -> HttpUrl | None:
        """Refuse what cannot be the beginning of other URLs; a path may be."""
        if value is not None and PLAIN_URL.fullmatch(str(value)) is None:
            problem = "must be scheme, host and perhaps a plain path, as in https://example.com/pictures"
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

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _separated_origins(cls, value: object) -> object:
        """Take a list separated by commas."""
        return _separated(value)

    @field_validator("cors_origins")
    @classmethod
    def _serialized_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        """Refuse what no browser sends as ``Origin`` and so would never match."""
        for origin in value:
            if origin != "*" and ORIGIN.fullmatch(origin) is None:
                problem = "must be *, or origins in lower case without a path, as in https://app.example.com"
                raise ValueError(problem)
        return value

    @property
    def default_options(self) -> dict[str, str]:
        """The quality and size of orders that name none; what is left to the upstream is not among them."""
        named = {"quality": self.default_quality, "size": self.default_size}
        return {name: value for name, value in named.items() if value != AUTO}

    @property
    def base_url(self) -> str | None:
        """``public_url`` without a slash at its end."""
        return None if self.public_url is None else str(self.public_url).rstrip("/")

    @property
    def url_prefix(self) -> str:
        """The path of ``public_url``, with which all paths begin: empty, or ``/path`` without a slash at its end."""
        return "" if self.public_url is None else (self.public_url.path or "").rstrip("/")

    @property
    def effective_database_url(self) -> SecretStr:
        """The database to use: the one that was set, or SQLite in the data folder."""
        return self.database_url or SecretStr(f"sqlite:///{self.data_dir.resolve() / 'pixyproxy.db'}")

    @property
    def embedded_database(self) -> Path | None:
        """The file of an SQLite database; None for a database server."""
        scheme, _, path = self.effective_database_url.get_secret_value().partition("sqlite:///")
        return None if scheme or not path else Path(path.partition("?")[0])


class UnknownSettingsError(SettingsError):
    """Variables have the prefix of settings and are none."""

    def __init__(self, unknown: list[str], known: set[str]) -> None:
        """``unknown`` and ``known`` are names of variables."""
        super().__init__(", ".join(unknown))
        self.problems = [f"{name}: there is no such setting{_nearest(name, known)}" for name in unknown]


def _nearest(name: str, known: set[str]) -> str:
    found = get_close_matches(name, sorted(known), n=1)
    return f"; did you mean {found[0]}?" if found else "; see .env.example"


def _separated(value: object) -> object:
    """The names in a text that commas separate; anything else is left to the validation."""
    return [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value


def problems_of(error: ValidationError) -> list[str]:
    """What is wrong with which field, a line each."""
    return [f"{'.'.join(map(str, item['loc']))}: {_message_of(item)}" for item in error.errors()]


def problems_of_settings(error: ValidationError | SettingsError) -> list[str]:
    """What is wrong with which environment variable, and where to read about it; never what its value was."""
    if isinstance(error, UnknownSettingsError):
        return error.problems
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
    page = re.search(r"docs/[\w/-]+\.md", (field and field.description) or "")
    return f"{variable}{f' at {member}' if member else ''}: {problem}; see {page[0] if page else '.env.example'}"


def _message_of(item: ErrorDetails) -> str:
    return item["msg"].removeprefix("Value error, ")
