"""Define a number resolved by groups of prompts or tokens, and what groups do to its interval."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar, runtime_checkable

from gainlens.records.interval import Interval

Grouping = Literal["length", "position", "kind"]
"""what a number is split by"""


@dataclass(frozen=True)
class Resolved:
    """Hold a claim's number on one group of prompts or tokens, or one component's part of it."""

    by: Literal["component", "length", "position", "kind"]
    group: str
    """attention or mlp; short or long prompts; positions such as 1-3; or a kind of prompt"""
    interval: Interval
    """in the metric's unit, over prompts"""


@dataclass(frozen=True)
class Clustering:
    """Hold how much prompts of one group resemble one another in a number."""

    groups: int
    correlation: float
    """intraclass correlation of the number within groups"""
    over_groups: Interval
    """the number with the group as the unit, in its own unit"""


@runtime_checkable
class _Group(Protocol):
    @property
    def by(self) -> str: ...
    @property
    def interval(self) -> Interval: ...


_Of = TypeVar("_Of", bound=_Group)


def opposed_groups(groups: Sequence[_Of]) -> tuple[_Of, _Of] | None:
    """Return the clearest pair of groups whose numbers have opposite signs.

    Neither interval contains 0.  Groups are compared with groups of the same kind; None if no two
    of them disagree.
    """
    for by in ("length", "position", "kind"):
        known = [one for one in groups if one.by == by and one.interval.excludes_zero]
        known.sort(key=lambda one: one.interval.estimate)
        if known and known[0].interval.estimate < 0 < known[-1].interval.estimate:
            return known[0], known[-1]
    return None
