"""Native blocks as clients of the native protocol's versions want them.

Over HTTP the engine writes a block as: columns, rows, and for each column name, type, values. A
client that names a version of the protocol (clickhouse-go does) wants block information before it,
and since version 54454 a zero byte before the values of each column. To place those bytes one has
to know where a column ends, and for that its type.
"""

import re

from alpha_pulse.embedded.front.failures import NOT_IMPLEMENTED, QueryFailure
from alpha_pulse.embedded.front.formats import read_varint

FLAG_SINCE_VERSION = 54454
# Field 1: is_overflows = 0; field 2: bucket_num = -1; end.
_BLOCK_INFO = b"\x01\x00\x02\xff\xff\xff\xff\x00"
_WIDTHS = {
    "Bool": 1,
    "Date": 2,
    "Date32": 4,
    "DateTime": 4,
    "DateTime64": 8,
    "Decimal32": 4,
    "Decimal64": 8,
    "Decimal128": 16,
    "Decimal256": 32,
    "BFloat16": 2,
    "Enum8": 1,
    "Enum16": 2,
    "Float32": 4,
    "Float64": 8,
    "IPv4": 4,
    "IPv6": 16,
    "Nothing": 1,
    "Time": 4,
    "Time64": 8,
    "UUID": 16,
} | {f"{sign}nt{bits}": bits // 8 for sign in ("I", "UI") for bits in (8, 16, 32, 64, 128, 256)}
_TYPE = re.compile(r"(\w+)(?:\((.*)\))?\Z", re.DOTALL)
_TUPLE_NAME = re.compile(r"(?:\w+|`(?:[^`\\]|\\.)*`)\s+(?=[A-Z]\w*)")
# The order of a dictionary's key width: 1, 2, 4, 8 bytes.
_HAS_ADDITIONAL_KEYS = 1 << 9


def reframe(piece: bytes, version: int) -> bytes:
    """Return whole blocks as a client of a protocol version reads them.

    Raises: QueryFailure for a type whose values cannot be measured.
    """
    if version < FLAG_SINCE_VERSION:
        return piece
    out: list[bytes] = []
    at = 0
    while at < len(piece):
        start = at
        columns, at = read_varint(piece, at)
        rows, at = read_varint(piece, at)
        out += [_BLOCK_INFO, piece[start:at]]
        for _ in range(columns):
            start = at
            for _ in ("name", "type"):
                length, text_at = read_varint(piece, at)
                at = text_at + length
            type_name = piece[text_at:at].decode()
            values_at = at
            if rows:
                at = _values_end(type_name, piece, _prefix_end(type_name, at), rows)
            out += [piece[start:values_at], b"\x00", piece[values_at:at]]
    return b"".join(out)


def _parsed(type_name: str) -> tuple[str, list[str]]:
    found = _TYPE.match(type_name.strip())
    if found is None:
        raise _unknown(type_name)
    return found[1], _split(found[2] or "")


def _split(arguments: str) -> list[str]:
    parts, depth, start, quote = [], 0, 0, ""
    skip = False
    for at, character in enumerate(arguments):
        if skip:
            skip = False
        elif quote:
            if character == "\\":
                skip = True
            elif character == quote:
                quote = ""
        elif character in "'`":
            quote = character
        elif character in "()":
            depth += 1 if character == "(" else -1
        elif character == "," and depth == 0:
            parts.append(arguments[start:at].strip())
            start = at + 1
    last = arguments[start:].strip()
    return [*parts, last] if last else parts


def _elements(name: str, arguments: list[str]) -> list[str]:
    # Types inside a composite one, without the names that elements of a tuple may have.
    if name in ("Array", "Nullable"):
        return arguments
    if name == "Map":
        return arguments
    if name == "Tuple":
        return [_TUPLE_NAME.sub("", argument, count=1) for argument in arguments]
    return []


def _prefix_end(type_name: str, at: int) -> int:
    # Low cardinality columns write the version of their keys before all values.
    name, arguments = _parsed(type_name)
    if name == "LowCardinality":
        return at + 8
    for element in _elements(name, arguments):
        at = _prefix_end(element, at)
    return at


def _values_end(type_name: str, piece: bytes, at: int, rows: int) -> int:
    name, arguments = _parsed(type_name)
    width = _width(name, arguments)
    if width is not None:
        return at + width * rows
    if name == "String":
        for _ in range(rows):
            length, at = read_varint(piece, at)
            at += length
        return at
    if name == "Nullable":
        return _values_end(arguments[0], piece, at + rows, rows)
    if name in ("Array", "Map"):
        at += 8 * rows
        inner_rows = int.from_bytes(piece[at - 8 : at], "little") if rows else 0
        for element in arguments:
            if inner_rows:
                at = _values_end(element, piece, at, inner_rows)
        return at
    if name == "Tuple":
        for element in _elements(name, arguments):
            at = _values_end(element, piece, at, rows)
        return at
    if name == "LowCardinality":
        return _low_cardinality_end(arguments[0], piece, at)
    raise _unknown(type_name)


def _low_cardinality_end(type_name: str, piece: bytes, at: int) -> int:
    kind = int.from_bytes(piece[at : at + 8], "little")
    at += 8
    key_name, key_arguments = _parsed(type_name)
    key_type = key_arguments[0] if key_name == "Nullable" else type_name
    if kind & _HAS_ADDITIONAL_KEYS:
        keys = int.from_bytes(piece[at : at + 8], "little")
        at = _values_end(key_type, piece, at + 8, keys)
    rows = int.from_bytes(piece[at : at + 8], "little")
    return at + 8 + rows * (1 << (kind & 0xFF))


def _width(name: str, arguments: list[str]) -> int | None:
    if name == "FixedString":
        return int(arguments[0])
    if name == "Decimal":
        digits = int(arguments[0])
        return 4 if digits <= 9 else 8 if digits <= 18 else 16 if digits <= 38 else 32
    if name.startswith("Interval"):
        return 8
    return _WIDTHS.get(name)


def _unknown(type_name: str) -> QueryFailure:
    return QueryFailure(
        NOT_IMPLEMENTED,
        f"The embedded engine cannot send {type_name} to a client of the native protocol; cast the "
        f"column with toString()",
    )
