"""Apply Student's t over prompts, to values and to paired differences."""

from collections.abc import Sequence
from typing import Final

import numpy as np

FEWEST_PROMPTS: Final = 3
_LEVEL: Final = 0.95


def t_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Return the 95 % interval of a mean, or None for fewer than three values."""
    if len(values) < FEWEST_PROMPTS:
        return None
    from scipy import stats

    error = float(np.std(values, ddof=1)) / len(values) ** 0.5
    half = float(stats.t.ppf((1 + _LEVEL) / 2, len(values) - 1)) * error
    mean = float(np.mean(values))
    return mean - half, mean + half


def t_test(differences: Sequence[float]) -> float:
    """Return the two-sided p of a mean of 0; 1 if all differences are 0."""
    from scipy import stats

    error = float(np.std(differences, ddof=1)) / len(differences) ** 0.5
    mean = float(np.mean(differences))
    if error == 0:
        return 1.0 if mean == 0 else 0.0
    return float(2 * stats.t.sf(abs(mean / error), len(differences) - 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values after Holm's correction, in the given order."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected
