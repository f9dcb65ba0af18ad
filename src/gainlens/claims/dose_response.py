"""Test trends over the training design: contexts x thetas x seeds, with the seed as the unit.

Cells of one seed share initial weights and data order.  So a contrast is taken within each seed,
and Student's t runs over the seeds' contrasts.  That needs no common variance: the spread between
seeds is five times as large at 8,192 as at 256.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Float64

from gainlens.claims.intervals import seed_interval
from gainlens.records.interval import Interval

SHIPPED: Final = Path(__file__).parents[1] / "data" / "dose_response.parquet"
CONTRASTS: Final = ("context", "theta", "theta:context")
_RUN: Final = ["context", "theta", "seed"]
_DECAYS_FROM: Final = 0.8
"""Share of the steps after which the learning rate decays, by the design file."""


@dataclass(frozen=True)
class Design:
    """Hold one number per run of a complete design."""

    contexts: tuple[int, ...]
    thetas: tuple[float, ...]
    seeds: tuple[int, ...]
    values: Float64[np.ndarray, "context theta seed"]


def read_design(
    path: Path = SHIPPED,
    measure: str = "log_gain",
    positions: str = "",
    *,
    equal_loss: bool = False,
) -> Design:
    """Return a measure of every run that began anew, at the end of training or at equal loss.

    A context that lacks a seed or a theta is left out: a seed's slope needs all contexts.

    Args:
        path: the table that scripts/train_twins.py collects.
        measure: one of the table's measures.
        positions: bin of positions; empty for all.
        equal_loss: take each run where its held-out loss first falls to the lowest loss that every
            run reaches before its learning rate decays, linearly between two points of training.
            The loss is that on sequences as long as the shortest context.

    Raises ValueError if the table lacks the measure, or if fewer than two contexts are complete.
    """
    import pandas as pd

    table: Any = pd.read_parquet(path)  # pandas' types are partial
    table = table.loc[table["group"] == "dose"]
    rows = table.loc[(table["measure"] == measure) & (table["positions"] == positions)]
    if rows.empty:
        raise ValueError(f"{path.name} has no {measure!r} at positions {positions!r}")
    rows = rows.loc[rows["block"] == rows["block"].max()]  # the last, if the measure has blocks
    rows = rows.loc[rows["context"].isin(_complete(rows))]
    values = rows.pivot(index="tokens", columns=_RUN, values="value")
    ends = _at_equal_loss(table, values) if equal_loss else values.iloc[-1].to_numpy(np.float64)
    contexts, thetas, seeds = (tuple(level.tolist()) for level in values.columns.levels)
    shape = (len(contexts), len(thetas), len(seeds))  # pivot sorts the runs
    return Design(contexts, thetas, seeds, ends.reshape(shape))


def _complete(rows: Any) -> list[int]:
    """Return the contexts of which every theta and seed is there; ValueError below two."""
    runs = rows[_RUN].drop_duplicates()
    wanted = runs["theta"].nunique() * runs["seed"].nunique()
    counts = runs.groupby("context").size()
    found = counts.index[counts == wanted].tolist()
    if len(found) < 2:
        raise ValueError("the training table has fewer than two contexts with every theta and seed")
    return found


def _at_equal_loss(table: Any, measured: Any) -> Float64[np.ndarray, " run"]:
    """Return each run's value where its loss first falls to the lowest that all reach.

    table: every measure; measured: the values, a row per point of training and a column per run.
    """
    shortest = min(level for level, _, _ in measured.columns)
    at_length = table.loc[(table["measure"] == "loss") & (table["length"] == shortest)]
    by_run = at_length.pivot(index="tokens", columns=_RUN, values="value")
    losses = by_run.loc[:, measured.columns].to_numpy(np.float64)
    values = measured.to_numpy(np.float64)
    tokens = measured.index.to_numpy(np.float64)
    before = tokens <= _DECAYS_FROM * tokens[-1]
    target = losses[before].min(axis=0).max()
    after = (losses <= target).argmax(axis=0)
    if (after == 0).any():
        raise ValueError("a run has the common loss from its first point on")
    run = np.arange(losses.shape[1])
    high, low = losses[after - 1, run], losses[after, run]
    share = (high - target) / (high - low)
    return values[after - 1, run] + share * (values[after, run] - values[after - 1, run])


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


def trends(design: Design) -> dict[str, Interval]:
    """Return the contrasts' 95 % intervals over seeds, simultaneous over the three (Bonferroni)."""
    each = 1 - 0.05 / len(CONTRASTS)
    return {
        name: seed_interval(values, confidence=each)
        for name, values in seed_contrasts(design).items()
    }


def cell_intervals(design: Design) -> Float64[np.ndarray, "context theta end"]:
    """Return every cell's mean over seeds and the two ends of its 95 % interval."""
    intervals = [[seed_interval(cell) for cell in of_context] for of_context in design.values]
    return np.array([[(one.estimate, one.low, one.high) for one in row] for row in intervals])
