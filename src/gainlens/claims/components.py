"""Compare the two models' outcome and difference under each intervention."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gainlens.claims.behaviour import outcome_of
from gainlens.claims.pairing import difference_of, mean_over_prompts, shared_prompts
from gainlens.core.spec import Rule
from gainlens.core.vocabulary import Outcome
from gainlens.records.comparison import ModelReport
from gainlens.records.interval import Interval
from gainlens.records.interventions import AblatedVerdict, AblationEffect, ThetaDifference


def ablated_verdicts(
    short: ModelReport, long: ModelReport, rule: Rule
) -> tuple[AblatedVerdict, ...]:
    """Return the outcome with each component ablated in one of two models, and in both.

    Args:
        short: report of the short-context model, with its sweep.
        long: report of the long-context model, with its sweep.
        rule: margin of the outcome, and settings of the difference's interval (nats).

    Components that only one sweep has are left out.  The order is that of the short model's sweep.

    Examples:
        >>> short, long = run.report("short"), run.report("long")
        >>> ablated = gainlens.ablated_verdicts(short, long, run.spec.rule)
        >>> all(verdict.before == run.verdict.measured for verdict in ablated)
        True
    """
    others = {(effect.site, effect.how): effect for effect in long.interventions.sweep}
    return tuple(
        _ablated(short, effect, long, others[effect.site, effect.how], rule)
        for effect in short.interventions.sweep
        if (effect.site, effect.how) in others
    )


def _ablated(
    short: ModelReport, own: AblationEffect, long: ModelReport, other: AblationEffect, rule: Rule
) -> AblatedVerdict:
    before = own.change.before.log_gain, other.change.before.log_gain
    after = own.change.after.log_gain, other.change.after.log_gain
    return AblatedVerdict(
        site=own.site,
        how=own.how,
        before=outcome_of(*before, rule),
        short_ablated=outcome_of(after[0], before[1], rule),
        long_ablated=outcome_of(before[0], after[1], rule),
        both_ablated=outcome_of(*after, rule),
        difference=_difference(short, own.last_block, long, other.last_block, rule),
        change=_change(short, own.last_block, long, other.last_block, rule),
    )


def _difference(
    short: ModelReport, own: np.ndarray, long: ModelReport, other: np.ndarray, rule: Rule
) -> Interval:
    return difference_of(replace(short, last_block=own), replace(long, last_block=other), rule)[0]


def _change(
    short: ModelReport, own: np.ndarray, long: ModelReport, other: np.ndarray, rule: Rule
) -> Interval:
    """Return how much an intervention changes long minus short, per prompt."""
    changes = own - short.last_block, other - long.last_block
    shared = shared_prompts((short, long), rule)
    if shared is None:
        return _difference(short, changes[0], long, changes[1], rule)
    return mean_over_prompts(changes[1][shared[1]] - changes[0][shared[0]], rule)


def differences_at_theta(
    short: ModelReport, long: ModelReport, rule: Rule
) -> tuple[ThetaDifference, ...]:
    """Return long minus short with both under one RoPE base, for every base that both have.

    At each base at least one model is off the base that it was trained with, so what remains of a
    difference is not a property of the weights alone.
    """
    others = {dose.theta: dose for dose in long.interventions.theta_dose}
    return tuple(
        ThetaDifference(
            dose.theta,
            _difference(short, dose.last_block, long, others[dose.theta].last_block, rule),
        )
        for dose in short.interventions.theta_dose
        if dose.theta in others
    )


def ablated_outcome(short: ModelReport, long: ModelReport, rule: Rule) -> Outcome | None:
    """Return the outcome with both models ablated as asked for; None if nothing was asked for."""
    own, other = short.interventions.ablated, long.interventions.ablated
    if own is None or other is None:
        return None
    return outcome_of(own.change.after.log_gain, other.change.after.log_gain, rule)


def turning_components(
    verdicts: Sequence[AblatedVerdict], difference: Interval
) -> tuple[AblatedVerdict, ...]:
    """Return the ablations under which the difference has the opposite sign, both beyond 0."""
    if not difference.excludes_zero:
        return ()
    return tuple(
        verdict
        for verdict in verdicts
        if verdict.difference.excludes_zero
        and verdict.difference.estimate * difference.estimate < 0
    )
