"""Say what one interval shows of a block, and what two signs show of the claim."""

from typing import Literal, cast

import numpy as np

from gainlens.claims.claim import SEED_CLAIM, catalogue
from gainlens.core.spec import Rule
from gainlens.core.vocabulary import Behaviour, Outcome
from gainlens.records.interval import Interval

Sign = Literal["+", "-", "0"]
"""above 1, below 1, or equal to 1 within the rule's margin"""


def behaviour_of(interval: Interval, roundoff: float) -> Behaviour | None:
    """Return EXPANDS or CONTRACTS if the whole interval (nats) lies beyond the unit roundoff of the
    dtype that was measured in, FLAT if it does not, None if there is no interval."""
    if np.isnan(interval.low) or np.isnan(interval.high):
        return None
    margin = np.log1p(roundoff)
    if interval.low > margin:
        return "EXPANDS"
    return "CONTRACTS" if interval.high < -margin else "FLAT"


def is_equivalent(interval: Interval, rule: Rule) -> bool | None:
    """Return whether the interval (nats) lies within a gain of 1 +- the rule's margin.

    None if the interval is not known.
    """
    return None if not interval.known else _sign(interval, rule) == "0"


def sign_of(interval: Interval, rule: Rule) -> Sign | None:
    """Return on which side of a gain of 1, by more than the rule's margin, an interval lies.

    0 if it lies within the margin; None if it decides neither way or is not known.  Position 0 is
    one value without an interval: its estimate decides.
    """
    if interval.problem == "one value":
        point = interval.estimate
        return _sign(Interval(point, point, point, 1, interval.confidence, interval.method), rule)
    return _sign(interval, rule) if interval.known else None


def _sign(interval: Interval, rule: Rule) -> Sign | None:
    below, above = np.log1p(-rule.equivalence), np.log1p(rule.equivalence)
    if interval.low > above:
        return "+"
    if interval.high < below:
        return "-"
    return "0" if below <= interval.low and interval.high <= above else None


def outcome_of(short: Interval, long: Interval, rule: Rule) -> Outcome:
    """Return the outcome for the short and the long model's last block (log gain, nats).

    UNDETERMINED if either is equivalent to a gain of 1, straddles the margin, or is not known.
    """
    signs = f"{sign_of(short, rule)}{sign_of(long, rule)}"
    found = catalogue()[SEED_CLAIM].contrast.outcomes.get(signs, "UNDETERMINED")
    return cast("Outcome", found)
