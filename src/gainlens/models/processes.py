"""Prompts spread over processes, as `accelerate launch` or torchrun start them.

Every process holds the model (or its part of it) and runs its share of the batches; numbers are
exchanged, never activations, so that afterwards all processes have all of them.  The batches are
the same however many processes there are, and so is every number.
"""

import gc
import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar, cast

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """Which of how many processes this is."""

    rank: int
    size: int
    local_rank: int
    """among the processes of its machine: the index of its GPU"""

    @property
    def first(self) -> bool:
        """Return whether this is the process that writes and prints."""
        return self.rank == 0


ALONE: Final = World(0, 1, 0)
_current = ALONE


def world() -> World:
    """This process among those that work together; alone outside of `joined`."""
    return _current


def started() -> World:
    """Return what a launcher said in the environment; without one, a single process."""
    said = os.environ.get
    return World(int(said("RANK", "0")), int(said("WORLD_SIZE", "1")), int(said("LOCAL_RANK", "0")))


@contextmanager
def joined() -> Generator[World]:
    """Work together with the processes that a launcher started, for as long as this is open.

    Over gloo: what is exchanged are numbers on the CPU.
    """
    global _current
    found = started()
    if found.size == 1:
        yield ALONE
        return
    from torch import distributed

    distributed.init_process_group("gloo")
    _current = found
    try:
        yield found
    finally:
        _current = ALONE
        distributed.destroy_process_group()


def share(items: Sequence[T]) -> Sequence[T]:
    """This process's part of a list that all of them have."""
    return items[_current.rank :: _current.size]


def gathered(mine: Mapping[int, T]) -> dict[int, T]:
    """Every process's entries together, in every process."""
    if _current.size == 1:
        return dict(mine)
    from torch import distributed

    parts: list[Any] = [None] * _current.size
    distributed.all_gather_object(parts, dict(mine))
    return {key: value for part in cast("list[dict[int, T]]", parts) for key, value in part.items()}


def decided(value: T) -> T:
    """The first process's value, in every process."""
    if _current.size == 1:
        return value
    from torch import distributed

    held: list[Any] = [value]
    distributed.broadcast_object_list(held, src=0)
    return held[0]


def collect_seldom() -> None:
    """Let Python look for garbage less often: it would look through all that imports have made.

    This takes a sixth of the imports' time and 5 % of a run's.
    """
    gc.set_threshold(50_000, 20, 100)
