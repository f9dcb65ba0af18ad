"""Keep large values that are computed on first access within a memory budget."""

import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from threading import RLock
from typing import Any, Final, Generic, TypeVar

import numpy as np

from gainlens.core.vocabulary import Split
from gainlens.metrics.decomposition import decompose
from gainlens.records.capture import Capture
from gainlens.records.gains import Decomposition


def decompose_each(
    captures: Mapping[str, Capture], *, split: Split, massive_ratio: float
) -> Mapping[str, Decomposition]:
    """Decompose each capture when it is first asked for."""
    return Held(
        {
            key: lambda key=key: decompose(captures[key], split=split, massive_ratio=massive_ratio)
            for key in captures
        }
    )


T = TypeVar("T")
BUDGET: Final = 1 << 28
"""Bytes that the cache may hold while it computes another value.  The latest value always stays."""


class Held(Mapping[str, T], Generic[T]):
    """Compute each value on first access and cache it.

    Evicts the least recently used values, so that the cache and one more value as large as its
    largest stay within `budget` bytes.
    """

    def __init__(self, makers: Mapping[str, Callable[[], T]], budget: int = BUDGET) -> None:
        self._makers = dict(makers)
        self._budget = budget
        self._held: OrderedDict[str, T] = OrderedDict()
        self._lock = RLock()

    def __getitem__(self, key: str) -> T:
        with self._lock:
            if key not in self._held:
                make = self._makers[key]
                self._make_room()
                self._held[key] = make()
            self._held.move_to_end(key)
            return self._held[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)

    def _make_room(self) -> None:
        """Evict before the next value is computed, since both may not fit."""
        sizes = [nbytes(value) for value in self._held.values()]
        while sizes and sum(sizes) + max(sizes) > self._budget:
            self._held.popitem(last=False)
            sizes.pop(0)


def nbytes(record: Any) -> int:
    """Return the bytes of a record's arrays."""
    values = [getattr(record, field.name) for field in dataclasses.fields(record)]
    return sum(value.nbytes for value in values if isinstance(value, np.ndarray))
