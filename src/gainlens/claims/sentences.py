"""Put a claim's number, and an interval of it, into words."""

from math import floor, isfinite, log10

from gainlens.claims.claim import Blocks, Claim
from gainlens.claims.wording import at_group, signed
from gainlens.metrics.registry import METRICS
from gainlens.records.groups import Resolved
from gainlens.records.interval import Interval


def subject_of(claim: Claim) -> str:
    """Return what a claim's number is, in words."""
    contrast, metric = claim.contrast, claim.estimand.metric.replace("_", " ")
    said = measured_of(claim)
    if (done := claim.intervention) is not None:
        said = f"the change of {said} by {done.words}"
        if done.against == "control":
            said += f", minus that by {done.control_words}"
    if contrast.kind == "difference":
        return f"{said}, {claim.roles[1]} minus {claim.roles[0]},"
    if contrast.kind == "trend":
        scale = "the logarithm of the " if contrast.scale == "log" else "the "
        return f"the slope of {said} over {scale}{contrast.x}"
    if contrast.kind == "factorial":
        return f"the effect of {contrast.effect} on {said}"
    if contrast.kind == "rank":
        return f"the rank correlation of {metric} with {str(contrast.other).replace('_', ' ')}"
    return said


def measured_of(claim: Claim) -> str:
    """Return what is measured of each model, in words."""
    estimand = claim.estimand
    metric = estimand.metric.replace("_", " ")
    if METRICS[estimand.metric].over == "token":  # a number of the whole model
        return f"the {metric}"
    of = f"{estimand.over_blocks} {metric}" if _several(estimand.blocks) else metric
    said = f"the {of} of {_blocks(estimand.blocks)}"
    if estimand.minus is not None:
        said += f" minus that of {_blocks(estimand.minus)}"
    return said


def _several(blocks: Blocks) -> bool:
    return not isinstance(blocks, int) and blocks not in ("first", "last", "each")


def _blocks(blocks: Blocks) -> str:
    if isinstance(blocks, int):
        return f"block {blocks}"
    if ":" in blocks:
        return "all blocks" if blocks == "0:" else f"blocks {blocks}"
    named = {"each": "each block", "first": "the first block", "last": "the last block"}
    return named.get(blocks, f"the {blocks} of the blocks")


def capital(sentence: str) -> str:
    """Return a sentence with a capital at its start."""
    return sentence[0].upper() + sentence[1:]


def interval_text(interval: Interval, unit: str) -> str:
    """Return an estimate with its interval and unit, or with the reason why it has none.

    All three have the same decimals: four digits of the largest.
    """
    units = "" if unit == "1" else f" {unit}"
    numbers = (interval.estimate, interval.low, interval.high)
    largest = max((abs(number) for number in numbers if isfinite(number)), default=0.0)
    digits = min(6, max(0, 3 - floor(log10(largest)))) if largest > 0 else 4
    said, low, high = (signed(number, digits) for number in numbers)
    if not interval.known:
        return f"{said}{units} ({interval.status})" if interval.n else interval.status
    return f"{said} [{low}, {high}]{units}"


def opposed_text(groups: tuple[Resolved, Resolved], unit: str) -> str:
    """Write the numbers of two groups that have opposite signs."""
    return " and ".join(
        f"{interval_text(one.interval, unit)} {at_group(one.by, one.group)}" for one in groups
    )
