"""Tell whether prompts of one group resemble one another, and take the group as the unit."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Int64

from gainlens.claims.intervals import seed_interval
from gainlens.records.groups import Clustering

CLUSTERED = 0.1
"""From this intraclass correlation on, groups of prompts are said to matter."""


def clustering_of(
    values: Float64[np.ndarray, " prompt"], groups: Sequence[str], confidence: float
) -> Clustering | None:
    """Return a number's interval over groups and its intraclass correlation; None without groups.

    Args:
        values: one per prompt, in any unit; NaN if the prompt has no value.
        groups: the kind or file of each prompt, or no group at all.  A prompt whose group is empty
            is a group of its own.
        confidence: of the interval over groups.
    """
    if not any(groups):
        return None
    known = np.flatnonzero(~np.isnan(values))
    names = [groups[place] or f"prompt {place}" for place in known.tolist()]
    unique, index = np.unique(names, return_inverse=True)
    if len(unique) < 2 or len(unique) == len(names):
        return None
    means = np.bincount(index, values[known]) / np.bincount(index)
    interval = seed_interval(means, confidence=confidence, unit="group")
    correlation = intraclass_correlation(values[known], index.astype(np.int64))
    return Clustering(len(unique), correlation, interval)


def intraclass_correlation(
    values: Float64[np.ndarray, " prompt"], group: Int64[np.ndarray, " prompt"]
) -> float:
    """Return ICC(1) of a one-way analysis of variance, groups of unequal size allowed.

    Shrout & Fleiss 1979, with the mean group size of Donner 1986.  0 if the groups differ by no
    more than chance; NaN if nothing varies.
    """
    sizes = np.bincount(group)
    means = np.bincount(group, values) / sizes
    groups, n = len(sizes), len(values)
    between = (sizes * (means - values.mean()) ** 2).sum() / (groups - 1)
    within = ((values - means[group]) ** 2).sum() / (n - groups)
    size = (n - (sizes**2).sum() / n) / (groups - 1)
    total = between + (size - 1) * within
    return max(float((between - within) / total), 0.0) if total > 0 else float("nan")
