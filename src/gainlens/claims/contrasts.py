"""Compute the contrast of a claim: numbers per model, block and prompt become intervals."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float64
from scipy.special import ndtri

from gainlens.claims.cells import enough_prompts
from gainlens.claims.claim import Blocks, Claim
from gainlens.claims.design import FACTORS, contrasts
from gainlens.claims.intervals import mean_interval, simultaneous_band
from gainlens.claims.removal import chance_level, spearman
from gainlens.claims.seeds import contrast_intervals
from gainlens.core.spec import Rule
from gainlens.metrics.registry import METRICS
from gainlens.records.claims import Estimate, Evidence
from gainlens.records.interval import Interval

FEWEST_STEPS = 3
"""A trend needs so many different places on its axis: two points always lie on a line."""
FEWEST_MODELS = 5
"""A rank correlation over fewer models cannot leave its chance level."""
INTERACTION = "theta:context"
_RESAMPLES = 2_000

Values = Float64[np.ndarray, "block prompt"]


class NotEnough(Exception):
    """Raised with the reason why the models or prompts at hand cannot carry a contrast."""


@dataclass(frozen=True)
class Contrasted:
    """Hold the intervals of a contrast, and what they run over."""

    estimates: tuple[Estimate, ...]
    independent: Literal["prompts", "seeds", "models"] = "prompts"
    chance: float | None = None
    """of a rank correlation: the size that chance alone stays within"""


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


def contrast_of(claim: Claim, evidence: Sequence[Evidence], over: str, rule: Rule) -> Contrasted:
    """Return the intervals that decide a claim.

    Args:
        claim: what is asked.
        evidence: one per model, in the order of the claim's roles.
        over: how a prompt's tokens became one number: a key of `Evidence.values`.
        rule: confidence, resamples, seed and the least number of prompts.

    Raises NotEnough if models or prompts are too few, or do not pair.
    """
    kind = claim.contrast.kind
    if kind == "rank":
        return _rank(claim, evidence, over, rule)
    if kind == "trend" and claim.contrast.x == "block":
        (one,) = evidence
        chosen = block_indices(claim.estimand.blocks, len(one.values[over]))
        places = _scaled(claim, chosen.astype(np.float64) + 1)  # counted from 1: a log needs that
        return _mean(_slope(places, one.values[over][chosen]), rule)
    if kind == "level":
        (one,) = evidence
        if claim.estimand.blocks == "each":
            return _each(one.values[over], rule)
        return _mean(one_number(claim, one.values[over]), rule)
    numbers = [one_number(claim, one.values[over]) for one in evidence]
    if kind == "signs":
        levels = [_mean(values, rule).estimates[0].interval for values in numbers]
        names = [one.role for one in evidence]
        return Contrasted(tuple(map(Estimate, names, levels)))
    if kind == "factorial":
        return _factorial(claim, evidence, numbers, rule)
    paired = _paired(evidence, numbers)
    if kind == "difference":
        return _mean(paired[1] - paired[0], rule)
    places = np.array([_place(claim, one) for one in evidence])
    return _mean(_slope(_scaled(claim, places), paired), rule)


def _interval(values: Float64[np.ndarray, " prompt"], rule: Rule) -> Interval:
    interval = mean_interval(
        values, confidence=rule.confidence, resamples=rule.resamples, seed=rule.seed
    )
    return enough_prompts(interval, rule)


def _mean(values: Float64[np.ndarray, " prompt"], rule: Rule) -> Contrasted:
    return Contrasted((Estimate("the contrast", _interval(values, rule)),))


def _each(values: Values, rule: Rule) -> Contrasted:
    """Return every block's mean; the intervals hold for all blocks at once."""
    low, high = simultaneous_band(
        values, confidence=rule.confidence, resamples=rule.resamples, seed=rule.seed
    )
    estimates = [
        Estimate(
            f"block {block}", replace(_interval(row, rule), low=float(bottom), high=float(top))
        )
        for block, (row, bottom, top) in enumerate(zip(values, low, high, strict=True))
    ]
    return Contrasted(tuple(estimates))


def _paired(
    evidence: Sequence[Evidence], numbers: Sequence[np.ndarray]
) -> Float64[np.ndarray, "model prompt"]:
    """Return every model's number on the prompts that all of them hold, in one order."""
    if len({one.sha256 for one in evidence}) != 1:
        raise NotEnough("the models were not measured on the same prompts, so nothing pairs")
    places = [{name: place for place, name in enumerate(one.ids)} for one in evidence]
    shared = [name for name in evidence[0].ids if all(name in place for place in places)]
    return np.array(
        [
            values[[place[name] for name in shared]]
            for values, place in zip(numbers, places, strict=True)
        ]
    )


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


