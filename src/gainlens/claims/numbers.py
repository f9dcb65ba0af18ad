"""Compute the numbers per prompt whose mean decides a claim."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from gainlens.claims.claim import Blocks, Claim
from gainlens.claims.pairing import shared_names
from gainlens.records.claims import Evidence

FEWEST_STEPS = 3
"""A trend needs this many different places on its axis: two points always lie on a line."""

WHOLE = "the contrast"
"""What a number is of if a contrast has a single one."""

Values = Float64[np.ndarray, "_ _"]
"""[block, prompt]; the axes are unnamed, because models may differ in both"""


class NotEnough(Exception):
    """Raised with the reason why the models or prompts at hand cannot carry a contrast."""


@dataclass(frozen=True)
class Numbers:
    """Hold one number per prompt, and whose prompts they are."""

    of: str
    """a role, a block, or the whole contrast"""
    values: Float64[np.ndarray, " prompt"]
    """in the metric's unit; NaN if the prompt has no value"""
    model: Evidence
    rows: Int64[np.ndarray, " prompt"]
    """place of each prompt among the model's"""

    @property
    def groups(self) -> tuple[str, ...]:
        """Return the group of each prompt; empty if the prompts carry none."""
        return tuple(self.model.groups[row] for row in self.rows) if self.model.groups else ()


def numbers_of(
    claim: Claim, evidence: Sequence[Evidence], values: Sequence[Values]
) -> tuple[Numbers, ...]:
    """Return the numbers whose means decide a level, signs, a difference or a trend.

    Args:
        claim: what is asked.
        evidence: one per model, in the order of the claim's roles.
        values: of each model, per block and prompt: the metric, or a part of it.

    Raises NotEnough if the models do not pair, or cannot carry a trend.
    """
    kind, first = claim.contrast.kind, evidence[0]
    every = np.arange(len(first.ids))
    if kind == "trend" and claim.contrast.x == "block":
        chosen = block_indices(claim.estimand.blocks, len(values[0]))
        places = _scaled(claim, chosen.astype(np.float64) + 1)  # counted from 1: a log needs that
        return (Numbers(WHOLE, _slope(places, values[0][chosen]), first, every),)
    if kind == "level" and claim.estimand.blocks == "each":
        blocks = enumerate(values[0])
        return tuple(Numbers(f"block {block}", row, first, every) for block, row in blocks)
    numbers = [one_number(claim, of_model) for of_model in values]
    if kind == "level":
        return (Numbers(WHOLE, numbers[0], first, every),)
    if kind == "signs":
        return tuple(
            Numbers(one.role, own, one, np.arange(len(own)))
            for one, own in zip(evidence, numbers, strict=True)
        )
    rows = _shared_rows(evidence)
    paired = np.array([own[places] for own, places in zip(numbers, rows, strict=True)])
    if kind == "difference":
        return (Numbers(WHOLE, paired[1] - paired[0], first, rows[0]),)
    places = np.array([_place(claim, one) for one in evidence])
    return (Numbers(WHOLE, _slope(_scaled(claim, places), paired), first, rows[0]),)


def block_indices(blocks: Blocks, count: int) -> np.ndarray:
    """Return the indices of a claim's blocks in a model of `count` blocks.

    Halves of an odd number of blocks leave the middle one out.  The middle half leaves out a
    quarter at either end.  Raises NotEnough if the model has no such block.
    """
    every = np.arange(count)
    if isinstance(blocks, int):
        chosen = every[blocks : blocks + 1 or None]
    elif ":" in blocks:
        start, stop = (int(part) if part else None for part in blocks.split(":"))
        chosen = every[start:stop]
    else:
        chosen = {
            "first": every[:1],
            "last": every[-1:],
            "first half": every[: count // 2],
            "last half": every[(count + 1) // 2 :],
            "middle half": every[count // 4 : count - count // 4],
            "last third": every[count - max(1, count // 3) :],
            "each": every,
        }[blocks]
    if len(chosen) == 0:
        raise NotEnough(f"a model of {count} blocks has no blocks {blocks!r}")
    return chosen


def one_number(claim: Claim, values: Values) -> Float64[np.ndarray, " prompt"]:
    """Return a claim's number per prompt, in the metric's unit; NaN if a block has no value."""
    estimand = claim.estimand
    found = _over_blocks(values, estimand.blocks, estimand.over_blocks)
    if estimand.minus is None:
        return found
    return found - _over_blocks(values, estimand.minus, estimand.over_blocks)


def _over_blocks(values: Values, blocks: Blocks, over: str) -> Float64[np.ndarray, " prompt"]:
    chosen = block_indices(blocks, len(values))
    if over == "mean":
        return values[chosen].mean(axis=0)
    if over == "median":
        return np.median(values[chosen], axis=0)
    return _slope(chosen.astype(np.float64), values[chosen])


def _slope(x: Float64[np.ndarray, " place"], y: np.ndarray) -> Float64[np.ndarray, " prompt"]:
    """Return the least-squares slope of every prompt's values over x."""
    if len(np.unique(x)) < FEWEST_STEPS:
        raise NotEnough(
            f"a slope needs {FEWEST_STEPS} different places, and there are {len(set(x))}"
        )
    centred = x - x.mean()
    return centred @ y / (centred @ centred)


def _shared_rows(evidence: Sequence[Evidence]) -> tuple[Int64[np.ndarray, " shared"], ...]:
    """Return, per model, the places of the prompts that all models hold, in one order."""
    if len({one.sha256 for one in evidence}) != 1:
        raise NotEnough("the models were not measured on the same prompts, so nothing pairs")
    return shared_names([one.ids for one in evidence])


def _place(claim: Claim, one: Evidence) -> float:
    """Return where a model stands on the trend's axis."""
    x = claim.contrast.x
    if x == "length":
        if np.ptp(one.lengths) > 0:
            raise NotEnough("a trend over length needs prompts of exact lengths: give --tokens")
        return float(one.lengths[0])
    place = one.step if x == "step" else one.facts[str(x)]
    if not isinstance(place, int | float):
        raise NotEnough(f"the {x} of {one.name} is not known")
    return float(place)


def _scaled(claim: Claim, places: Float64[np.ndarray, " place"]) -> np.ndarray:
    if claim.contrast.scale == "linear":
        return places
    if (places <= 0).any():
        raise NotEnough("a logarithmic scale needs places above 0")
    return np.log(places)
