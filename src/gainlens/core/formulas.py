"""Closed formulas that several folders use.  They need no model and no array."""

import math
from statistics import NormalDist


def random_edge(frobenius: float, rows: int, columns: int) -> float:
    """Return the largest singular value of a large random matrix, given its Frobenius norm.

    |W|_F (sqrt(rows) + sqrt(columns)) / sqrt(rows columns); Bai and Yin 1993.  A matrix far above
    it has a direction that its rows share.
    """
    return frobenius * (math.sqrt(rows) + math.sqrt(columns)) / math.sqrt(rows * columns)


def theta_bound(context: int) -> float:
    """Return the smallest RoPE theta for a context in tokens, 0.0424 context^1.628.

    Men et al. 2024, arXiv 2405.14591.
    """
    return 0.0424 * context**1.628


def prompts_needed(
    spread: float, distance: float, *, power: float = 0.8, confidence: float = 0.95
) -> int:
    """Return how many prompts an interval needs to exclude a value at some distance.

    ((z_confidence + z_power) spread / distance)^2, rounded up: the usual size of a sample for the
    mean of a normal quantity, such as a paired difference of log gains.

    Args:
        spread: standard deviation over prompts.
        distance: of the true mean from the value, in the same unit.
        power: probability that the two-sided interval excludes the value.
        confidence: of the interval.

    Examples:
        >>> prompts_needed(spread=0.0408, distance=0.02)  # the twins at 8,192 tokens, in nats
        33
    """
    normal = NormalDist()
    quantiles = normal.inv_cdf((1 + confidence) / 2) + normal.inv_cdf(power)
    return math.ceil((quantiles * spread / distance) ** 2)
