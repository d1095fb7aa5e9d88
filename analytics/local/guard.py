"""What a client may ask of the embedded server, decided on the query's tokens before the engine sees it.

chDB is a command line tool's engine: `file('/etc/passwd')`, `INTO OUTFILE`, `url()`, `python()` work in it, and
`readonly = 1` does not stop them. A server must not hand the machine's files and network to its clients, so
table functions and engines are an allow-list here; whatever a newer engine adds is refused until it is listed.
"""

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from analytics.local.errors import Code, EngineError

MAX_SELECT_BYTES = 262_144  # ClickHouse's own default of max_query_size
MAX_INSERT_BYTES = 1_048_576  # an INSERT's text may carry its rows; many rows come as blocks

_TOKEN = re.compile(
    r"""(?P<comment>--[^\n]*|\#[\ !][^\n]*|/\*.*?\*/)
      | (?P<heredoc>\$(?P<tag>\w*)\$.*?\$(?P=tag)\$)
      | (?P<string>'(?:[^'\\]|\\.|'')*')
      | (?P<quoted>"(?:[^"\\]|\\.|"")*"|`(?:[^`\\]|\\.|``)*`)
      | (?P<word>[^\W\d][\w$]*)
      | (?P<number>\d[\w$]*(?:\.[\w$]+)?)
      | (?P<symbol>\S)""",
    re.VERBOSE | re.DOTALL,
)
_SAFE_TABLE_FUNCTIONS = frozenset(
    {"dictionary", "format", "generaterandom", "generateseries", "generate_series", "loop", "merge", "null", "numbers"}
    | {
        "mergetreeindex",
        "numbers_mt",
        "primes",
        "values",
        "sqlstandardvalues",
        "view",
        "viewexplain",
        "viewifpermitted",
    }
    | {"zeros", "zeros_mt"}
)
_REFUSED_FUNCTIONS = frozenset({"file", "disk", "addresstoline", "addresstolinewithinlines"})
_SAFE_ENGINES = re.compile(
    r"(replacing|summing|aggregating|collapsing|versionedcollapsing|graphite|coalescing)?mergetree"
    r"|memory|null|log|tinylog|stripelog|join|set|buffer|merge|generaterandom|view|materializedview|atomic"
)
STATEMENTS = frozenset(
    {"select", "with", "from", "show", "describe", "desc", "exists", "explain", "insert", "create", "alter", "drop"}
    | {"truncate", "rename", "exchange", "optimize", "set", "use", "kill", "check", "delete", "update", "detach"}
    | {"undrop", "system"}
)
_CREATABLE = frozenset({"database", "table", "temporary", "view", "materialized", "or", "function"})
_SYSTEM_VERBS = frozenset({"stop", "start", "sync", "flush", "wait", "drop", "clear"})
_REFUSED_SETTINGS = frozenset({"format_schema", "format_schema_source", "format_schema_message_name"})
_INSERT_SOURCES = frozenset({"values", "format", "select", "with", "from", "watch"})
_CLAUSES_AFTER_FORMAT = frozenset({"settings", ";"})


class Kind(Enum):
    """How the server has to run a statement."""

    SELECT = "select"  # rows, streamed
    ROWS = "rows"  # rows, in one piece: SHOW, DESCRIBE, EXPLAIN, ...
    INSERT_DATA = "insert data"  # the client's blocks follow
    COMMAND = "command"  # everything else; no rows


@dataclass(frozen=True, kw_only=True)
class Insert:
    """An INSERT whose rows come as blocks: its text up to VALUES or FORMAT, its table, its columns if it names any."""

    prefix: str
    table: str
    columns: tuple[str, ...] | None


@dataclass(frozen=True, kw_only=True)
class Statement:
    """A checked query: the text to run (without FORMAT) and how."""

    kind: Kind
    text: str
    first: str
    insert: Insert | None = None


