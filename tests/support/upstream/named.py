"""Every predefined behaviour by name, for a process that reads its behaviours from a file."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.upstream import behaviours, stream_behaviours
from tests.support.upstream.behaviours import Behaviour

BEHAVIOURS: Mapping[str, Behaviour] = {
    name: value
    for module in (behaviours, stream_behaviours)
    for name, value in vars(module).items()
    if name.isupper() and hasattr(value, "answer")
}
"""The constants of this package that are behaviours."""


@dataclass(frozen=True, kw_only=True)
class ScriptLine:
    """The behaviour for requests whose prompt contains `match`: always, or only for `times` requests."""

    match: str
    behaviour: Behaviour
    times: int | None


def read_script(file: Path) -> Iterator[ScriptLine]:
    """Yield the lines of a script: a JSON list of {"match": …, "behaviour": NAME, "times": optional}.

    Raise `KeyError` for an unknown or missing name.
    """
    for line in json.loads(file.read_text(encoding="utf-8")):
        yield ScriptLine(match=line["match"], behaviour=BEHAVIOURS[line["behaviour"]], times=line.get("times"))
