"""JSON values -> the frozen records, by their annotations: the inverse of store.plain.

null is NaN where a float is wanted and None where None is allowed.  What a record does not know is
ignored, so that a newer file that only adds is still read.
"""

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from gainlens.core.vocabulary import contract_key


def rebuild(kind: Any, value: Any, place: str) -> Any:
    """A record, or any type that a record's field may have, from JSON values.

    `place` is where `value` stands in its document, for the message.  Raises ValueError, with a
    sentence that names the place, for a missing key or a wrong type.
    """
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind):
        return _record(kind, value, place)
    if hasattr(kind, "array_type"):  # a jaxtyping annotation of one axis
        (dtype,) = kind.dtypes
        number = {"float64": float, "int64": int}[dtype]
        return np.array(rebuild(tuple[number, ...], value, place), dtype=dtype)
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        return _tuple(inner, value, place)
    if origin in (types.UnionType, typing.Union):
        if value is None and types.NoneType in inner:
            return None
        (some,) = (each for each in inner if each is not types.NoneType)
        return rebuild(some, value, place)
    if origin is typing.Literal:
        if value not in inner:
            raise _wrong(place, value, f"one of {', '.join(map(str, inner))}")
        return value
    found = _plain(origin or kind, value, place)
    if origin is Mapping:
        return {
            key: rebuild(inner[1], each, f"{place}[{json.dumps(key)}]")
            for key, each in found.items()
        }
    return found


def _record(kind: Any, value: Any, place: str) -> Any:
    if not isinstance(value, Mapping):
        raise _wrong(place, value, "an object")
    found: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        key = contract_key(field.name)
        if key in value:
            there = f"{place}.{key}".lstrip(".")
            found[field.name] = rebuild(field.type, value[key], there)
        elif field.default is dataclasses.MISSING:
            raise ValueError(f"{place}.{key} is missing".lstrip("."))
    return kind(**found)


def _tuple(inner: tuple[Any, ...], value: Any, place: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise _wrong(place, value, "a list")
    items = cast("list[Any]", value)
    if inner[-1] is Ellipsis:
        inner = (inner[0],) * len(items)
    if len(items) != len(inner):
        raise ValueError(f"{place} has {len(items)} entries, needed are {len(inner)}")
    return tuple(
        rebuild(kind, item, f"{place}[{index}]")
        for index, (kind, item) in enumerate(zip(inner, items, strict=True))
    )


def _plain(kind: Any, value: Any, place: str) -> Any:
    if kind is float and value is None:
        return float("nan")
    if kind is float and type(value) is int and abs(value) < 2**1023:  # beyond, float() overflows
        return float(value)
    wanted = Mapping if kind is Mapping else kind
    if not isinstance(value, wanted) or (isinstance(value, bool) and kind is not bool):
        raise _wrong(place, value, _WORDS.get(kind, str(kind)))
    return value


_WORDS: dict[Any, str] = {
    float: "a number or null",
    int: "a whole number",
    str: "a string",
    bool: "true or false",
    Mapping: "an object",
}


def _wrong(place: str, value: Any, wanted: str) -> ValueError:
    given = repr(value) if len(repr(value)) < 40 else type(value).__name__
    return ValueError(f"{place} is {given}, needed is {wanted}")
