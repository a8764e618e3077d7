"""What a field of an event becomes in ClickHouse: its column, what is checked of it, its comment.

A number that travels as text, and a time that travels as microseconds, come in an EPHEMERAL column
with the field's name and are kept in another. Text that is no number becomes -1, which a constraint
refuses: ClickHouse would silently cut a 13th digit and read '', null or a missing field as 0. For
the same reason a required field that is missing becomes a value that a constraint refuses.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from msgspec import inspect

from alpha_pulse.contracts.decimals import FRACTION_DIGITS_MAX, SUM, Grammar
from alpha_pulse.contracts.events import Candle
from alpha_pulse.contracts.fields import Field, fields_of
from alpha_pulse.contracts.kinds import Log
from alpha_pulse.contracts.market import TIME_US_MAX

_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1
# Texts of which a table holds few different ones, many times each.
_PATTERNS_OF_FEW = {
    field.type.pattern
    for field in fields_of(Candle)
    if isinstance(field.type, inspect.StrType)
    and field.name in ("exchange", "symbol", "timeframe", "job")
}
_NOTHING, _SOMETHING = "''", "'-'"
_POSITION = {
    "k_topic": "Kafka topic; #n after it from the topic's second epoch on",
    "k_partition": "Kafka partition",
    "k_offset": "Kafka offset; unique per topic and partition",
}


@dataclass(frozen=True, kw_only=True)
class Column:
    """What keeps one field.

    Attributes:
        field: its name on the wire.
        name: the column that keeps its value.
        type: that column's type.
        rest: what follows the type in that column's definition: default and codec.
        wire: definition of the EPHEMERAL column that receives the field; "" where the value is kept
            as it came.
        check: the constraint that `condition` is part of; "" where nothing is asked.
        condition: what is asked of the column.
        is_optional: whether a record may leave the field out.
        comment: what it means, in the words of the contracts.
    """

    field: str
    name: str
    type: str
    rest: str = ""
    wire: str = ""
    check: str = ""
    condition: str = ""
    is_optional: bool = False
    comment: str = ""

    @property
    def definition(self) -> str:
        """The column's definition without its name."""
        return f"{self.type} {self.rest}".strip()


def columns_of(event: type[msgspec.Struct], log: Log) -> tuple[Column, ...]:
    """Return what keeps each field of an event, in the order in which they travel.

    Raises:
        TypeError: a field has a type without a rule here, and no entry in `Log.columns`.
    """
    columns = []
    for field in fields_of(event):
        if field.name in log.columns:
            parts = {"name": field.name, "type": log.columns[field.name]}
        else:
            parts = _rule(field, log.time.removesuffix("_us"))
        if field.is_optional and "check" in parts:
            # Apart from the others: the field may come later than they did.
            parts["check"] = f"{field.name}_valid"
        comment = field.description or field.name.replace("_", " ")
        columns.append(
            Column(field=field.name, is_optional=field.is_optional, comment=comment, **parts)
        )
    return tuple(columns)


def column_comments(columns: tuple[Column, ...]) -> dict[str, str]:
    """Return the comment of every column of a log table.

    The texts are the descriptions of the event's Struct; a column that only feeds another says so.
    """
    comments = dict(_POSITION)
    for column in columns:
        if not column.wire:
            comments[column.field] = column.comment
            continue
        comments[column.field] = f"on the wire only, see {column.name}"
        comments[column.name] = (
            column.comment.replace("Unix time, us, UTC", "UTC, microseconds")
            .replace("Unix us, UTC", "UTC, microseconds")
            .replace("Unix us", "UTC, microseconds")
            .replace(", decimal text", "")
        )
    return comments


# -- the rules, by what a field is ------------------------------------------------------------


