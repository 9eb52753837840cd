"""The slots of this process for executing generations, and the transactions that fill them."""

import asyncio
from dataclasses import dataclass
from typing import TypeVar

from pixyproxy.core.exceptions import DatabaseException
from pixyproxy.data.database import Database, UnitOfWork

Result = TypeVar("Result")


@dataclass
class ProcessSlots:
    """At most ``most`` generations are executed at once; none is started unless ``open``.

    ``in_doubt``: a COMMIT whose result was lost may have given this process orders that it does not know.
    """

    most: int
    open: bool = True
    used: int = 0
    deciding: int = 0
    in_doubt: bool = False

    def take(self, wanted: int) -> int:
        """Reserve up to ``wanted`` slots; return how many. The caller fills them or gives them back."""
        taken = max(0, min(wanted, self.most - self.used)) if self.open else 0
        self.used += taken
        return taken

    def give_back(self, count: int) -> None:
        """Release slots."""
        self.used -= count

    @property
    def next_limit(self) -> int:
        """The number of orders that may start in the slot of a finished one."""
        return 1 if self.open else 0

    async def decide(self, database: Database, work: UnitOfWork[Result]) -> Result:
        """Run a transaction that may give orders to this process. Raise as ``Database.write`` does."""
        self.deciding += 1
        try:
            return await database.write(work)
        except DatabaseException as error:
            self.in_doubt |= error.in_doubt
            raise
        except asyncio.CancelledError:
            # The transaction completed.
            self.in_doubt = True
            raise
        finally:
            self.deciding -= 1
