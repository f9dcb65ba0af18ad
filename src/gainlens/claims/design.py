"""Define the 2 x 2 design of theta and context: corners, contrasts, effects over prompts."""

import itertools
from collections.abc import Sequence
from typing import Final

import numpy as np
from jaxtyping import Float64

from gainlens.claims.identification import identify
from gainlens.claims.pairing import mean_over_prompts
from gainlens.core.spec import Rule
from gainlens.core.vocabulary import Basis
from gainlens.records.comparison import ModelReport
from gainlens.records.verdict import Effect

Corner = tuple[float, float]
"""(context in tokens, theta)"""
Corners = tuple[Corner, ...]
"""four: (small context, small theta), (small, large), (large, small), (large, large)"""

FACTORS: Final = ("theta", "context", "theta:context")
EQUAL_TOKENS: Final[Basis] = "equal tokens"
EQUAL_LOSS: Final[Basis] = "equal loss"
EQUAL_FIRSTS: Final[Basis] = "equal tokens and equally many first positions"


class NotAttributable(Exception):
    """Raised with the reason why a difference cannot be put down to theta or context."""


def contrasts(
    values: Sequence[Float64[np.ndarray, " unit"]],
) -> tuple[Float64[np.ndarray, " unit"], ...]:
    """Return main effects of theta and context, and their interaction, per prompt or seed; nats.

    `values` come in the order of `Corners`.  A main effect is larger minus smaller level, averaged
    over the other factor's levels.  The interaction is theta's effect at the large context minus
    its effect at the small one.
    """
    small_small, small_large, large_small, large_large = values
    theta = (small_large - small_small + large_large - large_small) / 2
    context = (large_small - small_small + large_large - small_large) / 2
    return theta, context, large_large - large_small - small_large + small_small


def simple_contrasts(
    values: Sequence[Float64[np.ndarray, " unit"]], corners: Corners
) -> dict[str, Float64[np.ndarray, " unit"]]:
    """Return the effect of either factor at each level of the other, by name; nats."""
    small_small, small_large, large_small, large_large = values
    (context, theta), (long_context, large_theta) = corners[0], corners[3]
    return {
        f"theta at context {context:,.0f}": small_large - small_small,
        f"theta at context {long_context:,.0f}": large_large - large_small,
        f"context at theta {theta:,.0f}": large_small - small_small,
        f"context at theta {large_theta:,.0f}": large_large - small_large,
    }


def find_corners(
    reports: Sequence[ModelReport], short: ModelReport, long: ModelReport
) -> tuple[Corners, tuple[ModelReport, ...]]:
    """Return the design's corners and the reports that stand on them.

    Raises NotAttributable, naming the corners, if the comparison lacks a control.
    """
    on_corner: dict[Corner, ModelReport] = {}
    for report in (short, long, *(r for r in reports if r.role == "control")):
        corner = corner_of(report)
        if corner is not None and identify(short.checkpoint, report.checkpoint).controlled:
            on_corner.setdefault(corner, report)
    contexts, thetas = (sorted(levels) for levels in zip(*list(on_corner)[:2], strict=True))
    corners = tuple(itertools.product(contexts, thetas))
    assert len(corners) == 4, "short and long stand on opposite corners"
    missing = [corner for corner in corners if corner not in on_corner]
    if missing:
        wanted = " and ".join(f"context {c:,.0f} with theta {t:,.0f}" for c, t in missing)
        raise NotAttributable(
            f"theta and context change together, and there is no control of {wanted}"
        )
    return corners, tuple(on_corner[corner] for corner in corners)


def corner_of(report: ModelReport) -> Corner | None:
    """Return context and theta of a model, or None if it has no RoPE."""
    theta = report.rope.rope_theta
    return None if theta is None else (float(report.checkpoint.context), float(theta))


def prompt_effects(
    values: Sequence[Float64[np.ndarray, " prompt"]], corners: Corners, rule: Rule
) -> tuple[Effect, ...]:
    """Return the effects with the prompt as the unit: they speak of these weights alone.

    If the interaction leaves out 0 the simple effects follow, because a main effect then averages
    over effects that differ.
    """

    def effect(factor: str, contrast: np.ndarray) -> Effect:
        return Effect(factor, "prompts", EQUAL_TOKENS, mean_over_prompts(contrast, rule))

    main = tuple(map(effect, FACTORS, contrasts(values)))
    if not main[2].log_gain.excludes_zero:
        return main
    simple = simple_contrasts(values, corners)
    return (*main, *(effect(name, contrast) for name, contrast in simple.items()))
