"""The queue in front of the upstreams: whose turn it is, and how many are in front of a place.

Tenants take turns. A tenant's places that the same upstreams may take stand in one line, and each set of upstreams
has a rotation of the tenants that wait for it. A tenant that got a place at an upstream goes to the end of every
rotation that this upstream serves, and of no other: what a tenant gets of one model takes nothing from it where
another is served. So between two turns of a line, another tenant gets one at each upstream at the most, and where all
ask for the same model, one.
"""

import asyncio
import heapq
import itertools
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

from pixyproxy.core.models.tenant import TenantId

NOTICEABLE = 4
"""A place is told of its position again when about this part of those in front are gone."""

number_of = attrgetter("number")


@dataclass(eq=False)
class Place:
    """A place in the queue.

    ``reach`` has a bit for each upstream that may take it. Whoever joined later has the higher ``number``.
    ``changed`` is there while somebody wants to be told of the position, which was ``told`` when they asked.
    """

    tenant_id: TenantId
    reach: int
    number: int
    waiting: bool = True
    changed: asyncio.Event | None = None
    told: int = 0


@dataclass
class _Line:
    """The places of one tenant that the same upstreams may take, the oldest first; never empty.

    ``turn`` says where the line stands among all lines: the lowest is next.
    """

    turn: int
    places: list[Place] = field(default_factory=list)

    def count_before(self, number: int) -> int:
        return bisect_left(self.places, number, key=number_of)


@dataclass
class FairQueue:
    """Places in the order in which they are served. It knows nothing of time, nor of what is free.

    Leaving moves the later places of a line in memory; for the some thousand that a tenant may have, that is less
    work than any tree.
    """

    tenants: dict[TenantId, dict[int, _Line]] = field(default_factory=dict)
    rotations: dict[int, OrderedDict[TenantId, _Line]] = field(default_factory=dict)
    departures: int = 0
    watched: list[tuple[int, int, Place]] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def reaches(self) -> Sequence[int]:
        """The sets of upstreams that something waits for."""
        return tuple(self.rotations)

    def count_waiting(self, tenant_id: TenantId) -> int:
        """How many places a tenant has."""
        return sum(len(line.places) for line in self.tenants.get(tenant_id, {}).values())

    def count_tenants(self, reach: int) -> int:
        """How many tenants wait for one of these upstreams."""
        return len({tenant for other, turns in self.rotations.items() if other & reach for tenant in turns})

    def join(self, tenant_id: TenantId, reach: int) -> Place:
        """A place behind the tenant's others."""
        place = Place(tenant_id, reach, next(self.numbers))
        lines = self.tenants.setdefault(tenant_id, {})
        if reach not in lines:
            lines[reach] = _Line(turn=place.number)
            self.rotations.setdefault(reach, OrderedDict())[tenant_id] = lines[reach]
        lines[reach].places.append(place)
        return place

    def next_turn(self, reaches: Collection[int]) -> tuple[TenantId, int]:
        """Whose turn it is, and the line that has it, where something is free for each of these lines."""
        heads = ((next(iter(self.rotations[reach].items())), reach) for reach in reaches)
        (tenant_id, _), reach = min(heads, key=lambda head: head[0][1].turn)
        return tenant_id, reach

    def oldest(self, tenant_id: TenantId, reaches: Collection[int]) -> Place:
        """The tenant's oldest place in these lines, one of which it has: it passes over those of other lines."""
        lines = self.tenants[tenant_id]
        return min((lines[reach].places[0] for reach in reaches if reach in lines), key=number_of)

    def serve(self, place: Place, upstream: int) -> None:
        """The place is over, for the upstream of this bit takes it: its tenant goes behind the others."""
        self.leave(place)
        for reach, line in self.tenants.get(place.tenant_id, {}).items():
            if reach & upstream:
                line.turn = next(self.numbers)
                self.rotations[reach].move_to_end(place.tenant_id)

    def leave(self, place: Place) -> None:
        """The place is over."""
        lines = self.tenants[place.tenant_id]
        line = lines[place.reach]
        del line.places[line.count_before(place.number)]
        if not line.places:
            self._close_line(place)
        self.departures += 1
        place.waiting = False
        if place.changed is not None:
            place.changed.set()

    def position(self, place: Place) -> int:
        """1 if it is next; counts whoever waits for one of the same upstreams and would be served before it."""
        reach, lines = place.reach, self.tenants[place.tenant_id]
        turn = lines[reach].turn
        before = sum(line.count_before(place.number) for other, line in lines.items() if other & reach)
        position = before + 1
        for tenant_id, others in self.tenants.items():
            if tenant_id != place.tenant_id:
                position += _count_ahead(others, reach, turn=turn, rounds=before)
        return position

    def watch(self, place: Place) -> asyncio.Event:
        """What is set, for all who watch the place, once its position has noticeably changed or it is over."""
        if place.changed is None:
            place.changed = asyncio.Event()
            place.told = self.position(place)
            self._look_later(place, place.told)
        return place.changed

    def tell_watchers(self) -> None:
        """Set what has to be set.

        A place is looked at when so many are gone as may have moved it noticeably. So of n places that are watched
        only some log n are looked at for each that goes.
        """
        while self.watched and self.watched[0][0] <= self.departures:
            _, _, place = heapq.heappop(self.watched)
            if place.waiting and place.changed is not None:
                self._look_at(place, place.changed)

    def _look_at(self, place: Place, changed: asyncio.Event) -> None:
        position = self.position(place)
        if position == place.told:
            self._look_later(place, position)
        else:
            place.changed = None
            changed.set()

    def _look_later(self, place: Place, position: int) -> None:
        due = self.departures + max(1, position // NOTICEABLE)
        heapq.heappush(self.watched, (due, place.number, place))

    def _close_line(self, place: Place) -> None:
        del self.tenants[place.tenant_id][place.reach]
        if not self.tenants[place.tenant_id]:
            del self.tenants[place.tenant_id]
        del self.rotations[place.reach][place.tenant_id]
        if not self.rotations[place.reach]:
            del self.rotations[place.reach]


def _count_ahead(lines: dict[int, _Line], reach: int, *, turn: int, rounds: int) -> int:
    """How many of another tenant are served first: one a round, and one more if it is this tenant's turn earlier."""
    # Written out, for it is what takes the time where a thousand watch their positions.
    waiting, is_earlier = 0, False
    for other, line in lines.items():
        if other & reach:
            waiting += len(line.places)
            is_earlier = is_earlier or line.turn < turn
    most = rounds + is_earlier
    return min(waiting, most)
