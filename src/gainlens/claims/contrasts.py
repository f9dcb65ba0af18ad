"""Compute the contrast of a claim: numbers per model, block and prompt become intervals."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.special import ndtri

from gainlens.claims.cells import enough_prompts
from gainlens.claims.claim import Claim
from gainlens.claims.clusters import clustering_of
from gainlens.claims.design import FACTORS, contrasts
from gainlens.claims.intervals import draw_shares, mean_intervals, simultaneous_band
from gainlens.claims.numbers import (
    NotEnough,
    Numbers,
    Values,
    block_indices,
    numbers_of,
    one_number,
)
from gainlens.claims.pairing import mean_over_prompts
from gainlens.claims.removal import chance_level, spearman
from gainlens.claims.seeds import contrast_intervals
from gainlens.core.spec import Rule
from gainlens.metrics.registry import METRICS
from gainlens.records.claims import Estimate, Evidence
from gainlens.records.interval import Interval

FEWEST_MODELS = 5
"""A rank correlation over fewer models cannot leave its chance level."""
INTERACTION = "theta:context"
_RESAMPLES = 2_000


@dataclass(frozen=True)
class Contrasted:
    """Hold the intervals of a contrast, and what they run over."""

    estimates: tuple[Estimate, ...]
    independent: Literal["prompts", "seeds", "models"] = "prompts"
    chance: float | None = None
    """of a rank correlation: the size that chance alone stays within"""
    numbers: tuple[Numbers, ...] = ()
    """what the intervals over prompts are intervals of"""
    simultaneous: bool = False
    """whether the intervals hold for all blocks at once"""


def contrast_of(claim: Claim, evidence: Sequence[Evidence], over: str, rule: Rule) -> Contrasted:
    """Return the intervals that decide a claim.

    Args:
        claim: what is asked.
        evidence: one per model, in the order of the claim's roles.
        over: how a prompt's tokens became one number: a key of `Evidence.values`.
        rule: confidence, resamples, seed and the least number of prompts.

    Raises NotEnough if models or prompts are too few, or do not pair.
    """
    values = [one.values[over] for one in evidence]
    if claim.contrast.kind == "rank":
        return _rank(claim, evidence, over, rule)
    if claim.contrast.kind == "factorial":
        return _factorial(claim, evidence, [one_number(claim, own) for own in values], rule)
    numbers = numbers_of(claim, evidence, values)
    confidence, simultaneous = rule.confidence, claim.contrast.kind == "level" and len(numbers) > 1
    if simultaneous:
        intervals = _simultaneous(values[0], rule)
        confidence = 1 - (1 - rule.confidence) / len(numbers)
    else:
        intervals = [mean_over_prompts(one.values, rule) for one in numbers]
    estimates = (
        Estimate(one.of, interval, clustering_of(one.values, one.groups, confidence))
        for one, interval in zip(numbers, intervals, strict=True)
    )
    return Contrasted(tuple(estimates), numbers=numbers, simultaneous=simultaneous)


def _simultaneous(values: Values, rule: Rule) -> list[Interval]:
    """Return every block's mean; the intervals hold for all blocks at once."""
    means = mean_intervals(
        values, confidence=rule.confidence, resamples=rule.resamples, seed=rule.seed
    )
    low, high = simultaneous_band(
        values, confidence=rule.confidence, resamples=rule.resamples, seed=rule.seed
    )
    return [
        enough_prompts(replace(one, low=float(bottom), high=float(top)), rule)
        for one, bottom, top in zip(means, low, high, strict=True)
    ]


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
    weights = {name: columns[FACTORS.index(name)] for name in (effect, INTERACTION)}
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
    """Return Spearman's correlation of block means, with a bootstrap over prompts.

    Scatter over prompts shuffles blocks that lie close, so resamples pull the correlation towards
    0, as the sample itself did.  The interval therefore reaches from the resamples' quantiles to
    their mirror images about the estimate.  Quantiles alone never hold a correlation of 1 if blocks
    are as close as their standard errors; the mirror images alone hold one of 0 too rarely.
    """
    known = ~(np.isnan(left).any(axis=0) | np.isnan(right).any(axis=0))
    left, right = left[:, known], right[:, known]
    prompts = left.shape[1]
    if len(left) < FEWEST_MODELS:
        raise NotEnough(f"ranking needs at least {FEWEST_MODELS} blocks; there are {len(left)}")
    if prompts < 2:
        raise NotEnough(f"{prompts} prompts have both metrics; at least 2 are needed")
    rng = np.random.default_rng(rule.seed)
    shares = np.concatenate([*draw_shares(prompts, prompts, _RESAMPLES, rng)])
    found = spearman(shares @ left.T, shares @ right.T)
    outside = (1 - rule.confidence) / 2
    bottom, top = np.quantile(found, (outside, 1 - outside))
    estimate = float(spearman(left.mean(axis=1), right.mean(axis=1)))
    low = max(-1.0, min(bottom, 2 * estimate - top))
    high = min(1.0, max(top, 2 * estimate - bottom))
    method = "bootstrap over prompts, percentiles and their mirror images"
    return enough_prompts(Interval(estimate, low, high, prompts, rule.confidence, method), rule)


def _rank_of_models(claim: Claim, evidence: Sequence[Evidence], over: str, rule: Rule) -> Interval:
    """Return Spearman's correlation over models (interval: Bonett & Wright 2000)."""
    if len(evidence) < FEWEST_MODELS:
        raise NotEnough(f"ranking needs at least {FEWEST_MODELS} models; there are {len(evidence)}")
    field = str(claim.contrast.other)
    facts = [one.facts[field] for one in evidence]
    if not all(isinstance(fact, int | float) for fact in facts):
        raise NotEnough(f"{field} is not known of every model")
    means = np.array([np.nanmean(one_number(claim, one.values[over])) for one in evidence])
    estimate = float(spearman(means, np.array(facts, dtype=np.float64)))
    if np.isnan(estimate):
        raise NotEnough(f"{field} is the same in all models, so nothing is ranked")
    z = np.arctanh(np.clip(estimate, -0.999999, 0.999999))
    error = np.sqrt((1 + estimate**2 / 2) / (len(evidence) - 3))
    half = ndtri((1 + rule.confidence) / 2) * error
    return Interval(
        estimate, float(np.tanh(z - half)), float(np.tanh(z + half)), len(evidence),
        rule.confidence, "Fisher's z with the variance of Bonett & Wright, over models",
    )  # fmt: skip
