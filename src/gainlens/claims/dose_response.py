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
_RUN: Final = ["group", "context", "theta", "seed"]
_DECAYS_FROM: Final = 0.8
"""Share of the steps after which the learning rate decays, by the design file."""


@dataclass(frozen=True)
class Design:
    """Hold one number per run of a complete design."""

    contexts: tuple[int, ...]
    thetas: tuple[float, ...]
    seeds: tuple[int, ...]
    values: Float64[np.ndarray, "context theta seed"]


@dataclass(frozen=True)
class ControlEffects:
    """Hold two differences of a control's runs, paired by seed, in the measure's unit."""

    same_context: Interval
    """control minus the runs of its context: what more first positions do"""
    shortest_context: Interval
    """control minus the runs of the shortest context, which sees as many first positions: what the
    context does"""


@dataclass(frozen=True)
class ControlTrends:
    """Hold what the controls of all contexts say together, in the measure's unit."""

    first_positions: Interval
    """control minus the runs of its context, mean over contexts: what more first positions do"""
    context: Interval
    """slope per doubling of the context, over the shortest context and the controls, which all see
    equally many first positions: what the context does"""


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
    table = _table(path)
    rows = _last_block(table.loc[table["group"] == "dose"], measure, positions)
    rows = rows.loc[rows["context"].isin(_complete(rows, rows))]
    contexts, thetas, seeds = (tuple(sorted(rows[name].unique().tolist())) for name in _RUN[1:])
    if len(contexts) < 2:
        raise ValueError("the training table has fewer than two contexts with every theta and seed")
    ends = _ends(table, rows, equal_loss)  # sorted by context, theta and seed
    values = ends.to_numpy().reshape(len(contexts), len(thetas), len(seeds))
    return Design(contexts, thetas, seeds, values)


def control_effects(
    path: Path = SHIPPED,
    measure: str = "log_gain",
    positions: str = "",
    *,
    equal_loss: bool = False,
) -> dict[int, ControlEffects]:
    """Return, per context, what its control with many first positions says; see `read_design`.

    A control trains at a long context and sees as many first positions as the shortest context
    does.  All runs have the controls' theta.  The intervals are Student's t over the seeds'
    differences, simultaneous over the two of a context (Bonferroni), 95 %.  They are not
    simultaneous over contexts; `control_trends` takes all contexts together.

    Raises ValueError if the table has no context whose control has every seed.
    """
    plain, controls = _with_controls(path, measure, positions, equal_loss)
    shortest = plain.values[0, 0]
    return {
        context: ControlEffects(_one_of_two(many - few), _one_of_two(many - shortest))
        for context, few, many in zip(
            plain.contexts[1:], plain.values[1:, 0], controls.values[1:, 0], strict=True
        )
    }


def control_trends(
    path: Path = SHIPPED,
    measure: str = "log_gain",
    positions: str = "",
    *,
    equal_loss: bool = False,
) -> ControlTrends:
    """Return what the controls of all contexts say together; see `control_effects`.

    Each seed gives one mean difference and one slope.  The intervals are Student's t over the
    seeds, simultaneous over the two (Bonferroni), 95 %.

    Raises ValueError if the table has no context whose control has every seed.
    """
    plain, controls = _with_controls(path, measure, positions, equal_loss)
    more = (controls.values - plain.values)[1:, 0].mean(axis=0)
    return ControlTrends(_one_of_two(more), _one_of_two(_slopes(controls)[0]))


def _one_of_two(values: Float64[np.ndarray, " seed"]) -> Interval:
    return seed_interval(values, confidence=1 - 0.05 / 2)


def _with_controls(
    path: Path, measure: str, positions: str, equal_loss: bool
) -> tuple[Design, Design]:
    """Return the plain runs and the controls, of the shortest context and those with a control.

    The shortest context is its own control.  At equal loss all these runs share one loss.
    """
    table = _table(path)
    among = table.loc[table["group"].isin(["dose", "first_positions"])]
    rows = _last_block(among, measure, positions)
    controls = rows.loc[rows["group"] == "first_positions"]
    plain = rows.loc[(rows["group"] == "dose") & rows["theta"].isin(controls["theta"])]
    complete = set(_complete(plain, plain))
    found = [context for context in _complete(controls, plain) if context in complete]
    if not found:
        raise ValueError("the training table has no context whose control has every seed")
    shortest = int(plain["context"].min())
    plain = plain.loc[plain["context"].isin([shortest, *found])]
    controls = controls.loc[controls["context"].isin(found)]
    ends = _ends(table, rows.loc[[*plain.index, *controls.index]], equal_loss)
    few = [ends.loc["dose", context].to_numpy() for context in (shortest, *found)]
    many = [ends.loc["first_positions", context].to_numpy() for context in found]
    thetas, seeds = (tuple(sorted(plain[name].unique().tolist())) for name in ("theta", "seed"))

    def design(runs: list[Float64[np.ndarray, " seed"]]) -> Design:
        values = np.stack(runs).reshape(len(found) + 1, len(thetas), len(seeds))
        return Design((shortest, *found), thetas, seeds, values)

    return design(few), design([few[0], *many])


def _table(path: Path) -> Any:
    import pandas as pd

    return pd.read_parquet(path)  # pandas' types are partial


def _last_block(table: Any, measure: str, positions: str) -> Any:
    """Return a measure's rows, of the last block if it has blocks; ValueError if there are none."""
    rows = table.loc[(table["measure"] == measure) & (table["positions"] == positions)]
    if rows.empty:
        raise ValueError(f"the training table has no {measure!r} at positions {positions!r}")
    return rows.loc[rows["block"] == rows["block"].max()]


def _ends(table: Any, rows: Any, equal_loss: bool) -> Any:
    """Return one number per run, by _RUN: the last point of training, or that at equal loss."""
    values = rows.pivot(index="tokens", columns=_RUN, values="value")  # sorted
    ends = values.iloc[-1].astype(np.float64)
    if equal_loss:
        ends[:] = _at_equal_loss(table, values)
    return ends


def _complete(rows: Any, like: Any) -> list[int]:
    """Return the contexts of which every theta and seed that `like` has is there."""
    wanted = like["theta"].nunique() * like["seed"].nunique()
    counts = rows[_RUN].drop_duplicates().groupby("context").size()
    return counts.index[counts == wanted].tolist()


def _at_equal_loss(table: Any, measured: Any) -> Float64[np.ndarray, " run"]:
    """Return each run's value where its loss first falls to the lowest that all reach.

    table: every measure; measured: the values, a row per point of training and a column per run.
    """
    shortest = min(context for _, context, _, _ in measured.columns)
    at_length = table.loc[(table["measure"] == "loss") & (table["length"] == shortest)]
    by_run = at_length.pivot(index="tokens", columns=_RUN, values="value")
    losses = by_run.loc[measured.index, measured.columns].to_numpy(np.float64)
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
    slopes = _slopes(design)
    return {
        "context": slopes.mean(axis=0),
        "theta": (design.values[:, -1] - design.values[:, 0]).mean(axis=0),
        "theta:context": slopes[-1] - slopes[0],
    }


def _slopes(design: Design) -> Float64[np.ndarray, "theta seed"]:
    """Return the slopes over the context's logarithm to base 2, per doubling."""
    doublings = np.log2(np.array(design.contexts, dtype=np.float64))
    centred = doublings - doublings.mean()
    return np.tensordot(centred, design.values, axes=1) / (centred @ centred)


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
