"""Errors of the embedded server. `EngineError` crosses the wire as ClickHouse's exception packet."""

import re
from enum import IntEnum
from pathlib import Path

_SERVER_ERROR = re.compile(r"Code: (\d+)\. (DB::Exception: .*)", re.DOTALL)


class Code(IntEnum):
    """The codes of ClickHouse's ErrorCodes.cpp that the server itself raises."""

    NO_SUCH_COLUMN_IN_TABLE = 16
    CANNOT_READ_ALL_DATA = 33
    ILLEGAL_COLUMN = 44
    NOT_IMPLEMENTED = 48
    UNKNOWN_TYPE = 50
    SYNTAX_ERROR = 62
    UNEXPECTED_PACKET_FROM_CLIENT = 101
    QUERY_WAS_CANCELLED = 394
    ACCESS_DENIED = 497
    AUTHENTICATION_FAILED = 516
    STD_EXCEPTION = 1001


class EngineError(Exception):
    """A query failed: ClickHouse's error code and message, as a server would report them."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"Code: {code}. {message}")
        self.code = code
        self.message = message if message.startswith("DB::Exception") else f"DB::Exception: {message}"

    @classmethod
    def from_engine(cls, error: BaseException) -> "EngineError":
        """Reads code and message out of chDB's exception text."""
        text = str(error)
        found = _SERVER_ERROR.search(text)
        if found is None:
            return cls(Code.STD_EXCEPTION, text)
        return cls(int(found.group(1)), found.group(2))


class DataDirectoryLockedError(Exception):
    """Another process serves this data directory; two engines on one directory would corrupt it."""

    def __init__(self, directory: Path, pid: int | None) -> None:
        holder = f"process {pid}" if pid is not None else "another process"
        super().__init__(f"{directory} is in use by {holder}; stop it or choose another data directory")
        self.directory = directory
        self.pid = pid
