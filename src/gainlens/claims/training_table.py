"""TODO: claims.training_table."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np

from gainlens.claims.design import (
    AT_FIRSTS,
    AT_LOSS,
    AT_TOKENS,
    Corner,
    Corners,
    contrasts,
    effects_of,
)
from gainlens.claims.intervals import seed_interval
from gainlens.core.presets import TWIN_PREFIX
from gainlens.core.spec import ComparisonSpec, Rule
from gainlens.records.verdict import Effect

TrainingCurves = Mapping[str, np.ndarray]
"""Equally long columns, one entry a run and checkpoint: context (tokens), theta, bos_every (k:
every k-th sequence begins with a BOS), seed, tokens (seen so far), loss_<context> (held-out, nats a
token) and log_gain_last_ordinary (nats, the primary estimand)."""

GAIN_COLUMN: Final = "log_gain_last_ordinary"


SHIPPED_CURVES: Final = Path(__file__).parents[1] / "data" / "twins_training.csv"


def shipped_curves(spec: ComparisonSpec) -> TrainingCurves | None:
    """The twins' table along training, all seeds and cells, where only twins are compared."""
    shipped = all(model.hf_name.startswith(TWIN_PREFIX) for model in spec.models)
    return read_curves(SHIPPED_CURVES) if shipped else None


def read_curves(path: Path) -> dict[str, np.ndarray]:
    """The training table's columns as float64 arrays.  Lines that begin with # are comments.

    Raises ValueError where the file has no rows or a value is not a number.
    """
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    if not rows:
        raise ValueError(f"the training table {path.name} has no rows")
    try:
        return {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"the training table {path.name} must hold numbers only: {error}"
        ) from None


def seed_effects(curves: TrainingCurves, corners: Corners, rule: Rule) -> tuple[Effect, ...] | str:
    """Effects with the seed as the unit, at equal tokens and at equal loss; or why there are none.

    Equal tokens: the largest number of tokens that every run has seen.  Equal loss: each run's gain
    where its held-out loss, at the smaller context for all, first reaches the lowest loss of the
    run that ends worst; interpolated between checkpoints.  That is descriptive: runs reach it at
    different steps.  At equal tokens a small context has seen more first positions; where the table
    has a control that begins as few sequences with a BOS, context's effect against it comes third.
    """
    loss = f"loss_{corners[0][0]:.0f}"
    wanted = ("context", "theta", "bos_every", "seed", "tokens", loss, GAIN_COLUMN)
    missing = [name for name in wanted if name not in curves]
    if missing:
        return f"the training table lacks {', '.join(missing)}"
    cells = [_runs(curves, corner, 1, loss) for corner in corners]
    seeds = sorted(set.intersection(*(set(cell) for cell in cells)))
    if len(seeds) < 2:
        return f"all four cells share {len(seeds)} seeds in the training table, 2 are needed"
    every = [cell[seed] for cell in cells for seed in seeds]
    tokens = min(run["tokens"][-1] for run in every)
    worst = max(run["loss"].min() for run in every)
    at_tokens = [np.array([_at_tokens(cell[seed], tokens) for seed in seeds]) for cell in cells]
    at_loss = [np.array([_at_loss(cell[seed], worst) for seed in seeds]) for cell in cells]
    effects = (
        *effects_of(at_tokens, "seeds", AT_TOKENS, rule),
        *effects_of(at_loss, "seeds", AT_LOSS, rule),
    )
    fewer = round(corners[2][0] / corners[0][0])
    controls = [_runs(curves, corner, fewer, loss) for corner in corners[:2]]
    if any(seed not in cell for cell in controls for seed in seeds):
        return effects
    at_firsts = [np.array([_at_tokens(cell[s], tokens) for s in seeds]) for cell in controls]
    _, context, _ = contrasts([*at_firsts, *at_tokens[2:]])
    interval = seed_interval(context, confidence=rule.confidence)
    return (*effects, Effect("context", "seeds", AT_FIRSTS, interval))


def _runs(
    curves: TrainingCurves, corner: Corner, bos_every: int, loss: str
) -> dict[float, dict[str, np.ndarray]]:
    """By seed: tokens, loss and gain of a cell's runs along training."""
    in_cell = (curves["context"] == corner[0]) & (curves["theta"] == corner[1])
    in_cell &= curves["bos_every"] == bos_every
    columns = {"tokens": "tokens", "loss": loss, "gain": GAIN_COLUMN}
    runs: dict[float, dict[str, np.ndarray]] = {}
    for seed in np.unique(curves["seed"][in_cell]):
        rows = np.flatnonzero(in_cell & (curves["seed"] == seed))
        rows = rows[np.argsort(curves["tokens"][rows], kind="stable")]
        runs[float(seed)] = {
            short: curves[name][rows].astype(np.float64) for short, name in columns.items()
        }
    return runs


def _at_tokens(run: Mapping[str, np.ndarray], tokens: float) -> float:
    return float(np.interp(tokens, run["tokens"], run["gain"]))


def _at_loss(run: Mapping[str, np.ndarray], target: float) -> float:
    """The gain where the loss first falls to the target; NaN where it began below it."""
    best = np.minimum.accumulate(run["loss"])
    fresh = np.concatenate([[True], best[1:] < best[:-1]])
    return float(np.interp(target, best[fresh][::-1], run["gain"][fresh][::-1], right=np.nan))
