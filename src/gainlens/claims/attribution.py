"""What a difference can be put down to: the effects of a 2 x 2 design of theta and context.

Two models identify nothing unless they differ in theta and context alone; and when those two change
together, only further models (controls) at the other two corners of the design separate them.  Over
prompts an effect speaks of these weights; over seeds (the training table) it speaks of training.
"""

from collections.abc import Sequence
from typing import Final

from gainlens.claims.design import (
    AT_FIRSTS,
    AT_LOSS,
    AT_TOKENS,
    corner_of,
    effects_of,
    find_corners,
)
from gainlens.claims.identification import identify
from gainlens.claims.intervals import mean_interval
from gainlens.claims.pairing import paired_prompts
from gainlens.claims.training_table import TrainingCurves, seed_effects
from gainlens.core.spec import Rule
from gainlens.records.comparison import ModelReport
from gainlens.records.verdict import Effect

_NAMES: Final = {"theta:context": "their interaction"}


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
    found = find_corners(reports, short, long)
    if isinstance(found, str):
        return (), f"not attributable: {found}"
    corners, chosen = found
    values = paired_prompts(chosen, rule)
    if values is None:
        return (), "not attributable: the four models share too few prompts to be compared"
    effects = effects_of(values, "prompts", AT_TOKENS, rule)
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
    low, high = corner_of(short), corner_of(long)
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
