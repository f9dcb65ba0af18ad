"""Closed formulas that several folders use.  They need no model and no array."""

import math


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
