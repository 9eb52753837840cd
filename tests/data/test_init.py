"""Opening the database."""

from pathlib import Path

import pytest
from sqlalchemy import text

from pixyproxy.core.exceptions import PixyProxyException, SchemaException
from pixyproxy.data.init import open_database
from tests.support.builders import add_tenant
from tests.support.databases import TestDatabases, opened_engine
from tests.support.mariadb import MySqlDatabases
from tests.support.server import make_settings

pytestmark = pytest.mark.anyio


async def test_empty_database_is_migrated_when_opened(databases: TestDatabases, backend: str, tmp_path: Path) -> None:
    settings = make_settings(tmp_path, database_url=databases.new(backend), database_pool_size=3)
    database = await open_database(settings)
    tenant = await database.write(add_tenant)
    await database.close()
    again = await open_database(settings)
    assert await again.read(lambda data: data.tenants.list_all()) == [tenant]
    assert again.slots.total_tokens == 3
    await again.close()


async def test_default_database_is_sqlite_in_the_data_folder(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    await (await open_database(settings)).close()
    assert (settings.data_dir / "pixyproxy.db").is_file()


async def test_newer_schema_is_rejected(databases: TestDatabases, backend: str, tmp_path: Path) -> None:
    settings = make_settings(tmp_path, database_url=databases.new(backend))
    await (await open_database(settings)).close()
    with opened_engine(settings.effective_database_url.get_secret_value()) as engine, engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(SchemaException, match="9999"):
        await open_database(settings)


async def test_invalid_sqlite_file_raises_pixyproxy_exception(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    path.write_text("these are notes and no database " * 100)
    with pytest.raises(PixyProxyException):
        await open_database(make_settings(tmp_path, database_url=f"sqlite:///{path}"))


@pytest.mark.parametrize("part", ["no database", "port", "password"])
async def test_invalid_url_raises_pixyproxy_exception_without_the_password(
    part: str, mysql_server: MySqlDatabases, tmp_path: Path
) -> None:
    urls = {
        "no database": mysql_server.server_url,
        "port": "mysql://user:hunter2@127.0.0.1:port/pixyproxy",
        "password": mysql_server.server_url.partition("@")[0]
        + "x:hunter2@"
        + mysql_server.server_url.partition("@")[2]
        + "/x",
    }
    with pytest.raises(PixyProxyException) as caught:
        await open_database(make_settings(tmp_path, database_url=urls[part]))
    assert "hunter2" not in str(caught.value)
