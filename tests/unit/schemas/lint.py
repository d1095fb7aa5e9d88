"""Rules for our schemas. Each is there because breaking it would let a stranger's bytes hurt a reader.

Recursion overflows the C stack of fastavro (5 kB kill the process), arrays of items without bytes expand without
bound, decimals over bytes cost quadratic time, and a union of two types tempts readers to guess.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

MAX_DEPTH = 16
PRIMITIVES = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})
TYPE_NAME = re.compile(r"[A-Z][A-Za-z0-9]*")
FIELD_NAME = re.compile(r"[a-z][a-z0-9_]*")


def problems(schema: Mapping[str, Any]) -> list[str]:
    """What is wrong with a record schema; empty when nothing is."""
    found = [] if schema.get("namespace") == "meshyard" else ["the namespace is not meshyard"]
    return found + list(_check(schema, {}, (), 0))


def _check(node: Any, named: dict[str, Any], open_names: tuple[str, ...], depth: int) -> Iterator[str]:
    where = "/".join(open_names)
    if depth > MAX_DEPTH:
        yield f"{where}: deeper than {MAX_DEPTH}"
        return
    if isinstance(node, list):
        yield from _check_union(node, named, open_names, depth)
    elif isinstance(node, str):
        if node.removeprefix("meshyard.") in open_names:
            yield f"{where}: recursion by {node}"
        elif node not in PRIMITIVES:
            if node.removeprefix("meshyard.") in named:  # its depth counts here as well
                yield from _check(named[node.removeprefix("meshyard.")], named, open_names, depth)
            else:
                yield f"{where}: unknown type {node}"
    elif node["type"] in ("record", "enum"):
        yield from _check_named(node, named, open_names, depth)
    elif node["type"] == "array":
        if not _has_bytes(node["items"], named):
            yield f"{where}: an array of items without bytes"
        yield from _check(node["items"], named, open_names, depth + 1)
    elif node["type"] == "map":
        yield from _check(node["values"], named, open_names, depth + 1)
    else:
        if node["type"] not in PRIMITIVES:
            yield f"{where}: unknown type {node['type']}"
        if node.get("logicalType") not in (None, "timestamp-millis"):
            yield f"{where}: logical type {node['logicalType']}; use long micro-units for decimals"


def _check_union(node: list[Any], named: dict[str, Any], open_names: tuple[str, ...], depth: int) -> Iterator[str]:
    if len(node) != 2 or node[0] != "null" or node[1] == "null" or isinstance(node[1], list):
        yield f"{'/'.join(open_names)}: a union that is not [null, T]"
    for branch in node:
        yield from _check(branch, named, open_names, depth + 1)


def _check_named(
    node: Mapping[str, Any], named: dict[str, Any], open_names: tuple[str, ...], depth: int
) -> Iterator[str]:
    name = node["name"]
    if not TYPE_NAME.fullmatch(name):
        yield f"{name}: a type's name is CamelCase"
    if not node.get("doc"):
        yield f"{name}: no doc"
    named[name] = node
    if node["type"] == "enum":
        yield from (f"{name}: symbol {s} is not snake_case" for s in node["symbols"] if not FIELD_NAME.fullmatch(s))
        return
    if not node["fields"]:
        yield f"{name}: no fields"
    inside = (*open_names, name)
    for field in node["fields"]:
        where = "/".join((*inside, field["name"]))
        if not FIELD_NAME.fullmatch(field["name"]):
            yield f"{where}: a field's name is snake_case"
        if not field.get("doc"):
            yield f"{where}: no doc"
        if isinstance(field["type"], list) and field.get("default", "") is not None:
            yield f"{where}: the default of a nullable field is null"
        yield from _check(field["type"], named, inside, depth + 1)


def _has_bytes(node: Any, named: Mapping[str, Any]) -> bool:
    """Whether each value of a type takes at least one byte."""
    if isinstance(node, str):
        node = named.get(node.removeprefix("meshyard."), node)
    if isinstance(node, dict) and node["type"] == "record":
        return any(_has_bytes(field["type"], named) for field in node["fields"])
    return bool(node != "null")