def _rule(field: Field, time_column: str) -> dict[str, str]:
    if field.name == "revision":
        return {"name": field.name, "type": "UInt64", "rest": "CODEC(Delta, ZSTD(1))"}
    if field.choices:
        return _choice(field)
    if field.decimal is not None:
        return _decimal(field, field.decimal)
    if field.is_time and isinstance(field.type, inspect.IntType):
        return _time(field, field.type, time_column)
    match field.type:
        case inspect.StrType():
            return _text(field, field.type)
        case inspect.IntType():
            return _number(field, field.type)
        case inspect.BoolType():
            return _flag(field)
    return {"name": field.name, "type": _nested(field.type), "rest": "CODEC(ZSTD(1))"}


def _decimal(field: Field, grammar: Grammar) -> dict[str, str]:
    name, column = field.name, f"{field.name}_dec"
    text = _or(field, name, "''")
    number = (
        f"if(match({text}, '{grammar.sql_pattern}'), "
        f"toDecimal128OrZero({text}, {FRACTION_DIGITS_MAX}), "
        f"toDecimal128(-1, {FRACTION_DIGITS_MAX}))"
    )
    value = f"if({name} IS NULL, NULL, {number})" if field.is_nullable else number
    # A price is above 0; a sum may be 0.
    above, accepted = (">=", 0) if grammar == SUM else (">", 1)
    shown = _or(field, column, f"toDecimal128({accepted}, {FRACTION_DIGITS_MAX})")
    return {
        "name": column,
        "type": _type(field, f"Decimal(38, {FRACTION_DIGITS_MAX})"),
        "rest": f"DEFAULT {value} CODEC(ZSTD(1))",
        "wire": _wire(field, "String", "'?'" if field.is_nullable else ""),
        "check": "decimals_in_range",
        "condition": f"{shown} {above} 0",
    }


def _time(field: Field, rule: inspect.IntType, time_column: str) -> dict[str, str]:
    name, column = field.name, field.name.removesuffix("_us")
    first_us = rule.ge or 0
    if field.is_nullable:
        value = f"if({name} IS NULL, NULL, fromUnixTimestamp64Micro(ifNull({name}, -1), 'UTC'))"
    else:
        value = f"fromUnixTimestamp64Micro({name}, 'UTC')"
    # What a missing field becomes lies before the first time: 0 does, unless that is 1970.
    missing = "-1" if field.is_nullable or first_us == 0 else ""
    shown = _or(field, column, time_column)
    first, last = _instant(first_us), _instant(rule.lt or TIME_US_MAX)
    return {
        "name": column,
        "type": _type(field, "DateTime64(6, 'UTC')"),
        "rest": f"DEFAULT {value} CODEC({'' if field.is_nullable else 'Delta, '}ZSTD(1))",
        "wire": _wire(field, "Int64", missing),
        "check": "times_in_range",
        "condition": f"{shown} >= {first} AND {shown} < {last}",
    }


def _choice(field: Field) -> dict[str, str]:
    name, choices = field.name, [quoted(choice) for choice in field.choices]
    if field.is_nullable:
        return {
            "name": name,
            "type": "LowCardinality(Nullable(String))",
            "rest": f"{_default(field, _NOTHING)}CODEC(ZSTD(1))",
            "check": "choices_set",
            "condition": f"ifNull({name}, {choices[0]}) IN ({', '.join(choices)})",
        }
    numbered = ", ".join(f"{choice} = {number}" for number, choice in enumerate(choices, 1))
    return {
        "name": name,
        "type": f"Enum8('' = 0, {numbered})",
        "rest": f"{_default(field)}CODEC(ZSTD(1))",
        "check": "choices_set",
        "condition": f"{name} != ''",
    }


