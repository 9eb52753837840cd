"""A search compares words only with what its viewer may see: the time of a comparison tells whether words are there."""

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
    """What the database has folded to lower case, in order to compare it, since a test began."""

    connection: Connection
    in_sqlite: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All of it."""
        if self.connection.dialect.name == "sqlite":
            return "".join(self.in_sqlite)
        return str(self.connection.execute(text("SELECT COALESCE(@noted, '')")).scalar_one())

    def lower(self, value: str) -> str:
        """Fold a text as SQLite's ``LOWER`` of ours does, and note it."""
        self.in_sqlite.append(value)
        return value.casefold()


@pytest.fixture
def noting(backend: str, databases: TestDatabases, data: Repositories) -> Iterator[Noting]:
    """Have every statement of ``data`` call a ``LOWER`` that notes what it is given."""
    noting = Noting(data.connection)
    if backend == "sqlite":
        driver: Any = data.connection.connection.driver_connection
        driver.create_function("noting_lower", 1, noting.lower)
    else:
        # On a connection of its own, since it commits.
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
def test_a_search_reads_no_text_that_its_viewer_may_not_see(
    column: str, data: Repositories, tenant: Tenant, stranger: Tenant, noting: Noting
) -> None:
    add_image(data, tenant, visibility=Visibility.PRIVATE, **{column: "a hidden fox"})
    own = add_image(data, stranger, visibility=Visibility.PRIVATE, **{column: "a fox of my own"})
    for mine in (False, True):
        wanted = ImageFilter(mine=mine, **{column: "fox"})
        assert data.images.list_visible(wanted, tenant_id=stranger.id, before=None, limit=9) == [own]
    assert "of my own" in noting.text
    assert "hidden" not in noting.text