@dataclass(frozen=True, kw_only=True)
class _Token:
    group: str
    text: str
    start: int
    end: int

    @property
    def name(self) -> str:
        """The lower-case word or unquoted identifier; other tokens give themselves."""
        return self.unquoted.lower() if self.group in ("quoted", "word") else self.text

    @property
    def unquoted(self) -> str:
        """An identifier as it is meant: without its quotes and escapes."""
        if self.group != "quoted":
            return self.text
        return re.sub(r"\\(.)|([\"`])\2", r"\1\2", self.text[1:-1])


class Guard:
    """Checks statements. `table_functions` are the engine's own names of all its table functions."""

    def __init__(self, table_functions: frozenset[str]) -> None:
        unsafe = {name.lower() for name in table_functions} - _SAFE_TABLE_FUNCTIONS
        self._refused_functions = frozenset(unsafe | _REFUSED_FUNCTIONS)

    def check_setting(self, name: str) -> None:
        """Raises EngineError (ACCESS_DENIED) for a setting that opens files."""
        if name.lower() in _REFUSED_SETTINGS:
            raise EngineError(Code.ACCESS_DENIED, f"Setting {name} is not allowed on this server")

    def examine(self, query: str) -> Statement:
        """Classifies a query.

        Raises:
            EngineError: SYNTAX_ERROR (too long, more than one statement, empty), ACCESS_DENIED (files,
                network, programs, access control).
        """
        text = query.strip().rstrip(";").rstrip()
        first = next((token.name for token in _read(text) if token.text != "("), "")
        if len(text) > (MAX_INSERT_BYTES if first == "insert" else MAX_SELECT_BYTES):
            raise _too_long()
        tokens = list(_read(text))
        if not first:
            raise EngineError(Code.SYNTAX_ERROR, "Syntax error: Empty query")
        if first == "insert":
            return self._insert(text, tokens)
        if any(token.text == ";" for token in tokens):
            raise EngineError(Code.SYNTAX_ERROR, "Syntax error: Multi-statements are not allowed")
        self._check(first, tokens)
        if first in ("select", "with", "from") and not _inserts(tokens):
            return Statement(kind=Kind.SELECT, text=_without_format(text, tokens), first=first)
        if first in ("show", "describe", "desc", "exists", "explain", "check", "kill"):
            return Statement(kind=Kind.ROWS, text=_without_format(text, tokens), first=first)
        return Statement(kind=Kind.COMMAND, text=text, first=first)

    def _check(self, first: str, tokens: list[_Token]) -> None:
        following = [*tokens[1:], None]
        for token, after in zip(tokens, following, strict=True):
            self._check_pair(token, after)
        names = [token.name for token in tokens]
        if first == "create" and len(names) > 1 and names[1] not in _CREATABLE:
            raise _denied(f"CREATE {names[1].upper()} is")
        if first == "create" and "dictionary" in names[1:5]:
            raise _denied("CREATE DICTIONARY is")
        if first in ("drop", "detach", "rename") and "database" in names[1:2] and "default" in names[2:5]:
            raise _denied(f"{first.upper()} DATABASE default is")  # the engine's connections start in it
        if first == "system" and len(names) > 1 and names[1] not in _SYSTEM_VERBS:
            raise _denied(f"SYSTEM {names[1].upper()} is")
        if first in ("create", "alter"):
            _check_engines(tokens)

    def _check_pair(self, token: _Token, after: _Token | None) -> None:
        if token.group not in ("word", "quoted"):
            return
        following = after.name if after is not None else ""
        if following == "(" and token.name in self._refused_functions:
            raise _denied(f"Function {token.name} is")
        if (token.name, following) in (("into", "outfile"), ("from", "infile")):
            raise _denied(f"{token.name.upper()} {following.upper()} is")
        if following == "=":
            self.check_setting(token.name)

    def _insert(self, text: str, tokens: list[_Token]) -> Statement:
        head, depth = [], 0
        marker: _Token | None = None
        for token in tokens:
            depth += {"(": 1, ")": -1}.get(token.text, 0)
            if depth == 0 and token.group == "word" and token.name in _INSERT_SOURCES:
                marker = token
                break
            head.append(token)
        if marker is not None and marker.end > MAX_SELECT_BYTES:
            raise _too_long()
        if any(token.name == "function" for token in head[:4]):
            raise _denied("INSERT INTO FUNCTION is")
        self._check("insert", [token for token in head if token.text != "("])
        if marker is not None and marker.name not in ("values", "format"):
            self._check("insert", tokens[len(head) :])
            return Statement(kind=Kind.COMMAND, text=text, first="insert")
        if marker is not None and _has_rows(marker, tokens[len(head) + 1 :]):
            if marker.name == "values":  # these are expressions
                self._check("insert", tokens[len(head) :])
            return Statement(kind=Kind.COMMAND, text=text, first="insert")
        prefix = text[: marker.start] if marker is not None else text
        return Statement(kind=Kind.INSERT_DATA, text=prefix, first="insert", insert=_target(prefix, head))


