"""A private, real MariaDB server that tests may kill, freeze and start again.

`mysql_databases` yields a maker of empty databases: on the server that
PIXYPROXY_TEST_MYSQL_URL names, else on a private one. Tests of faults start a
`MariaDbServer` of their own.
"""

from tests.support.mariadb.databases import URL_VARIABLE, MySqlDatabases
from tests.support.mariadb.program import MariaDbError, MariaDbProgram, ensure_mariadb
from tests.support.mariadb.server import MariaDbServer, mysql_databases

__all__ = [
    "URL_VARIABLE",
    "MariaDbError",
    "MariaDbProgram",
    "MariaDbServer",
    "MySqlDatabases",
    "ensure_mariadb",
    "mysql_databases",
]
