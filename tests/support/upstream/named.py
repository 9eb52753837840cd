"""Every ready-made behaviour by its name, for a process that is told what to do by a file."""

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
    """What requests get whose prompt contains `match`: for good, or only so many `times`."""

    match: str
    behaviour: Behaviour
    times: int | None


def read_script(file: Path) -> Iterator[ScriptLine]:
    """Yield the lines of a script: a JSON list of {"match": …, "behaviour": NAME, "times": optional}.

    Raises `KeyError` for a name that is none, or a line that lacks one.
    """
    for line in json.loads(file.read_text(encoding="utf-8")):
        yield ScriptLine(match=line["match"], behaviour=BEHAVIOURS[line["behaviour"]], times=line.get("times"))
