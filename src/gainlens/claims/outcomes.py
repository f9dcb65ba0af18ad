"""Decide what the intervals of a contrast say of a claim's prediction."""

from typing import Final

import numpy as np

from gainlens.claims.claim import Claim, bounds_of
from gainlens.claims.contrasts import Contrasted
from gainlens.records.claims import ClaimOutcome
from gainlens.records.interval import Interval

_SIGNS: Final[dict[ClaimOutcome, str]] = {"SUPPORTED": "+", "CONTRADICTED": "-"}
"""What the prediction "> 0" gives for a level of either sign; others have no sign."""


def decide(interval: Interval, prediction: str, margin: float) -> ClaimOutcome:
    """Return what one interval says of a prediction; UNDETERMINED if the interval is not known."""
    if not interval.known or not np.isfinite(interval.low + interval.high):
        return "UNDETERMINED"
    sign, low, high = bounds_of(prediction)
    if sign in ("=", "in"):
        low, high = low - margin, high + margin
        if low <= interval.low and interval.high <= high:
            return "SUPPORTED"
        return "CONTRADICTED" if interval.low > high or interval.high < low else "UNDETERMINED"
    if low - margin <= interval.low and interval.high <= low + margin:
        return "EQUIVALENT"
    above, below = interval.low > low + margin, interval.high < low - margin
    if above or below:
        return "SUPPORTED" if above == (sign == ">") else "CONTRADICTED"
    return "UNDETERMINED"


def outcome_of_claim(claim: Claim, found: Contrasted) -> ClaimOutcome:
    """Return what all intervals of a contrast say together."""
    intervals = [estimate.interval for estimate in found.estimates]
    if claim.contrast.kind == "signs":
        decided: list[ClaimOutcome] = [decide(one, "> 0", claim.margin) for one in intervals]
        signs = "".join(_SIGNS.get(outcome, "?") for outcome in decided)
        return claim.contrast.outcomes.get(signs, "UNDETERMINED")
    if claim.contrast.kind == "factorial":
        intervals = intervals[:1]  # the interaction is beside it
    prediction = str(claim.contrast.prediction)
    outcomes: set[ClaimOutcome] = {decide(one, prediction, claim.margin) for one in intervals}
    if len(outcomes) > 1:  # several blocks: one that contradicts is enough, all must support
        return "CONTRADICTED" if "CONTRADICTED" in outcomes else "UNDETERMINED"
    (outcome,) = outcomes
    if found.chance is not None and abs(intervals[0].estimate) <= found.chance:
        return "UNDETERMINED"
    return outcome
