"""TODO: claims.design."""

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import numpy as np
from jaxtyping import Float64

from gainlens.claims.identification import identify
from gainlens.claims.intervals import mean_interval, seed_interval
from gainlens.core.spec import Rule
from gainlens.records.comparison import ModelReport
from gainlens.records.interval import Interval
from gainlens.records.verdict import Effect

Corner = tuple[float, float]
"""(context in tokens, theta)"""
Corners = tuple[Corner, ...]
"""four: (small context, small theta), (small, large), (large, small), (large, large)"""


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


def find_corners(
    reports: Sequence[ModelReport], short: ModelReport, long: ModelReport
) -> tuple[Corners, tuple[ModelReport, ...]] | str:
    """The design's corners and the four reports that stand on them, or which control is missing."""
    standing: dict[Corner, ModelReport] = {}
    for report in (short, long, *(r for r in reports if r.role == "control")):
        place = corner_of(report)
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


def corner_of(report: ModelReport) -> Corner | None:
    theta = report.rope.rope_theta
    return None if theta is None else (float(report.checkpoint.context), float(theta))


FACTORS: Final = ("theta", "context", "theta:context")
AT_TOKENS: Final = "equal tokens"
AT_LOSS: Final = "equal loss"
AT_FIRSTS: Final = "equal tokens and equally many first positions"


def effects_of(values: Sequence[np.ndarray], unit: str, at: str, rule: Rule) -> tuple[Effect, ...]:
    interval: Callable[[np.ndarray], Interval] = partial(seed_interval, confidence=rule.confidence)
    if unit == "prompts":
        interval = partial(
            mean_interval, confidence=rule.confidence, resamples=rule.resamples, seed=rule.seed
        )
    return tuple(
        Effect(factor, unit, at, interval(contrast))
        for factor, contrast in zip(FACTORS, contrasts(values), strict=True)
    )
