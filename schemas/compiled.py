"""Readers and writers of one schema each, generated as Python code: twice as fast as a walk over the schema, and more.

They know only the plain spelling: one block a list, no block sizes. Whatever they do not know they refuse by some
exception, and schemas.codec then asks fastavro, which reads it after all or says what is wrong. What a reader lets
through is right to the bit: indexes name something, ints have 32 bits, longs 64, text is UTF-8.
Source: Apache Avro 1.12 specification, "Binary encoding".
"""

import struct
from collections.abc import Callable, Mapping
from typing import Any, Final

# A reader takes bytes and where the record begins; it gives the record and where it ended, which may lie behind the end
# of the bytes: the caller compares. A writer appends to a buffer, and leaves a part there when it refuses.
Reader = Callable[[bytes, int], tuple[dict[str, Any], int]]
Writer = Callable[[Mapping[str, Any], bytearray], None]

_INT32: Final = (-(1 << 31), (1 << 31) - 1)
_MOST_SYMBOLS: Final = 64  # so that an index is one byte


class NotCompilable(ValueError):
    """The schema has something that no record of ours uses."""


class Refused(ValueError):
    """Not the plain spelling of a value of this schema, or none at all."""


def compile_reader(schema: Any) -> Reader:
    """The reader of a parsed record schema. Raises NotCompilable."""
    code = _Reading()
    name = code.record(schema)
    read: Reader = code.build()[name]
    return read


def compile_writer(schema: Any) -> Writer:
    """The writer of a parsed record schema. Raises NotCompilable."""
    code = _Writing()
    name = code.record(schema)
    write: Writer = code.build()[name]
    return write


def read_long(b: bytes, i: int) -> tuple[int, int]:
    """The zigzag varint at i, and where it ends. Raises IndexError at the end of the bytes, Refused over 64 bits."""
    value = shift = 0
    while True:
        byte = b[i]
        i += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
        if shift > 63:
            raise Refused
    if value >> 64:
        raise Refused
    return (value >> 1) ^ -(value & 1), i


def write_long(value: Any, out: bytearray) -> None:
    """Appends a zigzag varint. Raises Refused for what is no integer of 64 bits."""
    if value.__class__ is not int or not -(1 << 63) <= value < 1 << 63:
        raise Refused
    rest = (value << 1) ^ (value >> 63)
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)


class _Code:
    """Lines of code, one function for each record type, and the constants that they use."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._names: dict[str, Any] = {
            "Refused": Refused,
            "read_long": read_long,
            "write_long": write_long,
            **{f"unpack_{kind}": struct.Struct(f"<{kind}").unpack_from for kind in "df"},
            **{f"pack_{kind}": struct.Struct(f"<{kind}").pack for kind in "df"},
        }
        self._types: dict[str, Any] = {}
        self._functions: dict[str, str] = {}
        self._count = 0

    def build(self) -> dict[str, Any]:
        """The functions, by name."""
        found = dict(self._names)
        # Made of the names in our own schemas; nothing that came over the wire is in it.
        exec(compile("\n".join(self._lines), "<compiled schema>", "exec"), found)  # noqa: S102
        return found

    def record(self, schema: Any) -> str:
        """The name of a record's function, which is made when it is met first."""
        kind, node = self.resolve(schema)
        if kind != "record":
            raise NotCompilable(f"{kind} where a record belongs")
        name = node["name"].rpartition(".")[2]
        if name not in self._functions:
            self._functions[name] = f"record_{len(self._functions)}"
            outer, self._lines = self._lines, []
            self.body(self._functions[name], node)
            self._lines = [*outer, *self._lines] if not outer else [*self._lines, *outer]
        return self._functions[name]

    def body(self, function: str, node: Any) -> None:
        raise NotImplementedError

    def resolve(self, schema: Any) -> tuple[str, Any]:
        """A type's kind and its full node; a name stands for the type met before."""
        if isinstance(schema, list):
            return "union", schema
        if isinstance(schema, str):
            found = self._types.get(schema.rpartition(".")[2])
            return (schema, schema) if found is None else (found["type"], found)
        if isinstance(schema["type"], (dict, list)):
            return self.resolve(schema["type"])
        if "name" in schema:
            self._types[schema["name"].rpartition(".")[2]] = schema
        return schema["type"], schema

    def emitter(self, kind: str) -> Any:
        emit = getattr(self, f"_{kind}", None)
        if emit is None:
            raise NotCompilable(kind)
        return emit

    def nullable(self, node: Any) -> tuple[int, int, Any]:
        """Zigzags of the indexes of null and of the other branch, and that branch."""
        if len(node) != 2 or node.count("null") != 1:
            raise NotCompilable("a union that is no nullable type")
        null = node.index("null")
        return 2 * null, 2 * (1 - null), node[1 - null]

    def symbols(self, node: Any) -> list[str]:
        if len(node["symbols"]) > _MOST_SYMBOLS:
            raise NotCompilable("an enum of many symbols")
        return list(node["symbols"])

    def add(self, depth: int, *lines: str) -> None:
        self._lines += ["    " * depth + line for line in lines]

    def fresh(self) -> str:
        """A variable of its own."""
        self._count += 1
        return f"v{self._count}"

    def constant(self, value: Any) -> str:
        """A name for a value that the code needs."""
        name = f"c{len(self._names)}"
        self._names[name] = value
        return name


