"""Compare records to the bit."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np


def same(one: Any, other: Any, place: str = "run") -> None:
    """Equal to the bit, and of the same types, through records, arrays, tuples and mappings."""
    if dataclasses.is_dataclass(one):
        assert type(one) is type(other), place
        for field in dataclasses.fields(one):
            values = (getattr(each, field.name) for each in (one, other))
            same(*values, f"{place}.{field.name}")
    elif isinstance(one, np.ndarray):
        assert one.dtype == other.dtype, place
        np.testing.assert_array_equal(one, other, err_msg=place)
    elif isinstance(one, tuple):
        assert isinstance(other, tuple), place
        assert len(one) == len(other), place
        for index, pair in enumerate(zip(one, other, strict=True)):
            same(*pair, f"{place}[{index}]")
    elif isinstance(one, Mapping):
        assert list(one) == list(other), place
        for key in one:
            same(one[key], other[key], f"{place}[{key!r}]")
    elif isinstance(one, float):
        assert type(other) is float, place
        assert one == other or (np.isnan(one) and np.isnan(other)), place
    else:
        assert type(one) is type(other), place
        assert one == other, place
