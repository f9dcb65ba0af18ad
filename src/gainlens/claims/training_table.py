"""Read the table along training, and reduce its runs to one number per cell and seed."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from gainlens.claims.design import (
    EQUAL_FIRSTS,
    EQUAL_LOSS,
    EQUAL_TOKENS,
    FACTORS,
    Corner,
    Corners,
    NotAttributable,
    contrasts,
    simple_contrasts,
)
from gainlens.claims.seeds import Cells, contrast_intervals
from gainlens.core.presets import TWIN_PREFIX
from gainlens.core.spec import ComparisonSpec, Rule
from gainlens.core.vocabulary import COMPONENTS, Basis, Component
from gainlens.records.verdict import Effect

TrainingCurves = Mapping[str, np.ndarray]
"""Equally long columns, one entry per run and checkpoint: context (tokens), theta, bos_every (k:
every k-th sequence begins with a BOS), seed, tokens (seen so far), learning_rate, loss_<context>
(held-out, nats per token), log_gain_last_ordinary (nats, the primary estimand) and its parts
attention_last_ordinary and mlp_last_ordinary"""

GAIN_COLUMN: Final = "log_gain_last_ordinary"
_PART_COLUMNS: Final = tuple(f"{component}_last_ordinary" for component in COMPONENTS)
SHIPPED_CURVES: Final = Path(__file__).parents[1] / "data" / "twins_training.csv"
_DECAYED: Final = 0.99
"""The learning rate decays from where it falls below this share of the run's highest."""

Run = Mapping[str, np.ndarray]
"""one entry per checkpoint, in the order of tokens"""


def shipped_curves(spec: ComparisonSpec) -> TrainingCurves | None:
    """Return the twins' table along training if only twins are compared, else None."""
    shipped = all(model.hf_name.startswith(TWIN_PREFIX) for model in spec.models)
    return read_curves(SHIPPED_CURVES) if shipped else None


def read_curves(path: Path) -> dict[str, np.ndarray]:
    """Read the training table's columns as float64 arrays.  Lines that begin with # are comments.

    Raises ValueError if the file has no rows or a value is not a number.
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


def seed_effects(curves: TrainingCurves, corners: Corners, rule: Rule) -> tuple[Effect, ...]:
    """Return effects with the seed as the unit, at equal tokens and, if possible, at equal loss.

    Equal tokens: the largest number of tokens that every run has seen.  There the components'
    effects follow, and simple effects if the interaction leaves out 0.  Equal loss: each run's gain
    when its held-out loss, at the smaller context for all, first reaches the lowest loss that every
    run reaches before its learning rate decays.  Context's effect comes once more against a control
    that begins as few sequences with a BOS, if the table has one: at equal tokens a small context
    has seen more first positions.

    Raises NotAttributable if the table lacks columns or seeds.
    """
    wanted = ("context", "theta", "bos_every", "seed", "tokens", GAIN_COLUMN)
    missing = [name for name in wanted if name not in curves]
    if missing:
        raise NotAttributable(f"the training table lacks {', '.join(missing)}")
    cells = [_runs(curves, corner, 1) for corner in corners]
    seeds = sorted(set.intersection(*(set(cell) for cell in cells)))
    if len(seeds) < 2:
        raise NotAttributable(
            f"all four cells share {len(seeds)} seeds in the training table, 2 are needed"
        )
    runs = [[cell[seed] for seed in seeds] for cell in cells]
    tokens = min(run["tokens"][-1] for cell in runs for run in cell)
    at_tokens = _at_tokens(runs, tokens, GAIN_COLUMN)
    effects = _effects(at_tokens, EQUAL_TOKENS, rule)
    if effects[-1].log_gain.excludes_zero:
        weights = simple_contrasts(list(np.eye(4)), corners)
        effects += _effects(at_tokens, EQUAL_TOKENS, rule, weights)
    if all(name in curves for name in _PART_COLUMNS):
        effects += _component_effects(runs, tokens, rule)
    loss = f"loss_{corners[0][0]:.0f}"
    if loss in curves and "learning_rate" in curves:
        at_loss = _at_equal_loss(runs, loss)
        if not np.isnan(at_loss).any():
            effects += _effects(at_loss, EQUAL_LOSS, rule)
    controls = [_runs(curves, corner, _fewer_firsts(corners)) for corner in corners[:2]]
    if all(seed in cell for cell in controls for seed in seeds):
        at_firsts = _at_tokens([[c[s] for s in seeds] for c in controls], tokens, GAIN_COLUMN)
        values = np.concatenate([at_firsts, at_tokens[2:]])
        effects += (_effects(values, EQUAL_FIRSTS, rule)[1],)
    return effects


def _fewer_firsts(corners: Corners) -> int:
    """Return k so that a small-context run with a BOS in every k-th sequence sees as many BOS."""
    return round(corners[2][0] / corners[0][0])


def _weights() -> dict[str, np.ndarray]:
    return dict(zip(FACTORS, contrasts(list(np.eye(4))), strict=True))


def _effects(
    values: Cells, at: Basis, rule: Rule, weights: Mapping[str, np.ndarray] | None = None
) -> tuple[Effect, ...]:
    """Return the contrasts with these weights of the cells; by default those of FACTORS."""
    found = contrast_intervals(values, weights or _weights(), rule.confidence)
    return tuple(
        Effect(factor, "seeds", at, interval, smallest_visible=visible)
        for factor, (interval, visible) in found.items()
    )


def _component_effects(
    runs: Sequence[Sequence[Run]], tokens: float, rule: Rule
) -> tuple[Effect, ...]:
    """Return the effects on both components' parts, simultaneous over all six contrasts."""
    family = len(COMPONENTS) * len(FACTORS)
    effects: list[Effect] = []
    components: tuple[Component, ...] = COMPONENTS
    for component, column in zip(components, _PART_COLUMNS, strict=True):
        found = contrast_intervals(
            _at_tokens(runs, tokens, column), _weights(), rule.confidence, family
        )
        effects += [
            Effect(factor, "seeds", EQUAL_TOKENS, interval, component, visible)
            for factor, (interval, visible) in found.items()
        ]
    return tuple(effects)