def _text(field: Field, rule: inspect.StrType) -> dict[str, str]:
    name, has_few = field.name, rule.pattern in _PATTERNS_OF_FEW
    if has_few and field.is_optional and field.default is None:
        # Left out nearly always, as a live event has no job: one value for that, not two.
        return {"name": name, "type": "LowCardinality(String)", "rest": "DEFAULT '' CODEC(ZSTD(1))"}
    parts = {"name": name}
    if field.is_nullable:
        parts["type"] = "LowCardinality(Nullable(String))" if has_few else "Nullable(String)"
        parts["rest"] = f"{_default(field, _NOTHING)}CODEC(ZSTD(1))"
    else:
        parts["type"] = "LowCardinality(String)" if has_few else "String"
        parts["rest"] = _default(field) + ("" if has_few else "CODEC(ZSTD(3))")
    if rule.pattern or rule.min_length:
        parts |= {"check": "texts_set", "condition": f"{_or(field, name, _SOMETHING)} != ''"}
    return parts


def _number(field: Field, rule: inspect.IntType) -> dict[str, str]:
    least, most = rule.ge, rule.le
    shown = _or(field, field.name, str(least or 0))
    conditions = [f"{shown} > {_INT64_MIN}" if least is None else f"{shown} >= {least}"]
    if most is not None and most < _INT64_MAX:
        conditions.append(f"{shown} <= {most}")
    return {
        "name": field.name,
        "type": _type(field, "Int64"),
        "rest": f"{_default(field, str(_INT64_MIN if least is None else least - 1))}CODEC(ZSTD(1))",
        "check": "numbers_in_range",
        "condition": " AND ".join(conditions),
    }


def _flag(field: Field) -> dict[str, str]:
    # No value of a Bool is left for a missing field; null is, which a required one refuses.
    is_plain = field.is_optional and field.default is not None
    parts = {
        "name": field.name,
        "type": "Bool" if is_plain else "Nullable(Bool)",
        "rest": f"{_default(field, 'NULL')}CODEC(ZSTD(1))",
    }
    if not field.is_optional and not field.is_nullable:
        parts |= {"check": "choices_set", "condition": f"{field.name} IS NOT NULL"}
    return parts


def _nested(rule: inspect.Type) -> str:
    # What stands inside a field is kept as it came; nothing is checked of it.
    match rule:
        case inspect.Metadata():
            return _nested(rule.type)
        case inspect.ListType() | inspect.VarTupleType():
            return f"Array({_nested(rule.item_type)})"
        case inspect.TupleType():
            return f"Tuple({', '.join(map(_nested, rule.item_types))})"
        case inspect.StructType():
            parts = [f"{field.encode_name} {_nested(field.type)}" for field in rule.fields]
            return f"Tuple({', '.join(parts)})"
        case inspect.UnionType() if rule.includes_none and len(rule.types) == 2:
            (inner,) = (one for one in rule.types if not isinstance(one, inspect.NoneType))
            return f"Nullable({_nested(inner)})"
        case inspect.StrType() | inspect.LiteralType():
            return "String"
        case inspect.IntType():
            return "Int64"
        case inspect.BoolType():
            return "Bool"
    raise TypeError(
        f"expected text, decimal text, int, bool, choices, Structs or lists of them, found {rule}; "
        "say the column in Log.columns"
    )


def _type(field: Field, plain: str) -> str:
    return f"Nullable({plain})" if field.is_nullable else plain


def _or(field: Field, column: str, accepted: str) -> str:
    # The column in a condition; `accepted` stands for a null.
    return f"ifNull({column}, {accepted})" if field.is_nullable else column


def _wire(field: Field, plain: str, refused: str) -> str:
    value = _literal(field.default) if field.is_optional else refused
    return f"{_type(field, plain)} EPHEMERAL {value}".rstrip()


def _default(field: Field, refused: str = "") -> str:
    # What a record means that leaves the field out; of a required field a value that is refused.
    value = _literal(field.default) if field.is_optional else refused
    return f"DEFAULT {value} " if value else ""


def _literal(value: Any) -> str:
    if isinstance(value, str):
        return quoted(value)
    return "NULL" if value is None else str(value).lower()


def _instant(time_us: int) -> str:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time_us)
    return f"toDateTime64('{moment:%Y-%m-%d %H:%M:%S}', 6, 'UTC')"


def quoted(text: str) -> str:
    """Return the text as a literal of ClickHouse's SQL."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
