"""The ``images`` table has the required columns."""

from sqlalchemy import Engine, text

from tests.support.databases import TestDatabases, opened_engine

ASKED_FOR = {
    # column: (type, nullable, default, extra) as in MariaDB 10.11's information_schema
    "id": ("int(11)", "NO", None, "auto_increment"),
    "guid": ("varchar(36)", "NO", None, ""),
    "filename": ("varchar(255)", "NO", None, ""),
    # The requirement is TEXT, which holds 65,535 bytes; a prompt takes up to 128,000.
    "prompt": ("mediumtext", "NO", None, ""),
    "created_at": ("timestamp", "YES", "current_timestamp()", ""),
    "updated_at": ("timestamp", "YES", "current_timestamp()", "on update current_timestamp()"),
}
EVERY_TABLE = {"images", "generations", "api_keys", "tenants"}


def _columns(engine: Engine) -> dict[str, tuple[str | None, ...]]:
    statement = """
        SELECT column_name, column_type, is_nullable, column_default, extra FROM information_schema.columns
         WHERE table_schema = DATABASE() AND table_name = 'images' ORDER BY ordinal_position
    """
    with engine.connect() as connection:
        return {row[0]: tuple(row[1:]) for row in connection.execute(text(statement))}


def test_required_columns_come_first_with_their_types(databases: TestDatabases) -> None:
    with opened_engine(databases.migrated("mysql")) as engine:
        columns = _columns(engine)
    assert list(columns)[: len(ASKED_FOR)] == list(ASKED_FOR)
    assert {name: columns[name] for name in ASKED_FOR} == ASKED_FOR


def test_id_is_the_primary_key_and_guid_is_unique(databases: TestDatabases) -> None:
    statement = """
        SELECT index_name, GROUP_CONCAT(column_name ORDER BY seq_in_index) FROM information_schema.statistics
         WHERE table_schema = DATABASE() AND table_name = 'images' AND non_unique = 0 GROUP BY index_name
    """
    with opened_engine(databases.migrated("mysql")) as engine, engine.connect() as connection:
        indexes = {row[0]: row[1] for row in connection.execute(text(statement))}
    assert indexes == {"PRIMARY": "id", "guid": "guid"}


def test_every_table_is_innodb_in_utf8mb4_unicode_ci(databases: TestDatabases) -> None:
    statement = """
        SELECT table_name, engine, table_collation FROM information_schema.tables WHERE table_schema = DATABASE()
    """
    with opened_engine(databases.migrated("mysql")) as engine, engine.connect() as connection:
        tables = {row[0]: tuple(row[1:]) for row in connection.execute(text(statement))}
    assert {name: tables[name] for name in EVERY_TABLE} == dict.fromkeys(EVERY_TABLE, ("InnoDB", "utf8mb4_unicode_ci"))


def test_sqlite_has_the_same_columns_in_the_same_order(databases: TestDatabases) -> None:
    with opened_engine(databases.migrated("mysql")) as engine:
        expected = list(_columns(engine))
    with opened_engine(databases.migrated("sqlite")) as engine, engine.connect() as connection:
        rows = connection.execute(text("SELECT name, type, pk FROM pragma_table_info('images')")).all()
    assert [row[0] for row in rows] == expected
    assert tuple(rows[0]) == ("id", "INTEGER", 1)


def test_times_default_to_the_insertion(databases: TestDatabases) -> None:
    for backend in ("sqlite", "mysql"):
        with opened_engine(databases.migrated(backend)) as engine, engine.connect() as connection:
            connection.execute(text("INSERT INTO tenants (guid, name, default_visibility) VALUES ('g', 'n', 'public')"))
            assert connection.execute(text("SELECT created_at FROM tenants WHERE guid = 'g'")).scalar_one()
            connection.rollback()
