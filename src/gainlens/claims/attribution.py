"""Say what a difference between two models can be put down to: theta, context, or neither.

Two models identify nothing unless they differ in theta and context alone.  If those two change
together, only control models at the other two corners of the design separate them.  An effect over
prompts speaks of these weights; over seeds (the training table) it speaks of training.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from gainlens.claims.design import (
    EQUAL_FIRSTS,
    EQUAL_TOKENS,
    NotAttributable,
    corner_of,
    find_corners,
    prompt_effects,
)
from gainlens.claims.identification import identify
from gainlens.claims.pairing import mean_over_prompts, paired_prompts
from gainlens.claims.training_table import TrainingCurves, seed_effects
from gainlens.core.spec import Rule
from gainlens.records.comparison import ModelReport
from gainlens.records.verdict import Effect

_NAMES: Final = {"theta:context": "their interaction"}


def attribute(
    reports: Sequence[ModelReport], rule: Rule, curves: TrainingCurves | None
) -> tuple[tuple[Effect, ...], str]:
    """Return the effects of theta and context on the last block's log gain, and a note on them."""
    short, long = (next(r for r in reports if r.role == role) for role in ("short", "long"))
    try:
        changed = _changed(short, long)
        if len(changed) == 1:
            return _one_factor(short, long, changed[0], rule)
        corners, chosen = find_corners(reports, short, long)
        values = paired_prompts(chosen, rule)
        if values is None:
            raise NotAttributable("the four models share too few prompts to be compared")
    except NotAttributable as reason:
        return (), f"not attributable: {reason}"
    effects = prompt_effects(values, corners, rule)
    if curves is None:
        return effects, f"{_listed(effects[:3])} over prompts: one training run per cell"
    try:
        over_seeds = seed_effects(curves, corners, rule)
    except NotAttributable as reason:
        return effects, f"{_listed(effects[:3])} over prompts alone: {reason}"
    return (*effects, *over_seeds), seeds_note(over_seeds)


def _changed(short: ModelReport, long: ModelReport) -> tuple[str, ...]:
    """Return which of context and theta differ; NotAttributable if anything else does."""
    differing = identify(short.checkpoint, long.checkpoint).differing
    if differing:
        more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
        raise NotAttributable(f"short and long also differ in {', '.join(differing[:3])}{more}")
    low, high = corner_of(short), corner_of(long)
    if low is None or high is None:
        raise NotAttributable("a model without RoPE has no theta")
    if low == high:
        raise NotAttributable("short and long have one theta and one context")
    return tuple(n for n, a, b in zip(("context", "theta"), low, high, strict=True) if a != b)


def _one_factor(
    short: ModelReport, long: ModelReport, factor: str, rule: Rule
) -> tuple[tuple[Effect, ...], str]:
    """Return the difference of two models that differ in one thing: it is that thing's effect."""
    values = paired_prompts((short, long), rule)
    if values is None:
        raise NotAttributable("the two models share too few prompts to be compared")
    interval = mean_over_prompts(values[1] - values[0], rule)
    effects = (Effect(factor, "prompts", EQUAL_TOKENS, interval),)
    return effects, f"{_listed(effects)} over prompts: nothing else differs, one training run each"


def seeds_note(effects: Sequence[Effect]) -> str:
    """Say in one or two sentences what training shows, and what it could not have shown."""
    main = [e for e in effects if e.at == EQUAL_TOKENS and e.component is None][:3]
    seeds = main[0].log_gain.n
    claimed = [effect for effect in main if effect.log_gain.excludes_zero]
    note = f"{_listed(main)} over {seeds} seeds per cell"
    firsts = [effect for effect in effects if effect.at == EQUAL_FIRSTS]
    if firsts:
        note += f" ({_shown(firsts[0])} of context with equally many first positions)"
    visible = [e for e in main if e not in claimed and e.smallest_visible is not None]
    if visible and np.isfinite([e.smallest_visible for e in visible if e.smallest_visible]).all():
        limits = " and ".join(
            f"of {_NAMES.get(e.factor, e.factor)} below {e.smallest_visible:.2f}" for e in visible
        )
        note += f"; with {seeds} seeds effects {limits} nats cannot be seen"
    parts = [e for e in effects if e.component and e.log_gain.excludes_zero]
    if parts:
        told = ", ".join(f"of {e.factor} on {_part(e)} {_shown(e)}" for e in parts)
        note += f"; by component: {told}"
    return note


def _part(effect: Effect) -> str:
    return "the MLP" if effect.component == "mlp" else "attention"


def _shown(effect: Effect) -> str:
    interval = effect.log_gain
    if not interval.known:
        return f"{interval.estimate:+.3f} ({interval.status})"
    return f"{interval.estimate:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"


def _listed(effects: Sequence[Effect]) -> str:
    parts = [f"of {_NAMES.get(e.factor, e.factor)} {_shown(e)}" for e in effects]
    return f"effect in nats {', '.join(parts)}"
