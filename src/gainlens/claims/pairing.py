"""The last block of two models compared, prompt by prompt where the texts are the same."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from gainlens.claims.intervals import difference_interval
from gainlens.core.spec import Rule
from gainlens.records.comparison import ModelReport
from gainlens.records.interval import Interval


def paired_prompts(
    reports: Sequence[ModelReport], rule: Rule
) -> tuple[Float64[np.ndarray, " prompt"], ...] | None:
    """Each report's last-block log gains on the prompts that all of them hold, in one order.

    Prompts pair by name, which is sound where the texts are the same (equal hash); token ids may
    differ.  None where texts differ or fewer than the rule's minimum are shared.
    """
    if len({report.prompts.sha256 for report in reports}) != 1:
        return None
    places = [{name: i for i, name in enumerate(report.prompts.ids)} for report in reports]
    shared = [name for name in reports[0].prompts.ids if all(name in place for place in places)]
    if len(shared) < rule.min_prompts and any(len(place) != len(shared) for place in places):
        return None
    return tuple(
        report.last_block[[place[name] for name in shared]]
        for report, place in zip(reports, places, strict=True)
    )


def difference_of(short: ModelReport, long: ModelReport, rule: Rule) -> tuple[Interval, bool]:
    """Long minus short, log gain of the last block, nats; and whether prompts could be paired."""
    pairs = paired_prompts((short, long), rule)
    paired = pairs is not None
    values = (short.last_block, long.last_block) if pairs is None else pairs
    interval = difference_interval(
        values[1],
        values[0],
        paired=paired,
        confidence=rule.confidence,
        resamples=rule.resamples,
        seed=rule.seed,
    )
    return interval, paired
