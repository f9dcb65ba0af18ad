"""Behaviour of a block and outcome for a pair of models: the words of the verdict."""

from typing import Final

import numpy as np

from gainlens.core.vocabulary import Behaviour
from gainlens.records.interval import Interval

_OUTCOMES: Final[dict[tuple[Behaviour | None, Behaviour | None], str]] = {
    ("EXPANDS", "CONTRACTS"): "CONFIRMED",
    ("CONTRACTS", "CONTRACTS"): "REJECTED",
    ("EXPANDS", "EXPANDS"): "UNEXPECTED",
    ("CONTRACTS", "EXPANDS"): "INVERTED",
}


def behaviour_of(interval: Interval, roundoff: float) -> Behaviour | None:
    """EXPANDS or CONTRACTS where the whole interval (nats) lies beyond the unit roundoff of the
    dtype that was measured in, FLAT where it does not, None where there is no interval."""
    if np.isnan(interval.low) or np.isnan(interval.high):
        return None
    margin = np.log1p(roundoff)
    if interval.low > margin:
        return "EXPANDS"
    return "CONTRACTS" if interval.high < -margin else "FLAT"


def outcome_of(short: Behaviour | None, long: Behaviour | None) -> str:
    """The outcome for a pair of behaviours; UNDETERMINED where either is FLAT or not known."""
    return _OUTCOMES.get((short, long), "UNDETERMINED")
