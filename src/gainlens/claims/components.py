"""What the interventions say: which components the outcome depends on, and whether the gain follows
theta on fixed weights.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gainlens.claims.outcomes import outcome_of
from gainlens.claims.pairing import difference_of
from gainlens.claims.wording import component_label, nats
from gainlens.core.spec import Rule
from gainlens.records.comparison import ModelReport
from gainlens.records.interval import Interval
from gainlens.records.interventions import AblatedVerdict, ThetaDifference, ThetaDose


def ablated_verdicts(
    short: ModelReport, long: ModelReport, rule: Rule
) -> tuple[AblatedVerdict, ...]:
    """The outcome with each component ablated in one of two models, and in both.

    Args:
        short: report of the short-context model, with its sweep.
        long: report of the long-context model, with its sweep.
        rule: of the difference's interval, nats.

    The components that both sweeps have, in the order of the short model's.

    Examples:
        >>> short, long = run.report("short"), run.report("long")
        >>> found = gainlens.ablated_verdicts(short, long, run.spec.rule)
        >>> all(one.before == run.verdict.outcome for one in found)
        True
    """
    others = {(effect.site, effect.how): effect for effect in long.interventions.sweep}
    pairs = [
        (effect, others[effect.site, effect.how])
        for effect in short.interventions.sweep
        if (effect.site, effect.how) in others
    ]
    return tuple(
        AblatedVerdict(
            site=mine.site,
            how=mine.how,
            before=outcome_of(mine.change.before.behaviour, other.change.before.behaviour),
            short_ablated=outcome_of(mine.change.after.behaviour, other.change.before.behaviour),
            long_ablated=outcome_of(mine.change.before.behaviour, other.change.after.behaviour),
            both_ablated=outcome_of(mine.change.after.behaviour, other.change.after.behaviour),
            difference=_difference(short, mine.last_block, long, other.last_block, rule),
        )
        for mine, other in pairs
    )


def differences_at_theta(
    short: ModelReport, long: ModelReport, rule: Rule
) -> tuple[ThetaDifference, ...]:
    """Long minus short with both under one RoPE base, for every base that both were measured at.

    What is left of a difference when theta is the same cannot be theta's doing at run time.
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


def _difference(
    short: ModelReport, mine: np.ndarray, long: ModelReport, other: np.ndarray, rule: Rule
) -> Interval:
    return difference_of(replace(short, last_block=mine), replace(long, last_block=other), rule)[0]


def ablated_outcome(short: ModelReport, long: ModelReport) -> str | None:
    """The outcome where both models are ablated as was asked for; None where nothing was."""
    mine, other = short.interventions.ablated, long.interventions.ablated
    if mine is None or other is None:
        return None
    return outcome_of(mine.change.after.behaviour, other.change.after.behaviour)


def causal_reasons(
    short: ModelReport,
    long: ModelReport,
    components: Sequence[AblatedVerdict],
    at_theta: Sequence[ThetaDifference],
) -> tuple[str, ...]:
    """Plain sentences with numbers: components, the outcome's dependence on them, and theta."""
    pair = (short, long)
    sentences = [line for report in pair if (line := _components(report))]
    if components:
        sentences += [_carriers(components), _dependence(components)]
    sentences += [line for report in pair if (line := _theta(report))]
    sentences += [f"{r.checkpoint.name}: {note}." for r in pair for note in r.interventions.notes]
    if at_theta:
        sentences.append(_same_theta(at_theta))
    outcome = ablated_outcome(short, long)
    if outcome is not None:
        sentences.append(f"Under the ablation that was asked for the outcome is {outcome}.")
    return tuple(sentences)


def _components(report: ModelReport) -> str | None:
    """The components of the last block, ablated in turn."""
    last = [e for e in report.interventions.sweep if e.site.startswith("blocks.-1.")]
    if not last:
        return None
    parts = [
        f"{component_label(effect.site)}, {effect.how}: {nats(effect.change.delta_log_gain)} "
        f"(loss {effect.change.delta_loss.estimate:+.2f} nats a token)"
        for effect in last
    ]
    return (
        "Change of the last block's log gain, in nats, with a component ablated in "
        f"{report.checkpoint.name}: {'; '.join(parts)}."
    )


def _carriers(components: Sequence[AblatedVerdict]) -> str:
    """The difference between the models with each component of the last block ablated in both."""
    parts = [
        f"{nats(found.difference)} nats ({component_label(found.site)}, {found.how})"
        for found in components
        if found.site.startswith("blocks.-1.")
    ]
    return (
        "With a component ablated in both models the difference, long minus short, is "
        f"{' and '.join(parts)}."
    )


def _dependence(components: Sequence[AblatedVerdict]) -> str:
    deciding = [found for found in components if found.decides]
    before = components[0].before
    if not deciding:
        return (
            f"The outcome depends on no component of these: with any one of the {len(components)} "
            f"ablated, in either model or in both, it stays {before}."
        )
    listed = "; ".join(
        f"{component_label(found.site)}, {found.how} (short {found.short_ablated}, "
        f"long {found.long_ablated}, both {found.both_ablated})"
        for found in deciding
    )
    return (
        f"The outcome, {before}, depends on {len(deciding)} of {len(components)} ablated "
        f"components: {listed}."
    )


def _theta(report: ModelReport) -> str | None:
    """What another theta does to the same weights."""
    doses = report.interventions.theta_dose
    others = [dose for dose in doses if not dose.own]
    if not others:
        return None
    own = next(dose.theta for dose in doses if dose.own)
    parts = [f"{_dose(dose)} under {dose.theta:,.0f}" for dose in others]
    return (
        f"Theta on fixed weights: the last block's log gain of {report.checkpoint.name}, trained "
        f"with {own:,.0f}, changes by {', '.join(parts)}."
    )


def _dose(dose: ThetaDose) -> str:
    change = dose.change.delta_log_gain
    may_be_none = change.known and change.low <= 0 <= change.high
    loss = f"loss {dose.change.delta_loss.estimate:+.2f} nats a token"
    return f"{nats(change)} nats ({'may be none, ' if may_be_none else ''}{loss})"


def _same_theta(at_theta: Sequence[ThetaDifference]) -> str:
    parts = [f"{nats(found.difference)} nats at {found.theta:,.0f}" for found in at_theta]
    return (
        "With both models under one theta the difference, long minus short, is "
        f"{' and '.join(parts)}: what is left there is in the weights."
    )
