"""Compare what an intervention changes with what its random control changes."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from scipy.special import stdtrit

from gainlens.claims.claim import Claim
from gainlens.claims.contrasts import Contrasted, contrast_of
from gainlens.claims.numbers import Values
from gainlens.core.spec import Rule
from gainlens.records.claims import Controlled, Effect, Evidence
from gainlens.records.interval import Interval


def judged_contrast(
    claim: Claim, evidence: Sequence[Evidence], over: str, rule: Rule
) -> Contrasted:
    """Return the intervals that decide a claim, as `contrast_of` does.

    If they are about what an intervention changes beyond its control, they allow for the control's
    draws as well as for prompts.
    """
    found = contrast_of(claim, evidence, over, rule)
    if claim.intervention is None or claim.intervention.against == "plain":
        return found
    error = draw_error(claim, evidence, rule)
    widened = [replace(one, interval=_widened(one.interval, error)) for one in found.estimates]
    return replace(found, estimates=tuple(widened))


def draw_error(claim: Claim, evidence: Sequence[Evidence], rule: Rule) -> float:
    """Return half the width of an interval for the mean over all possible controls.

    Student's t over the draws; 0 if every possible control was drawn.
    """
    means = np.array(_draw_means(claim, evidence, rule))
    ends = [one.controlled.population for one in evidence if one.controlled is not None]
    left = max(1.0 if end is None else 1 - len(means) / end for end in ends)
    if left <= 0:
        return 0.0
    quantile = float(stdtrit(len(means) - 1, (1 + rule.confidence) / 2))
    return quantile * float(means.std(ddof=1)) * float(np.sqrt(left / len(means)))


def _widened(interval: Interval, error: float) -> Interval:
    """Return an interval whose half width is that of prompts and that of draws, in quadrature."""
    half = float(np.hypot(interval.high - interval.estimate, error))
    return replace(interval, low=interval.estimate - half, high=interval.estimate + half)


def _draw_means(claim: Claim, evidence: Sequence[Evidence], rule: Rule) -> list[float]:
    """Return the control's mean change in each draw."""
    founds = [one.controlled for one in evidence if one.controlled is not None]
    quick = rule.model_copy(update={"resamples": 200})  # the estimate alone is kept
    return [
        _of_values(claim, evidence, [found.draws[draw] for found in founds], quick).estimate
        for draw in range(min(len(found.draws) for found in founds))
    ]


def _of_values(
    claim: Claim, evidence: Sequence[Evidence], values_of: Sequence[Values], rule: Rule
) -> Interval:
    """Return the claim's contrast of other values, one array per model."""
    over = claim.estimand.reduction
    changed = [
        replace(one, values={over: values}) for one, values in zip(evidence, values_of, strict=True)
    ]
    return contrast_of(claim, changed, over, rule).estimates[0].interval


def effect_of(claim: Claim, evidence: Sequence[Evidence], rule: Rule) -> Effect:
    """Return the change, the control's change and their paired difference, each with an interval.

    Args:
        claim: has an intervention and a contrast of one number.
        evidence: one per role, measured under the intervention and its control.
        rule: confidence, resamples, seed and the least number of prompts.
    """
    done = claim.intervention
    assert done is not None, "only a claim with an intervention has an effect"
    founds: list[Controlled] = [one.controlled for one in evidence if one.controlled is not None]
    interval = partial(_of_values, claim, evidence, rule=rule)
    error = draw_error(claim, evidence, rule)
    return Effect(
        intervention=done.words,
        control=done.control_words,
        change=interval([found.change for found in founds]),
        control_change=_widened(interval([found.control for found in founds]), error),
        excess=_widened(interval([found.change - found.control for found in founds]), error),
        draws=tuple(_draw_means(claim, evidence, rule)),
        against=done.against,
        exhausted=error == 0.0,
    )
