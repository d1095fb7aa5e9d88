"""What the fold decides: values that the shell carries out."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Dispatch:
    """Send a WorkItem to a slot."""

    slot: int
    epoch: int
    item: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class StopWork:
    """Send a WorkControl (cancel) to a slot."""

    slot: int
    epoch: int
    job_id: str
    stage: str
    attempt: int


@dataclass(frozen=True, kw_only=True)
class Tell:
    """Write a JobEvent; acknowledged before any work that follows from it is sent."""

    event: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Report:
    """Write a DomainLoad."""

    load: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Refuse:
    """An entry of the record could not be applied; the record goes to the dead letters, the fold goes on."""

    entry: int
    detail: str


Decision = Dispatch | StopWork | Tell | Report | Refuse
