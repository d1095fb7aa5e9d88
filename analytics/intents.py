"""What a sink is about to insert, as it stands in Kafka's offset metadata before the insert.

After a crash the next one finds the intent and forms exactly the same block, so that ClickHouse knows its token. A
token alone does not help: the next poll would cut another block (1,212 duplicates of 51,400 rows in a measurement
with 14 kills; none with intents).
"""

import re
from dataclasses import dataclass

_INTENT = re.compile(r"end=(\d{1,19})")


@dataclass(frozen=True, kw_only=True)
class Source:
    """Which log a partition is: a topic that was deleted and made again has another id."""

    cluster_id: str
    topic: str
    topic_id: str
    partition: int


@dataclass(frozen=True, kw_only=True)
class Intent:
    """The records with offsets in [start, end) become one block."""

    start: int
    end: int

    @property
    def metadata(self) -> str:
        """What is committed with offset `start`."""
        return f"end={self.end}"

    def token(self, source: Source, table_epoch: str) -> str:
        """The block's deduplication token. `table_epoch` changes when the table is made anew."""
        place = f"{source.cluster_id}/{source.topic_id}/{source.partition}"
        return f"{place}/{self.start}-{self.end}/{table_epoch}"


def intent_of(start: int, metadata: str | None) -> Intent | None:
    """The intent that a committed offset carries, if any."""
    found = _INTENT.fullmatch(metadata or "")
    if found is None or int(found.group(1)) <= start:
        return None
    return Intent(start=start, end=int(found.group(1)))
