"""What a difference can be put down to: the effects of a 2 x 2 design of theta and context.

Two models identify nothing unless they differ in theta and context alone; and when those two change
together, only further models (controls) at the other two corners of the design separate them.  Over
prompts an effect speaks of these weights; over seeds (the training table) it speaks of training.
"""

import csv
import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import Float64

from gainlens.differences import paired_prompts
from gainlens.identification import identify
from gainlens.records import Effect, Interval, ModelReport
from gainlens.spec import TWIN_PREFIX, ComparisonSpec, Rule
from gainlens.stats import mean_interval, seed_interval

TrainingCurves = Mapping[str, np.ndarray]
"""Equally long columns, one entry a run and checkpoint: context (tokens), theta, bos_every (k:
every k-th sequence begins with a BOS), seed, tokens (seen so far), loss_<context> (held-out, nats a
token) and log_gain_last_ordinary (nats, the primary estimand)."""

GAIN_COLUMN: Final = "log_gain_last_ordinary"
FACTORS: Final = ("theta", "context", "theta:context")
_NAMES: Final = {"theta:context": "their interaction"}
AT_TOKENS: Final = "equal tokens"
AT_LOSS: Final = "equal loss"
AT_FIRSTS: Final = "equal tokens and equally many first positions"
Corner = tuple[float, float]
"""(context in tokens, theta)"""
Corners = tuple[Corner, ...]
"""four: (small context, small theta), (small, large), (large, small), (large, large)"""


SHIPPED_CURVES: Final = Path(__file__).parent / "data" / "twins_training.csv"


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


def contrasts(
    values: Sequence[Float64[np.ndarray, " unit"]],
) -> tuple[Float64[np.ndarray, " unit"], ...]:
    """Main effects of theta and context, and their interaction, a unit (prompt or seed); nats.

    `values` in the order of `Corners`.  A main effect is the mean over the other factor's levels of
    larger minus smaller level; the interaction is theta's effect at the large context minus its
    effect at the small one.
    """
    small_small, small_large, large_small, large_large = values
    theta = (small_large - small_small + large_large - large_small) / 2
    context = (large_small - small_small + large_large - small_large) / 2
    return theta, context, large_large - large_small - small_large + small_small


def _effects(values: Sequence[np.ndarray], unit: str, at: str, rule: Rule) -> tuple[Effect, ...]:
    interval: Callable[[np.ndarray], Interval] = partial(seed_interval, confidence=rule.confidence)
    if unit == "prompts":
        interval = partial(
            mean_interval, confidence=rule.confidence, resamples=rule.resamples, seed=rule.seed
        )
    return tuple(
        Effect(factor, unit, at, interval(contrast))
        for factor, contrast in zip(FACTORS, contrasts(values), strict=True)
    )


def attribute(
    reports: Sequence[ModelReport], rule: Rule, curves: TrainingCurves | None
) -> tuple[tuple[Effect, ...], str]:
    """Effects of theta and of context on the last block's log gain, and one sentence on them."""
    short, long = (next(r for r in reports if r.role == role) for role in ("short", "long"))
    changed = _changed(short, long)
    if isinstance(changed, str):
        return (), f"not attributable: {changed}"
    if len(changed) == 1:
        return _one_factor(short, long, changed[0], rule)
    found = _two_by_two(reports, short, long)
    if isinstance(found, str):
        return (), f"not attributable: {found}"
    corners, chosen = found
    values = paired_prompts(chosen, rule)
    if values is None:
        return (), "not attributable: the four models share too few prompts to be compared"
    effects = _effects(values, "prompts", AT_TOKENS, rule)
    if curves is None:
        return effects, f"{_sentence(effects)} (over prompts: one training run a cell)"
    over_seeds = seed_effects(curves, corners, rule)
    if isinstance(over_seeds, str):
        return effects, f"{_sentence(effects)} (over prompts alone: {over_seeds})"
    return (*effects, *over_seeds), training_note(over_seeds, effects)


def _changed(short: ModelReport, long: ModelReport) -> tuple[str, ...] | str:
    """Which of context and theta differ, where nothing else does; or why that cannot be said."""
    differing = identify(short.checkpoint, long.checkpoint).differing
    if differing:
        more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
        return f"short and long also differ in {', '.join(differing[:3])}{more}"
    low, high = _corner(short), _corner(long)
    if low is None or high is None:
        return "a model without RoPE has no theta"
    if low == high:
        return "short and long have one theta and one context"
    return tuple(n for n, a, b in zip(("context", "theta"), low, high, strict=True) if a != b)


