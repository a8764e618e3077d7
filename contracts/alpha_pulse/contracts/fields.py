"""The fields of an event as its Struct declares them: what each one holds, for tables and docs.

Column types, decimals, times and comments follow from here; nothing else keeps a list of fields.
"""

import typing
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import msgspec
from msgspec import inspect

from alpha_pulse.contracts.decimals import GRAMMARS, Grammar


@dataclass(frozen=True, slots=True)
class Field:
    """One field of an event.

    Attributes:
        name: on the wire.
        type: what it holds when it is not null, such as `msgspec.inspect.StrType`.
        is_nullable: whether null may stand there.
        is_optional: whether writers leave it out at its default.
        default: what it is then.
        choices: the values that it is one of, in the order in which they were declared; empty where
            its type names none. A new one goes to the end: ClickHouse numbers them.
        is_time: whether it is a time, in microseconds since 1970.
        decimal: the grammar of its decimal text; None when it is no decimal.
        description: what it means, "" where the name says all.
    """

    name: str
    type: inspect.Type
    is_nullable: bool
    is_optional: bool
    default: Any
    choices: tuple[str, ...]
    is_time: bool
    decimal: Grammar | None
    description: str

    @property
    def column(self) -> str:
        """Its column for SQL users; a time's name has no unit, because the column is a time."""
        return self.name.removesuffix("_us") if self.is_time else self.name


@cache
def fields_of(event: type[msgspec.Struct]) -> tuple[Field, ...]:
    """Return the fields of an event, in the order in which they travel."""
    declared = inspect.type_info(event)
    assert isinstance(declared, inspect.StructType)
    hints = typing.get_type_hints(event, include_extras=True)
    return tuple(_field(field, _choices(hints[field.name])) for field in declared.fields)


def decimal_fields(event: type[msgspec.Struct]) -> tuple[str, ...]:
    """Return the names of the fields that hold decimal text, in the order of the Struct."""
    return tuple(field.name for field in fields_of(event) if field.decimal is not None)


def time_fields(event: type[msgspec.Struct]) -> tuple[str, ...]:
    """Return the names of the fields that hold a time, in the order of the Struct."""
    return tuple(field.name for field in fields_of(event) if field.is_time)


def _choices(hint: Any) -> tuple[str, ...]:
    # Of msgspec's own type they come sorted.
    if typing.get_origin(hint) is Literal:
        return typing.get_args(hint)
    return next((found for part in typing.get_args(hint) if (found := _choices(part))), ())


def _field(field: inspect.Field, choices: tuple[str, ...]) -> Field:
    description, is_time = "", False
    rule, is_nullable = field.type, False
    # Outside in: the outermost description counts.
    while isinstance(rule, inspect.Metadata | inspect.UnionType):
        if isinstance(rule, inspect.Metadata):
            description = description or str((rule.extra_json_schema or {}).get("description", ""))
            is_time = is_time or bool((rule.extra or {}).get("is_time"))
            rule = rule.type
        else:
            is_nullable = rule.includes_none
            (rule,) = (one for one in rule.types if not isinstance(one, inspect.NoneType))
    pattern: Any = getattr(rule, "pattern", None)
    return Field(
        name=field.encode_name,
        type=rule,
        is_nullable=is_nullable,
        is_optional=not field.required,
        default=field.default,
        choices=choices if isinstance(rule, inspect.LiteralType) else (),
        is_time=is_time,
        decimal=GRAMMARS.get(pattern),
        description=description,
    )
