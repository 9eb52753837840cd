"""Removal of retained answers that are no longer needed."""

from collections.abc import Sequence
from functools import partial

from pixyproxy.core.models.generation import GenerationGuid
from pixyproxy.data.database import Database, Repositories
from pixyproxy.data.files.retained_answers import RetainedAnswers
from pixyproxy.data.threads import run_in_thread

AT_ONCE = 500


async def remove_decided(database: Database, answers: RetainedAnswers) -> None:
    """Remove the retained answers whose generation is resolved, or whose tenant or pictures are erased.

    Raises ``DatabaseException``.
    """
    kept = await run_in_thread(answers.list_all)
    for start in range(0, len(kept), AT_ONCE):
        some = kept[start : start + AT_ONCE]
        guids = [each.guid for each in some]
        needed = await database.read(partial(_find_needed, guids=guids))
        for each in some:
            if each.guid not in needed:
                await run_in_thread(answers.remove, each)


def _find_needed(data: Repositories, *, guids: Sequence[GenerationGuid]) -> set[GenerationGuid]:
    return data.generations.find_undecided(guids)