def _one_factor(
    short: ModelReport, long: ModelReport, factor: str, rule: Rule
) -> tuple[tuple[Effect, ...], str]:
    """Two models that differ in one thing: the difference is its effect."""
    values = paired_prompts((short, long), rule)
    if values is None:
        return (), "not attributable: the two models share too few prompts to be compared"
    interval = mean_interval(
        values[1] - values[0], confidence=rule.confidence, resamples=rule.resamples, seed=rule.seed
    )
    effects = (Effect(factor, "prompts", AT_TOKENS, interval),)
    note = f"{_sentence(effects)}: nothing else differs (over prompts: one training run each)"
    return effects, note


def _two_by_two(
    reports: Sequence[ModelReport], short: ModelReport, long: ModelReport
) -> tuple[Corners, tuple[ModelReport, ...]] | str:
    """The design's corners and the four reports that stand on them, or which control is missing."""
    standing: dict[Corner, ModelReport] = {}
    for report in (short, long, *(r for r in reports if r.role == "control")):
        place = _corner(report)
        if place is not None and identify(short.checkpoint, report.checkpoint).controlled:
            standing.setdefault(place, report)
    contexts, thetas = (sorted(levels) for levels in zip(*list(standing)[:2], strict=True))
    corners = tuple(itertools.product(contexts, thetas))
    assert len(corners) == 4, "short and long stand on opposite corners"
    missing = [corner for corner in corners if corner not in standing]
    if missing:
        wanted = " and ".join(f"context {c:,.0f} with theta {t:,.0f}" for c, t in missing)
        return f"theta and context change together, and there is no control of {wanted}"
    return corners, tuple(standing[corner] for corner in corners)


def _corner(report: ModelReport) -> Corner | None:
    theta = report.rope.rope_theta
    return None if theta is None else (float(report.checkpoint.context), float(theta))


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
        *_effects(at_tokens, "seeds", AT_TOKENS, rule),
        *_effects(at_loss, "seeds", AT_LOSS, rule),
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


def training_note(over_seeds: Sequence[Effect], over_prompts: Sequence[Effect]) -> str:
    """One sentence on the effects over seeds, on what is left of them at equal loss, and on what
    prompts alone would have claimed."""
    tokens, loss, firsts = (
        [effect for effect in over_seeds if effect.at == at]
        for at in (AT_TOKENS, AT_LOSS, AT_FIRSTS)
    )
    text = f"{_sentence(tokens)} ({tokens[0].log_gain.n} seeds a cell, {AT_TOKENS})"
    if firsts:
        text += f", of context {_shown(firsts[0])} with {AT_FIRSTS.partition(' and ')[2]}"
    text += f"; at {AT_LOSS} (descriptive) {_sentence(loss)}"
    claimed = _claimed(tokens)
    gone = [name for name in claimed if name not in _claimed(loss)]
    luck = [name for name in _claimed(over_prompts) if name not in claimed]
    if not claimed:
        text += "; over seeds none can be told from 0"
    if gone:
        text += f"; the effect of {_listed(gone)} cannot be told from training progress"
    if luck:
        text += (
            f"; over prompts alone that of {_listed(luck)} would be claimed, "
            "which speaks of these weights and not of training"
        )
    return text


def _claimed(effects: Sequence[Effect]) -> list[str]:
    """Factors whose interval leaves out 0."""
    return [e.factor for e in effects if e.log_gain.low > 0 or e.log_gain.high < 0]


def _listed(factors: Sequence[str]) -> str:
    return " and of ".join(_NAMES.get(factor, factor) for factor in factors)


def _shown(effect: Effect) -> str:
    found = effect.log_gain
    doubt = f"[{found.low:+.3f}, {found.high:+.3f}]" if found.known else f"({found.status})"
    return f"{found.estimate:+.3f} {doubt}"


def _sentence(effects: Sequence[Effect]) -> str:
    parts = [f"of {_NAMES.get(e.factor, e.factor)} {_shown(e)}" for e in effects]
    return "effect in nats " + ", ".join(parts)
