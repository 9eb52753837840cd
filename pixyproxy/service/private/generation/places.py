"""How many generations this process executes at once, and the transactions that give it more."""

import asyncio
from dataclasses import dataclass
from typing import TypeVar

from pixyproxy.core.exceptions import DatabaseException
from pixyproxy.data.database import Database, UnitOfWork

Result = TypeVar("Result")


@dataclass
class Places:
    """At most ``most`` generations are executed at once; none is begun while not ``open``.

    ``in_doubt``: a transaction may have given this process orders that it knows nothing of.
    """

    most: int
    open: bool = True
    used: int = 0
    deciding: int = 0
    in_doubt: bool = False

    def take(self, wanted: int) -> int:
        """Return how many of the places that are wanted are this caller's, which gives them back or fills them."""
        taken = max(0, min(wanted, self.most - self.used)) if self.open else 0
        self.used += taken
        return taken

    def give_back(self, count: int) -> None:
        """Let others have places."""
        self.used -= count

    @property
    def next_limit(self) -> int:
        """How many orders may be begun in the place of one that is over."""
        return 1 if self.open else 0

    async def decide(self, database: Database, work: UnitOfWork[Result]) -> Result:
        """Run a transaction that may give orders to this process. Raises as ``Database.write`` does."""
        self.deciding += 1
        try:
            return await database.write(work)
        except DatabaseException as error:
            self.in_doubt |= error.in_doubt
            raise
        except asyncio.CancelledError:
            # The transaction ran to its end.
            self.in_doubt = True
            raise
        finally:
            self.deciding -= 1
