"""Searches compare only texts visible to the viewer: otherwise their duration would reveal private words."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy import Connection, event, text

from pixyproxy.core.models.image import ImageFilter
from pixyproxy.core.models.tenant import Tenant, Visibility
from pixyproxy.data.database import Repositories
from tests.support.builders import add_image
from tests.support.databases import TestDatabases

NOTING_LOWER = """
    CREATE FUNCTION IF NOT EXISTS noting_lower(value MEDIUMTEXT) RETURNS MEDIUMTEXT DETERMINISTIC NO SQL
    BEGIN
        SET @noted = CONCAT(COALESCE(@noted, ''), value);
        RETURN LOWER(value);
    END
"""


@dataclass(frozen=True)
class Noting:
    """Records the texts that the database folds to lower case for comparison."""

    connection: Connection
    in_sqlite: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All recorded texts."""
        if self.connection.dialect.name == "sqlite":
            return "".join(self.in_sqlite)
        return str(self.connection.execute(text("SELECT COALESCE(@noted, '')")).scalar_one())

    def lower(self, value: str) -> str:
        """Fold a text like the ``LOWER`` registered for SQLite, and record it."""
        self.in_sqlite.append(value)
        return value.casefold()


@pytest.fixture
def noting(backend: str, databases: TestDatabases, data: Repositories) -> Iterator[Noting]:
    """Make statements of ``data`` call a ``LOWER`` that records its arguments."""
    noting = Noting(data.connection)
    if backend == "sqlite":
        driver: Any = data.connection.connection.driver_connection
        driver.create_function("noting_lower", 1, noting.lower)
    else:
        # On its own connection, since it commits.
        with databases.engine(backend).connect() as connection:
            connection.execute(text(NOTING_LOWER))
        data.connection.execute(text("SET @noted = ''"))

    def use_it(*arguments: object) -> tuple[str, object]:
        _, _, statement, parameters, *_ = arguments
        return str(statement).replace("LOWER(", "noting_lower("), parameters

    event.listen(data.connection, "before_cursor_execute", use_it, retval=True)
    yield noting
    event.remove(data.connection, "before_cursor_execute", use_it)


@pytest.mark.parametrize("column", ["prompt", "filename"])
def test_search_reads_only_texts_visible_to_the_viewer(
    column: str, data: Repositories, tenant: Tenant, stranger: Tenant, noting: Noting
) -> None:
    add_image(data, tenant, visibility=Visibility.PRIVATE, **{column: "a hidden fox"})
    own = add_image(data, stranger, visibility=Visibility.PRIVATE, **{column: "a fox of my own"})
    for mine in (False, True):
        wanted = ImageFilter(mine=mine, **{column: "fox"})
        assert data.images.list_visible(wanted, tenant_id=stranger.id, before=None, limit=9) == [own]
    assert "of my own" in noting.text
    assert "hidden" not in noting.text
