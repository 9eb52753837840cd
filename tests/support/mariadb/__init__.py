"""A private, real MariaDB server that tests may kill, freeze and restart.

`mysql_databases` yields a creator of empty databases, on the server of PIXYPROXY_TEST_MYSQL_URL or else on a private
one. Fault tests start their own `MariaDbServer`.
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
