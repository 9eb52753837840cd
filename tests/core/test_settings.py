"""Settings: invalid values are rejected, and secrets are never shown."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from pixyproxy.core.models.tenant import Visibility
from pixyproxy.core.settings import Settings
from tests.support.server import make_settings

SECRETS = {
    "database_url": "mysql://user:hunter2-db@host/pixyproxy",
    "secret_key": "hunter2-cursors-and-webhook-secrets",
    "openai_api_key": "sk-hunter2",
}


def test_defaults_are_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Settings(_env_file=None, openai_api_key=None)
    assert settings.openai_api_key is None
    assert settings.default_visibility is Visibility.PUBLIC
    assert settings.effective_database_url.get_secret_value() == f"sqlite:///{tmp_path}/var/pixyproxy.db"


@pytest.mark.parametrize("url", ["sqlite:///x.db", "sqlite:////tmp/x.db", "mysql://u:p@h/d", "mariadb://u:p@h:1/d"])
def test_supported_database_url_is_accepted(tmp_path: Path, url: str) -> None:
    assert make_settings(tmp_path, database_url=url).effective_database_url.get_secret_value() == url


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:p@h/d",
        "mysql+pymysql://u:p@h/d",
        "sqlite://",
        "sqlite+aiosqlite:///x",
        "x.db",
        "MYSQL://u:p@h/d",
    ],
)
def test_other_database_url_is_rejected_with_the_supported_ones(tmp_path: Path, url: str) -> None:
    with pytest.raises(ValidationError, match="must start with mysql://, mariadb:// or sqlite:///"):
        make_settings(tmp_path, database_url=url)


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, **SECRETS)
    for shown in (repr(settings), str(settings), settings.model_dump_json(), repr(settings.effective_database_url)):
        assert "hunter2" not in shown


def test_validation_error_does_not_show_the_password(tmp_path: Path) -> None:
    with pytest.raises(ValidationError) as caught:
        make_settings(tmp_path, database_url="postgresql://user:hunter2@host/d")
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in repr(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("log_format", "xml"),
        ("log_level", "LOUD"),
        ("default_visibility", "secret"),
        ("database_pool_size", 0),
        ("database_pool_size", 101),
        ("database_wait_seconds", 0),
        ("upstream_timeout_seconds", -1),
        ("max_picture_bytes", 0),
        ("images_per_minute", 0),
        ("default_model", ""),
        ("public_url", "ftp://host"),
        ("public_url", "https://host/path?query"),
        ("public_url", "https://user@host"),
        ("public_url", "https://host/a%20path"),
        ("cors_origins", "https://app.example.com/"),
        ("cors_origins", "https://App.example.com"),
        ("cors_origins", "app.example.com"),
        ("cors_origins", "null"),
        ("openai_base_url", "not a url"),
        ("secret_key", "x" * 31),
        ("default_size", "large"),
        ("default_quality", ""),
        ("openai_base_url", "https://x.openai.azure.com/openai?api-version=2026-10-01"),
        ("openai_base_url", "https://images.example/v1#here"),
    ],
)
def test_invalid_value_is_rejected(tmp_path: Path, name: str, value: object) -> None:
    with pytest.raises(ValidationError) as caught:
        make_settings(tmp_path, **{name: value})
    assert len(caught.value.errors()) == 1


@pytest.mark.parametrize(
    ("url", "base_url", "prefix"),
    [
        (None, None, ""),
        ("https://host", "https://host", ""),
        ("http://host:8000/", "http://host:8000", ""),
        ("https://host/a/b/", "https://host/a/b", "/a/b"),
    ],
)
def test_public_url_may_have_a_path(tmp_path: Path, url: str | None, base_url: str | None, prefix: str) -> None:
    settings = make_settings(tmp_path, public_url=url)
    assert (settings.base_url, settings.url_prefix) == (base_url, prefix)


def test_origins_are_comma_separated(tmp_path: Path) -> None:
    origins = "https://app.example.com, http://localhost:5173,http://[::1]:3000,chrome-extension://abc,*"
    assert len(make_settings(tmp_path, cors_origins=origins).cors_origins) == 5


def test_settings_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIXYPROXY_DATABASE_POOL_SIZE", "3")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    monkeypatch.setenv("PIXYPROXY_LOG_FORMAT", "")
    settings = Settings(_env_file=None)
    assert settings.database_pool_size == 3
    assert settings.openai_api_key is not None
    assert settings.openai_api_key.get_secret_value() == "sk-x"
    assert settings.log_format == "text"


def test_settings_are_read_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("PIXYPROXY_DATABASE_POOL_SIZE=3\nOTHER=x\n")
    assert Settings().database_pool_size == 3


def test_settings_are_immutable(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    with pytest.raises(ValidationError, match="frozen"):
        settings.log_format = "json"  # type: ignore[misc]  # the subject of this test
