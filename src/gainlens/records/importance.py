"""Define what skipping each block in turn shows of a model."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Agreement:
    """Say how far a measure ranks the blocks as their skip loss does."""

    measure: str
    spearman: float
    """rank correlation over blocks with the mean skip loss; NaN if either is constant"""
    chance: float
    """|spearman| that orders drawn at random stay below with the stated confidence"""

    @property
    def beyond_chance(self) -> bool:
        """Return whether the blocks agree more, or disagree more, than orders drawn at random."""
        return abs(self.spearman) > self.chance


@dataclass(frozen=True)
class Removal:
    """Order the blocks by what skipping each costs, as far as the prompts tell them apart."""

    groups: tuple[tuple[int, ...], ...]
    """blocks, the cheapest first; those of one group tie; empty if the order is withheld"""
    withheld: str
    """why there is no order at all; empty if there is one"""

    @property
    def order(self) -> tuple[int, ...] | None:
        """Return the blocks, the cheapest first; None if some tie or the order is withheld."""
        if self.withheld or any(len(group) > 1 for group in self.groups):
            return None
        return tuple(group[0] for group in self.groups)
