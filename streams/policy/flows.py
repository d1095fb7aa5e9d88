"""What the fair queue is made of: the numbers that a snapshot keeps, tasks, and the structures derived from both."""

from collections.abc import Container
from typing import NamedTuple

import msgspec


class Flow(msgspec.Struct, kw_only=True, gc=False):
    """One user's place in one lane. order: when the flow was first seen, breaks ties; tag: start tag of the next
    task."""

    order: int
    tag: float = 0.0


class LaneClock(msgspec.Struct, kw_only=True):
    """A lane: its own tag in the upper level, and the clock of the users in it. stalled: kinds that wait and that
    nobody can serve, with the lane's and the upper level's virtual time when that began."""

    tag: float = 0.0
    virtual_time: float = 0.0
    greatest_finish: float = 0.0
    flows: dict[str, Flow] = {}
    stalled: dict[str, tuple[float, float]] = {}


class Clockwork(msgspec.Struct, kw_only=True):
    """The queue's own numbers, which a snapshot keeps. virtual_time and greatest_finish: of the upper level, in
    GPU-seconds per unit of weight; weights: of users that differ from 1."""

    virtual_time: float = 0.0
    greatest_finish: float = 0.0
    flows_seen: int = 0
    lanes: dict[str, LaneClock] = {}
    weights: dict[str, float] = {}


class Task(msgspec.Struct, frozen=True, order=True, gc=False):
    """What waits. Tasks of a user compare in the order of dispatch. kind: what a server must support."""

    priority: int
    sequence: int
    job_id: str
    user_id: str
    lane: str
    kind: str


class Head(NamedTuple):
    """The next task of a kind in a lane; heads of one lane compare in the order of dispatch."""

    tag: float
    order: int
    priority: int
    sequence: int
    user_id: str
    job_id: str


class Tasks(list[Task]):
    """A heap of one user's tasks of one kind in one lane. offered: the tag of its entry among the kind's offers, None
    without one. An offer never promises less than it holds: it is at or below the user's tag, and is corrected when it
    comes up, so that only a tag that falls needs a new entry at once."""

    __slots__ = ("dead", "offered")

    def __init__(self) -> None:
        super().__init__()
        self.offered: float | None = None
        self.dead = 0


class Waiting:
    """The tasks of one user in one lane, by kind. count: without dead ones."""

    __slots__ = ("count", "heaps")

    def __init__(self) -> None:
        self.heaps: dict[str, Tasks] = {}
        self.count = 0

    def only(self, kinds: Container[str]) -> bool:
        """Whether all that waits is of these kinds."""
        return all(kind in kinds for kind, tasks in self.heaps.items() if tasks)


class Lane:
    """Derived structures of one lane."""

    def __init__(self, name: str, clock: LaneClock, weight: float) -> None:
        self.name = name
        self.clock = clock
        self.weight = weight
        self.count = 0  # tasks that wait, of parked users too
        self.active = 0  # users with tasks that wait, the parked ones left out
        self.users: dict[str, Waiting] = {}
        self.offers: dict[str, list[tuple[float, int, str]]] = {}  # kind -> heap of (tag, order, user)
        self.kinds: dict[str, int] = {}  # kind -> tasks that wait
