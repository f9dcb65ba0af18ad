"""Compute effects of a training design with the seed as the unit.

Three seeds give each contrast two degrees of freedom of its own, and intervals whose width is luck.
So all cells share one error: the residual of the additive model cell + seed, with (cells - 1) x
(seeds - 1) degrees of freedom.  Intervals are simultaneous over the contrasts of a family (Sidak).
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
from jaxtyping import Float64
from scipy.special import nctdtrinc, stdtrit

from gainlens.claims.intervals import CONSTANT, ROUNDING
from gainlens.records.interval import Interval

POWER: Final = 0.8
Cells = Float64[np.ndarray, "cell seed"]


def pooled_error(values: Cells) -> tuple[float, int]:
    """Return the residual standard deviation of one run, and its degrees of freedom.

    Runs of one seed share their initialisation and data order, so what a seed adds to every cell is
    subtracted first.
    """
    cells, seeds = values.shape
    residual = values - values.mean(axis=1, keepdims=True) - values.mean(axis=0) + values.mean()
    degrees = (cells - 1) * (seeds - 1)
    return float(np.sqrt((residual**2).sum() / degrees)), degrees


def contrast_intervals(
    values: Cells,
    weights: Mapping[str, Float64[np.ndarray, " cell"]],
    confidence: float,
    family: int | None = None,
) -> dict[str, tuple[Interval, float]]:
    """Return each contrast's interval, simultaneous over all of them, and its visible effect.

    Args:
        values: one number per cell of the design and seed.
        weights: each contrast's weight of every cell; they sum to 0.
        confidence: of all intervals of the family together.
        family: number of contrasts in it; by default those given.

    The visible effect is the smallest that leaves out 0 in four of five repeats of the experiment.
    Both are NaN if the runs of a cell do not differ at all.
    """
    deviation, degrees = pooled_error(values)
    seeds = values.shape[1]
    family = family or len(weights)
    each = confidence ** (1 / family)
    quantile = float(stdtrit(degrees, (1 + each) / 2))
    method = f"Student's t over seeds, error pooled over {len(values)} cells"
    if family > 1:
        method += f", simultaneous over {family} contrasts"
    found: dict[str, tuple[Interval, float]] = {}
    for name, row in weights.items():
        estimate = float(row @ values.mean(axis=1))
        error = deviation * float(np.linalg.norm(row) / np.sqrt(seeds))
        if deviation <= ROUNDING:
            unknown = (np.nan, np.nan, seeds, confidence, method, CONSTANT, "constant")
            found[name] = Interval(estimate, *unknown), float("nan")
            continue
        half = quantile * error
        interval = Interval(estimate, estimate - half, estimate + half, seeds, confidence, method)
        found[name] = interval, error * _noncentrality(quantile, degrees)
    return found


def _noncentrality(quantile: float, degrees: int) -> float:
    """Return the effect in standard errors that |t| > quantile finds with the stated power."""
    return float(nctdtrinc(degrees, 1 - POWER, quantile))
