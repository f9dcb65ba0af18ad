"""Test trends over the training design: contexts x thetas x seeds, with the seed as the unit.

Cells of one seed share initial weights and data order.  So a contrast is taken within each seed,
and Student's t runs over the seeds' contrasts.  That needs no common variance: the spread between
seeds is five times as large at 8,192 as at 256.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import Float64

from gainlens.claims.intervals import seed_interval
from gainlens.records.interval import Interval

SHIPPED: Final = Path(__file__).parents[1] / "data" / "dose_response.parquet"
CONTRASTS: Final = ("context", "theta", "theta:context")


@dataclass(frozen=True)
class Design:
    """Hold one number per run of a complete design."""

    contexts: tuple[int, ...]
    thetas: tuple[float, ...]
    seeds: tuple[int, ...]
    values: Float64[np.ndarray, "context theta seed"]


def read_design(
    path: Path = SHIPPED, measure: str = "log_gain", block: int = -1, positions: str = ""
) -> Design:
    """Return a measure at the end of training, of every run that began anew.

    Args:
        path: the table that scripts/train_twins.py collects.
        measure: one of the table's measures.
        block: negative from the last; ignored for a measure that is not of one block.
        positions: bin of positions; empty for all.

    Raises ValueError if the table lacks the measure, or if a cell lacks a seed that others have.
    """
    import pandas as pd

    table: pd.DataFrame = pd.read_parquet(path)
    rows = table.query("group == 'dose' and measure == @measure and positions == @positions")
    if rows.empty:
        raise ValueError(f"{path.name} has no {measure!r} at positions {positions!r}")
    rows = rows.query("tokens == tokens.max()")
    rows = rows.loc[rows["block"] == sorted(set(rows["block"]))[block]]
    levels = [tuple(sorted(set(rows[name].tolist()))) for name in ("context", "theta", "seed")]
    wanted = pd.MultiIndex.from_product(levels, names=["context", "theta", "seed"])
    series = rows.set_index(["context", "theta", "seed"])["value"].reindex(wanted)
    if np.isnan(series.to_numpy()).any():
        raise ValueError(f"{path.name} has no {measure!r} of every cell and seed")
    contexts, thetas, seeds = levels
    shape = (len(contexts), len(thetas), len(seeds))
    return Design(contexts, thetas, seeds, series.to_numpy(np.float64).reshape(shape))


def seed_contrasts(design: Design) -> dict[str, Float64[np.ndarray, " seed"]]:
    """Return each seed's contrasts.

    context: slope over the context's logarithm to base 2, mean over thetas, per doubling.
    theta: largest minus smallest theta, mean over contexts.
    theta:context: the slope at the largest theta minus that at the smallest.
    """
    doublings = np.log2(np.array(design.contexts, dtype=np.float64))
    centred = doublings - doublings.mean()
    slopes = np.tensordot(centred, design.values, axes=1) / (centred @ centred)
    return {
        "context": slopes.mean(axis=0),
        "theta": (design.values[:, -1] - design.values[:, 0]).mean(axis=0),
        "theta:context": slopes[-1] - slopes[0],
    }


def trends(design: Design, confidence: float = 0.95) -> dict[str, Interval]:
    """Return the contrasts' intervals over seeds, simultaneous over the three (Bonferroni)."""
    each = 1 - (1 - confidence) / len(CONTRASTS)
    return {
        name: seed_interval(values, confidence=each)
        for name, values in seed_contrasts(design).items()
    }


def cell_intervals(
    design: Design, confidence: float = 0.95
) -> Float64[np.ndarray, "context theta end"]:
    """Return every cell's mean over seeds and the two ends of its interval."""
    found = [
        [seed_interval(cell, confidence=confidence) for cell in of_context]
        for of_context in design.values
    ]
    return np.array([[(one.estimate, one.low, one.high) for one in row] for row in found])
