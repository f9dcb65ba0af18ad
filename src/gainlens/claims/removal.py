"""Rank blocks by what skipping each costs, and say how far the ranking carries."""

from collections.abc import Mapping
from functools import cache

import numpy as np
from jaxtyping import Float64

from gainlens.claims.intervals import ROUNDING, simultaneous_band
from gainlens.core.spec import Rule
from gainlens.records.importance import Agreement, Removal

_ORDERS = 20_000
"""Orders drawn at random for the chance level: its standard error is below 0.01 for 8 blocks."""
_SLACK = 1e-9
"""Two rank correlations that differ by less are equal."""


def removal_of(skip_loss: Float64[np.ndarray, "block prompt"], rule: Rule) -> Removal:
    """Order blocks by their mean skip loss; neighbours that the prompts cannot tell apart tie.

    Neighbours in that order are compared by their paired difference over prompts.  A simultaneous
    band holds all these differences with the rule's confidence, so that a model of many blocks does
    not get an order by luck.  Neighbours tie if their difference's band reaches 0; ties chain.
    skip_loss: nats per token, NaN if unknown for a prompt, which is then left out.
    """
    known = skip_loss[:, ~np.isnan(skip_loss).any(axis=0)]
    blocks, prompts = known.shape
    if blocks < 2:
        return Removal((), "the model has one block, so there is nothing to put in order")
    if prompts < rule.min_prompts:
        return Removal(
            (), f"too few prompts with a loss: {prompts}, at least {rule.min_prompts} are needed"
        )
    order = np.argsort(known.mean(axis=1), kind="stable")
    steps = np.diff(known[order], axis=0)
    low, _ = simultaneous_band(
        steps, confidence=rule.confidence, resamples=rule.resamples, seed=rule.seed
    )
    same_everywhere = np.ptp(steps, axis=1) <= ROUNDING  # a band of no width has no ends
    apart = np.where(same_everywhere, steps.mean(axis=1) > ROUNDING, low > 0)
    groups = [[int(order[0])]]
    for block, is_apart in zip(order[1:].tolist(), apart.tolist(), strict=True):
        if is_apart:
            groups.append([block])
        else:
            groups[-1].append(block)
    return Removal(tuple(tuple(sorted(group)) for group in groups), "")


def agreements(
    measures: Mapping[str, Float64[np.ndarray, " block"]],
    skip_loss: Float64[np.ndarray, " block"],
    rule: Rule,
) -> tuple[Agreement, ...]:
    """Return the rank correlation of each measure's block means with those of the skip loss.

    The chance level is the same for all: the size of the correlation that orders drawn at random
    exceed with probability 1 - confidence.  With fewer than five blocks no order exceeds it.
    """
    blocks = len(skip_loss)
    chance = chance_level(blocks, rule.confidence, rule.seed)
    return tuple(
        Agreement(name, float(spearman(of, skip_loss)), chance) for name, of in measures.items()
    )


@cache
def chance_level(blocks: int, confidence: float, seed: int) -> float:
    """Return the |Spearman| that two orders of so many blocks stay within by chance.

    It is the smallest value that is exceeded with a probability of at most 1 - confidence; NaN for
    one block.
    """
    if blocks < 2:
        return float("nan")
    rng = np.random.default_rng(seed)
    ranks = np.arange(blocks) - (blocks - 1) / 2
    drawn = rng.permuted(np.tile(ranks, (_ORDERS, 1)), axis=1)
    sizes = np.abs(drawn @ ranks) / (ranks @ ranks)
    return float(np.quantile(sizes, confidence, method="higher")) + _SLACK


def spearman(
    left: Float64[np.ndarray, "... place"], right: Float64[np.ndarray, "... place"]
) -> Float64[np.ndarray, "..."]:
    """Return the rank correlation over the last axis; NaN if a side is constant or not finite."""
    ranks = [_ranks(np.asarray(side)) for side in (left, right)]
    products = [(one * other).sum(axis=-1) for one, other in (ranks, ranks[:1] * 2, ranks[1:] * 2)]
    size = np.sqrt(products[1] * products[2])
    finite = np.isfinite(left).all(axis=-1) & np.isfinite(right).all(axis=-1)
    known = finite & (size > 0)
    return np.where(known, products[0] / np.where(known, size, 1.0), np.nan)


def _ranks(values: Float64[np.ndarray, "... place"]) -> Float64[np.ndarray, "... place"]:
    """Return ranks about their mean; equal values share one (scipy.stats takes 0.6 s to import)."""
    pairs = values[..., :, None], values[..., None, :]
    below, equal = (pairs[1] < pairs[0]).sum(axis=-1), (pairs[1] == pairs[0]).sum(axis=-1)
    return below + (equal - values.shape[-1]) / 2
