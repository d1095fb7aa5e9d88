"""What the fold decides: values that the shell carries out."""

from typing import Any

import msgspec


class Dispatch(msgspec.Struct, frozen=True, kw_only=True):
    """Send a WorkItem to a slot."""

    slot: int
    epoch: int
    item: dict[str, Any]


class StopWork(msgspec.Struct, frozen=True, kw_only=True):
    """Send a WorkControl (cancel) to a slot."""

    slot: int
    epoch: int
    job_id: str
    stage: str
    attempt: int


class Tell(msgspec.Struct, frozen=True, kw_only=True):
    """Write a JobEvent; acknowledged before any work that follows from it is sent."""

    event: dict[str, Any]


class Closed(msgspec.Struct, frozen=True, kw_only=True):
    """Write a UserClosed: these jobs of the user have ended, whoever ended them."""

    user_id: str
    job_ids: tuple[str, ...]
    at: int


class Dead(msgspec.Struct, frozen=True, kw_only=True):
    """Write a DeadLetter for a job that the scheduler itself gives up."""

    letter: dict[str, Any]


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """Write a RoutingRule: the guard took an arm back. It is in force already."""

    rule: dict[str, Any]


class Platform(msgspec.Struct, frozen=True, kw_only=True):
    """Write a PlatformEvent."""

    event: dict[str, Any]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Write a DomainLoad."""

    load: dict[str, Any]


class Refuse(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of the record could not be applied; the record goes to the dead letters, the fold goes on."""

    entry: int
    detail: str


Decision = Dispatch | StopWork | Tell | Closed | Dead | Route | Platform | Report | Refuse