class _Reading(_Code):
    """Code that reads a value at `i` of `b` and moves i behind it."""

    def body(self, function: str, node: Any) -> None:
        self.add(0, f"def {function}(b, i):")
        parts = [f"{field['name']!r}: {self.value(field['type'], 1)}" for field in node["fields"]]
        self.add(1, "return {" + ", ".join(parts) + "}, i")

    def value(self, schema: Any, depth: int) -> str:
        """The variable that holds the value that was read."""
        kind, node = self.resolve(schema)
        variable: str = self.emitter(kind)(node, depth)
        return variable

    def _record(self, node: Any, depth: int) -> str:
        variable = self.fresh()
        self.add(depth, f"{variable}, i = {self.record(node)}(b, i)")
        return variable

    def _null(self, _node: Any, _depth: int) -> str:
        return "None"

    def _union(self, node: Any, depth: int) -> str:
        null, other, branch = self.nullable(node)
        variable = self.fresh()
        self.add(depth, "u = b[i]; i += 1", f"if u == {null}: {variable} = None", f"elif u == {other}:")
        self.add(depth + 1, f"{variable} = {self.value(branch, depth + 1)}")
        self.add(depth, "else: raise Refused")
        return variable

    def _long(self, _node: Any, depth: int) -> str:
        variable = self.fresh()
        self.add(depth, f"{variable} = b[i]")
        self.add(depth, f"if {variable} < 128: {variable} = ({variable} >> 1) ^ -({variable} & 1); i += 1")
        self.add(depth, f"else: {variable}, i = read_long(b, i)")
        return variable

    def _int(self, node: Any, depth: int) -> str:
        variable = self._long(node, depth)
        self.add(depth, f"if not {_INT32[0]} <= {variable} <= {_INT32[1]}: raise Refused")
        return variable

    def _length(self, depth: int) -> None:
        """Leaves in n how many bytes or items follow."""
        self.add(depth, "n = b[i]; i += 1", "if n > 127:")
        self.add(depth + 1, "n, i = read_long(b, i - 1)", "if n < 0: raise Refused")
        self.add(depth, "elif n & 1: raise Refused", "else: n >>= 1")

    def _bytes(self, _node: Any, depth: int) -> str:
        variable = self.fresh()
        self._length(depth)
        self.add(depth, f"n += i; {variable} = b[i:n]; i = n")
        return variable

    def _string(self, _node: Any, depth: int) -> str:
        variable = self.fresh()
        self._length(depth)
        self.add(depth, f"n += i; {variable} = b[i:n].decode(); i = n")
        return variable

    def _boolean(self, _node: Any, depth: int) -> str:
        variable = self.fresh()
        self.add(depth, "u = b[i]; i += 1", "if u > 1: raise Refused", f"{variable} = u == 1")
        return variable

    def _double(self, _node: Any, depth: int) -> str:
        variable = self.fresh()
        self.add(depth, f"{variable} = unpack_d(b, i)[0]; i += 8")
        return variable

    def _float(self, _node: Any, depth: int) -> str:
        variable = self.fresh()
        self.add(depth, f"{variable} = unpack_f(b, i)[0]; i += 4")
        return variable

    def _enum(self, node: Any, depth: int) -> str:
        variable = self.fresh()
        symbols = self.constant({2 * index: symbol for index, symbol in enumerate(self.symbols(node))})
        self.add(depth, f"{variable} = {symbols}[b[i]]; i += 1")
        return variable

    def _array(self, node: Any, depth: int) -> str:
        variable = self._items("[]", depth)
        self.add(depth + 2, f"{variable}.append({self.value(node['items'], depth + 2)})")
        self._last_block(depth)
        return variable

    def _map(self, node: Any, depth: int) -> str:
        variable = self._items("{}", depth)
        key = self._string(None, depth + 2)
        self.add(depth + 2, f"{variable}[{key}] = {self.value(node['values'], depth + 2)}")
        self._last_block(depth)
        return variable

    def _items(self, empty: str, depth: int) -> str:
        variable = self.fresh()
        self.add(depth, f"{variable} = {empty}")
        self._length(depth)
        self.add(depth, "if n:")
        self.add(depth + 1, "for _ in range(n):")
        return variable

    def _last_block(self, depth: int) -> None:
        self.add(depth + 1, "if b[i]: raise Refused", "i += 1")


