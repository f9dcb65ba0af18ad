"""Pair the prompts of two models, and take differences over the pairs."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float64, Int64

from gainlens.claims.cells import enough_prompts
from gainlens.claims.intervals import difference_interval, mean_interval
from gainlens.core.spec import Rule
from gainlens.records.comparison import ModelReport
from gainlens.records.interval import Interval


def shared_prompts(
    reports: Sequence[ModelReport], rule: Rule
) -> tuple[Int64[np.ndarray, " shared"], ...] | None:
    """Return, per report, the indices of the prompts that all reports hold, in one order.

    Prompts pair by name, which is sound if the texts are the same (equal hash); token ids may
    differ.  None if texts differ, or if prompts were left out and fewer than the rule's minimum
    are shared.
    """
    if len({report.prompts.sha256 for report in reports}) != 1:
        return None
    ids = [report.prompts.ids for report in reports]
    shared = shared_names(ids)
    if len(shared[0]) < rule.min_prompts and any(len(own) != len(shared[0]) for own in ids):
        return None
    return shared


def shared_names(ids: Sequence[Sequence[str]]) -> tuple[Int64[np.ndarray, " shared"], ...]:
    """Return, per list of names, the places of the names that all lists hold, in one order."""
    places = [{name: place for place, name in enumerate(own)} for own in ids]
    shared = [name for name in ids[0] if all(name in own for own in places)]
    return tuple(np.array([own[name] for name in shared], dtype=np.int64) for own in places)


def paired_prompts(
    reports: Sequence[ModelReport], rule: Rule
) -> tuple[Float64[np.ndarray, " prompt"], ...] | None:
    """Return each report's last-block log gains on the shared prompts, in one order, or None."""
    shared = shared_prompts(reports, rule)
    if shared is None:
        return None
    return tuple(
        report.last_block[indices] for report, indices in zip(reports, shared, strict=True)
    )


def mean_over_prompts(values: Float64[np.ndarray, " prompt"], rule: Rule) -> Interval:
    """Return the mean under the rule's settings; too few prompts are marked as such."""
    interval = mean_interval(
        values, confidence=rule.confidence, resamples=rule.resamples, seed=rule.seed
    )
    return enough_prompts(interval, rule)


def difference_of(short: ModelReport, long: ModelReport, rule: Rule) -> tuple[Interval, bool]:
    """Return long minus short, log gain of the last block in nats, and whether prompts pair.

    Either side needs the rule's minimum number of prompts.
    """
    pairs = paired_prompts((short, long), rule)
    if pairs is not None:
        return mean_over_prompts(pairs[1] - pairs[0], rule), True
    interval = difference_interval(
        long.last_block,
        short.last_block,
        paired=False,
        confidence=rule.confidence,
        resamples=rule.resamples,
        seed=rule.seed,
    )
    fewest = min(np.count_nonzero(~np.isnan(side.last_block)) for side in (short, long))
    if fewest >= rule.min_prompts:
        return interval, False
    return enough_prompts(replace(interval, n=int(fewest)), rule), False