def _factorial(
    claim: Claim, evidence: Sequence[Evidence], numbers: Sequence[np.ndarray], rule: Rule
) -> Contrasted:
    """Return the effect over a 2 x 2 design, with the training seed as the unit.

    A single seed per cell cannot carry it: its prompts speak of four sets of weights alone.  A main
    effect comes with the interaction, simultaneous over both.
    """
    cells: dict[tuple[float, float], dict[float | None, int]] = {}
    for index, one in enumerate(evidence):
        context, theta = one.facts["context"], one.facts["theta"]
        if not isinstance(context, int | float) or not isinstance(theta, int | float):
            raise NotEnough(f"context or theta of {one.name} is not known")
        runs = cells.setdefault((float(context), float(theta)), {})
        if one.seed in runs:
            raise NotEnough("two models of one cell have the same training seed, or none is known")
        runs[one.seed] = index
    levels = [sorted(set(level)) for level in zip(*cells, strict=True)]
    if len(cells) != 4 or [len(level) for level in levels] != [2, 2]:
        raise NotEnough(
            "a factorial contrast needs two contexts and two thetas, and a model in each of the "
            f"four cells; there are models in {len(cells)} cells"
        )
    ordered = [cells[corner] for corner in sorted(cells)]
    effect = str(claim.contrast.effect)
    seeds = sorted(seed for seed in set.intersection(*map(set, ordered)) if seed is not None)
    if len(seeds) < 2:
        raise NotEnough(
            "an effect of training has the seed as its unit, so each cell needs the same two seeds "
            f"or more, and they share {len(seeds)}"
        )
    means = np.array([[np.nanmean(numbers[cell[seed]]) for seed in seeds] for cell in ordered])
    columns = contrasts(list(np.eye(4)))
    weights = {name: columns[FACTORS.index(name)].tolist() for name in (effect, INTERACTION)}
    found = contrast_intervals(means, weights, rule.confidence)
    estimates = (Estimate(name, interval) for name, (interval, _) in found.items())
    return Contrasted(tuple(estimates), "seeds")


def _rank(claim: Claim, evidence: Sequence[Evidence], over: str, rule: Rule) -> Contrasted:
    other = str(claim.contrast.other)
    if other in METRICS:
        (one,) = evidence
        assert one.with_values is not None, "the second metric was measured"
        chosen = block_indices(claim.estimand.blocks, len(one.values[over]))
        interval = _rank_of_blocks(one.values[over][chosen], one.with_values[chosen], rule)
        count, independent = len(chosen), "prompts"
    else:
        interval = _rank_of_models(claim, evidence, over, rule)
        count, independent = len(evidence), "models"
    chance = chance_level(count, rule.confidence, rule.seed)
    return Contrasted((Estimate("rank correlation", interval),), independent, chance)


def _rank_of_blocks(left: Values, right: Values, rule: Rule) -> Interval:
    """Return Spearman's correlation of block means, with a percentile bootstrap over prompts."""
    known = ~(np.isnan(left).any(axis=0) | np.isnan(right).any(axis=0))
    left, right = left[:, known], right[:, known]
    prompts = left.shape[1]
    if len(left) < FEWEST_MODELS:
        raise NotEnough(f"ranking needs at least {FEWEST_MODELS} blocks; there are {len(left)}")
    if prompts < 2:
        raise NotEnough(f"{prompts} prompts have both metrics; at least 2 are needed")
    drawn = np.random.default_rng(rule.seed).integers(0, prompts, (_RESAMPLES, prompts))
    found = [spearman(left[:, rows].mean(axis=1), right[:, rows].mean(axis=1)) for rows in drawn]
    outside = (1 - rule.confidence) / 2
    low, high = np.quantile(found, (outside, 1 - outside))
    estimate = spearman(left.mean(axis=1), right.mean(axis=1))
    method = "percentile bootstrap over prompts"
    return enough_prompts(
        Interval(estimate, float(low), float(high), prompts, rule.confidence, method), rule
    )


def _rank_of_models(claim: Claim, evidence: Sequence[Evidence], over: str, rule: Rule) -> Interval:
    """Return Spearman's correlation over models (interval: Bonett & Wright 2000)."""
    if len(evidence) < FEWEST_MODELS:
        raise NotEnough(f"ranking needs at least {FEWEST_MODELS} models; there are {len(evidence)}")
    field = str(claim.contrast.other)
    facts = [one.facts[field] for one in evidence]
    if not all(isinstance(fact, int | float) for fact in facts):
        raise NotEnough(f"{field} is not known of every model")
    means = np.array([np.nanmean(one_number(claim, one.values[over])) for one in evidence])
    estimate = spearman(means, np.array(facts, dtype=np.float64))
    if np.isnan(estimate):
        raise NotEnough(f"{field} is the same in all models, so nothing is ranked")
    z = np.arctanh(np.clip(estimate, -0.999999, 0.999999))
    error = np.sqrt((1 + estimate**2 / 2) / (len(evidence) - 3))
    half = ndtri((1 + rule.confidence) / 2) * error
    return Interval(
        estimate, float(np.tanh(z - half)), float(np.tanh(z + half)), len(evidence),
        rule.confidence, "Fisher's z with the variance of Bonett & Wright, over models",
    )  # fmt: skip