class _Writing(_Code):
    """Code that appends a value to `out`."""

    def body(self, function: str, node: Any) -> None:
        self.add(0, f"def {function}(r, out):")
        for field in node["fields"]:
            variable, name = self.fresh(), repr(field["name"])
            absent = f".get({name}, {self.constant(field['default'])})" if "default" in field else f"[{name}]"
            self.add(1, f"{variable} = r{absent}")
            self.value(field["type"], variable, 1)
        self.add(1, "return")

    def value(self, schema: Any, variable: str, depth: int) -> None:
        kind, node = self.resolve(schema)
        self.emitter(kind)(node, variable, depth)

    def _record(self, node: Any, variable: str, depth: int) -> None:
        self.add(depth, f"{self.record(node)}({variable}, out)")

    def _null(self, _node: Any, variable: str, depth: int) -> None:
        self.add(depth, f"if {variable} is not None: raise Refused")

    def _union(self, node: Any, variable: str, depth: int) -> None:
        null, other, branch = self.nullable(node)
        self.add(depth, f"if {variable} is None: out.append({null})", "else:")
        self.add(depth + 1, f"out.append({other})")
        self.value(branch, variable, depth + 1)

    def _long(self, _node: Any, variable: str, depth: int) -> None:
        self.add(depth, f"if {variable}.__class__ is int and 0 <= {variable} < 64: out.append({variable} << 1)")
        self.add(depth, f"else: write_long({variable}, out)")

    _int = _long  # fastavro's own writer lets ints of more bits pass as well; readers refuse them

    def _length(self, variable: str, depth: int) -> None:
        self.add(depth, f"n = len({variable})", "if n < 64: out.append(n << 1)", "else: write_long(n, out)")

    def _string(self, _node: Any, variable: str, depth: int) -> None:
        self.add(depth, f"s = {variable}.encode()")
        self._length("s", depth)
        self.add(depth, "out += s")

    def _bytes(self, _node: Any, variable: str, depth: int) -> None:
        self.add(depth, f"if {variable}.__class__ is not bytes: raise Refused")
        self._length(variable, depth)
        self.add(depth, f"out += {variable}")

    def _boolean(self, _node: Any, variable: str, depth: int) -> None:
        self.add(depth, f"if {variable}.__class__ is not bool: raise Refused", f"out.append({variable})")

    def _double(self, _node: Any, variable: str, depth: int) -> None:
        self.add(depth, f"if {variable}.__class__ is not float: raise Refused", f"out += pack_d({variable})")

    def _float(self, _node: Any, variable: str, depth: int) -> None:
        self.add(depth, f"if {variable}.__class__ is not float: raise Refused", f"out += pack_f({variable})")

    def _enum(self, node: Any, variable: str, depth: int) -> None:
        symbols = self.constant({symbol: 2 * index for index, symbol in enumerate(self.symbols(node))})
        self.add(depth, f"out.append({symbols}[{variable}])")

    def _array(self, node: Any, variable: str, depth: int) -> None:
        item = self.fresh()
        self.add(depth, f"if {variable}.__class__ is not list and {variable}.__class__ is not tuple: raise Refused")
        self.add(depth, f"if {variable}:")
        self.add(depth + 1, f"write_long(len({variable}), out)", f"for {item} in {variable}:")
        self.value(node["items"], item, depth + 2)
        self.add(depth, "out.append(0)")

    def _map(self, node: Any, variable: str, depth: int) -> None:
        key, item = self.fresh(), self.fresh()
        self.add(depth, f"if {variable}.__class__ is not dict: raise Refused", f"if {variable}:")
        self.add(depth + 1, f"write_long(len({variable}), out)", f"for {key}, {item} in {variable}.items():")
        self._string(None, key, depth + 2)
        self.value(node["values"], item, depth + 2)
        self.add(depth, "out.append(0)")
