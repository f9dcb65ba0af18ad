"""Turn records into JSON values, and JSON values back into records by their annotations.

This is our own code rather than pydantic's TypeAdapter: the records' annotations are jaxtyping
shapes, and pydantic would need a wrapper around each of their number and array fields.
"""

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from gainlens.core.vocabulary import contract_key


def to_json(value: Any, *, finite: bool = True) -> Any:
    """Return a record as JSON values: arrays become lists, NaN and infinity become null.

    finite: False keeps NaN and infinity, which Python's json module writes and reads although they
    are not JSON.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            contract_key(field.name): to_json(getattr(value, field.name), finite=finite)
            for field in dataclasses.fields(value)
        }
    if isinstance(value, Mapping):
        return {str(key): to_json(item, finite=finite) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return to_json(value.tolist(), finite=finite)
    if isinstance(value, list | tuple):
        return [to_json(item, finite=finite) for item in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) or not finite else None
    if isinstance(value, np.integer | np.bool_):
        return value.item()
    return value


def from_json(kind: Any, value: Any, place: str) -> Any:
    """Return a record, or a value of any type that a record's field may have, from JSON values.

    null becomes NaN if a float is wanted, and None if None is allowed.  Unknown keys are ignored,
    so that a newer file that only adds keys can still be read.

    place: where `value` stands in its document, for the message.

    Raises ValueError, which names the place, for a missing key or a wrong type.
    """
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind):
        return _record(kind, value, place)
    if hasattr(kind, "array_type"):  # a jaxtyping annotation of one axis
        (dtype,) = kind.dtypes
        number = {"float64": float, "int64": int}[dtype]
        return np.array(from_json(tuple[number, ...], value, place), dtype=dtype)
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        return _tuple(inner, value, place)
    if origin in (types.UnionType, typing.Union):
        if value is None and types.NoneType in inner:
            return None
        (some,) = (each for each in inner if each is not types.NoneType)
        return from_json(some, value, place)
    if origin is typing.Literal:
        if value not in inner:
            raise _wrong(place, value, f"one of {', '.join(map(str, inner))}")
        return value
    found = _plain(origin or kind, value, place)
    if origin is Mapping:
        return {
            key: from_json(inner[1], each, f"{place}[{json.dumps(key)}]")
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
            found[field.name] = from_json(field.type, value[key], there)
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
        from_json(kind, item, f"{place}[{index}]")
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