def _read(text: str) -> Iterator[_Token]:
    for found in _TOKEN.finditer(text):
        if found.lastgroup not in ("comment", "tag") or found.group("heredoc"):
            yield _Token(group=found.lastgroup or "symbol", text=found.group(), start=found.start(), end=found.end())


def _denied(what: str) -> EngineError:
    return EngineError(Code.ACCESS_DENIED, f"{what} not allowed on this server")


def _too_long() -> EngineError:
    return EngineError(
        Code.SYNTAX_ERROR, f"Syntax error: Max query size exceeded (max_query_size = {MAX_SELECT_BYTES})"
    )


def _inserts(tokens: list[_Token]) -> bool:
    """`WITH ... INSERT INTO` writes although it starts like a SELECT."""
    return any(
        token.name == "insert" and after.name == "into" and token.group == "word"
        for token, after in itertools.pairwise(tokens)
    )


def _without_format(text: str, tokens: list[_Token]) -> str:
    """Drops `FORMAT name`: over the native protocol the client formats, and the engine must answer in Native."""
    depth = 0
    for index, token in enumerate(tokens[:-1]):
        depth += {"(": 1, ")": -1}.get(token.text, 0)
        after = tokens[index + 2].name if index + 2 < len(tokens) else ";"
        is_format = token.group == "word" and token.name == "format" and tokens[index + 1].group == "word"
        if depth == 0 and is_format and after in _CLAUSES_AFTER_FORMAT:
            return text[: token.start] + text[tokens[index + 1].end :]
    return text


def _check_engines(tokens: list[_Token]) -> None:
    for index, token in enumerate(tokens[:-1]):
        if token.name != "engine" or token.group != "word":
            continue
        after = tokens[index + 2] if tokens[index + 1].text == "=" and index + 2 < len(tokens) else tokens[index + 1]
        if after.group in ("word", "quoted") and not _SAFE_ENGINES.fullmatch(after.name):
            raise _denied(f"Engine {after.text} is")


def _has_rows(marker: _Token, rest: list[_Token]) -> bool:
    """Whether the statement carries its rows inline: anything behind VALUES, or behind FORMAT's name."""
    if marker.name == "values":
        return bool(rest)
    return len(rest) > 1


def _target(prefix: str, head: list[_Token]) -> Insert:
    """Table and column names of `INSERT INTO [TABLE] [db.]table [(columns)] [SETTINGS ...]`."""
    at = 1
    while at < len(head) and head[at].group == "word" and head[at].name in ("into", "table"):
        at += 1
    start = at
    while at + 1 < len(head) and head[at + 1].text == ".":
        at += 2
    if at >= len(head):
        raise EngineError(Code.SYNTAX_ERROR, f"Syntax error: failed at the end: {prefix}. Expected a table")
    table = prefix[head[start].start : head[at].end]
    at += 1
    if at >= len(head) or head[at].text != "(":
        return Insert(prefix=prefix, table=table, columns=None)
    names: list[str] = []
    part = ""
    for token in head[at + 1 :]:
        if token.text in (",", ")"):
            names.append(part)
            part = ""
            if token.text == ")":
                break
        elif token.group in ("word", "quoted", "number") or token.text == ".":
            part += token.unquoted
        else:
            raise EngineError(
                Code.NOT_IMPLEMENTED, "An INSERT's list must name its columns here; it cannot be * EXCEPT"
            )
    return Insert(prefix=prefix, table=table, columns=tuple(names))