def _runs(curves: TrainingCurves, corner: Corner, bos_every: int) -> dict[float, Run]:
    """Return a cell's runs by seed, each with its columns in the order of tokens."""
    in_cell = (curves["context"] == corner[0]) & (curves["theta"] == corner[1])
    in_cell &= curves["bos_every"] == bos_every
    runs: dict[float, Run] = {}
    for seed in np.unique(curves["seed"][in_cell]):
        rows = np.flatnonzero(in_cell & (curves["seed"] == seed))
        rows = rows[np.argsort(curves["tokens"][rows], kind="stable")]
        runs[float(seed)] = {
            name: values[rows].astype(np.float64) for name, values in curves.items()
        }
    return runs


def _at_tokens(runs: Sequence[Sequence[Run]], tokens: float, column: str) -> Cells:
    return np.array(
        [[np.interp(tokens, run["tokens"], run[column]) for run in cell] for cell in runs]
    )


def _at_equal_loss(runs: Sequence[Sequence[Run]], loss: str) -> Cells:
    """Return each run's gain at the lowest loss that all reach before their rate decays.

    NaN for a run that begins below that loss.
    """
    before = [[_before_decay(run) for run in cell] for cell in runs]
    target = max(run[loss].min() for cell in before for run in cell)
    return np.array([[_at_loss(run, loss, target) for run in cell] for cell in before])


def _before_decay(run: Run) -> Run:
    """Return the checkpoints up to the last at which the learning rate stands at its highest."""
    rate = run["learning_rate"]
    stop = int(np.flatnonzero(rate >= _DECAYED * rate.max())[-1]) + 1
    return {name: values[:stop] for name, values in run.items()}


def _at_loss(run: Run, loss: str, target: float) -> float:
    """Return the gain when the lowest loss so far first falls to the target."""
    lowest = np.minimum.accumulate(run[loss])
    falls = np.concatenate([[True], lowest[1:] < lowest[:-1]])
    gain = run[GAIN_COLUMN]
    return float(np.interp(target, lowest[falls][::-1], gain[falls][::-1], right=np.nan))
