"""A mapping of large values that are made when asked for: one run has more of them than memory."""

import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from threading import RLock
from typing import Any, Final, Generic, TypeVar

import numpy as np

T = TypeVar("T")
BUDGET: Final = 1 << 28
"""Bytes that values are held up to; the one asked for last is held whatever its size."""


class Held(Mapping[str, T], Generic[T]):
    """Values by key, each made by its function when asked for.  Those asked for last are held while
    their arrays fit together into `budget` bytes."""

    def __init__(self, makers: Mapping[str, Callable[[], T]], budget: int = BUDGET) -> None:
        self._makers = dict(makers)
        self._budget = budget
        self._held: OrderedDict[str, T] = OrderedDict()
        self._lock = RLock()

    def __getitem__(self, key: str) -> T:
        with self._lock:
            if key not in self._held:
                make = self._makers[key]
                self._make_room(0)  # before the next is made, not after: two do not fit either
                self._held[key] = make()
            self._held.move_to_end(key)
            self._make_room(1)
            return self._held[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)

    def _make_room(self, least: int) -> None:
        while len(self._held) > least and sum(map(nbytes, self._held.values())) > self._budget:
            self._held.popitem(last=False)


def nbytes(record: Any) -> int:
    """Bytes of a record's arrays."""
    values = [getattr(record, field.name) for field in dataclasses.fields(record)]
    return sum(value.nbytes for value in values if isinstance(value, np.ndarray))
