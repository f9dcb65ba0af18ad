"""Give at most five reasons for a verdict, in plain sentences, those that bear most on it first."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from gainlens.claims.behaviour import sign_of
from gainlens.claims.cells import cell_key
from gainlens.claims.components import turning_components
from gainlens.claims.conditions import clustered, shortfall
from gainlens.claims.pairing import paired_prompts
from gainlens.claims.wording import at_group, component_label, short_nats
from gainlens.core.spec import Rule
from gainlens.records.comparison import ModelReport
from gainlens.records.verdict import Verdict

MOST: Final = 5


def reasons_for(
    short: ModelReport, long: ModelReport, verdict: Verdict, rule: Rule
) -> tuple[str, ...]:
    """Return at most five sentences.  A premise that fails or is not known comes first."""
    candidates = (
        premise_reason(short, long, verdict.premise),
        _difference(verdict, rule),
        _asked(verdict),
        _component(verdict),
        _after_norm((short, long)),
        _position_zero(short, long, verdict, rule),
        clustered(verdict.clustering, short_nats, "the difference"),
        _few_or_outlying(short, long, rule),
        _seeds(verdict),
        _ablation(verdict),
        *_notes((short, long)),
        _theta((short, long)),
        _unembedding(short, long),
    )
    return tuple(sentence for sentence in candidates if sentence)[:MOST]


def premise_reason(short: ModelReport, long: ModelReport, premise: bool | None) -> str | None:
    """Name what of the premise fails or is not known; None if it holds."""
    if premise:
        return None
    if premise is None:
        without = [r.checkpoint.name for r in (short, long) if r.rope.rope_theta is None]
        return f"The premise is not known: {' and '.join(without)} has no RoPE theta."
    quantities = {
        "theta": (short.rope.rope_theta, long.rope.rope_theta),
        "context": (short.checkpoint.context, long.checkpoint.context),
    }
    failing = [
        f"{name} is {low:,.0f} in the short model and {high:,.0f} in the long one"
        for name, (low, high) in quantities.items()
        if low is not None and high is not None and high <= low
    ]
    return f"The premise fails: {', and '.join(failing)}, and it must be larger in the long one."


def _difference(verdict: Verdict, rule: Rule) -> str:
    if verdict.reversal is not None:
        low, high = verdict.reversal
        return (
            f"The difference changes sign: long minus short is {short_nats(low.log_gain)} "
            f"{at_group(low.by, low.group)} and {short_nats(high.log_gain)} "
            f"{at_group(high.by, high.group)}, so its mean depends on the prompts."
        )
    difference = verdict.difference
    how = "" if verdict.paired else " (unpaired: the prompts differ)"
    if not difference.known:
        return f"The difference, long minus short, is {short_nats(difference)}{how}."
    ends = np.array([difference.estimate, difference.low, difference.high])
    shown = "{:+.1f} % [{:+.1f}, {:+.1f}]".format(*(100 * np.expm1(ends)))
    if np.abs(ends[1:]).max() <= np.log1p(rule.equivalence):
        return (
            f"The two gains are equal to within {rule.equivalence:.0%}: long is {shown} off{how}."
        )
    if difference.excludes_zero:
        return (
            f"On these prompts the long model's gain differs from the short one's by {shown}{how}."
        )
    return f"On these prompts the gains may be equal: long minus short is {shown}{how}."


def _asked(verdict: Verdict) -> str | None:
    if verdict.ablated_outcome is None:
        return None
    return f"Under the ablation that was asked for the outcome is {verdict.ablated_outcome}."


def _component(verdict: Verdict) -> str | None:
    """Name the component whose part of the difference is the larger one beyond its interval."""
    parts = [part for part in verdict.parts if part.part.excludes_zero]
    if not parts:
        return None
    largest = max(parts, key=lambda part: abs(part.part.estimate))
    name = {"attention": "Attention", "mlp": "The MLP"}[largest.component]
    return f"{name} contributes most of the difference: {short_nats(largest.part)}."


def _after_norm(reports: Sequence[ModelReport]) -> str | None:
    """Say if the notebook's number and the block itself lie on different sides of 1."""
    apart = [
        report
        for report in reports
        if (report.residual.last_gain > 1) != (report.residual.true_last_gain > 1)
    ]
    if not apart:
        return None
    names = " and ".join(report.checkpoint.name for report in apart)
    values = " and ".join(f"{report.residual.last_gain:.2f}" for report in apart)
    side = "above" if apart[0].residual.true_last_gain > 1 else "below"
    return (
        f"The notebook's last_gain of {names}, {values}, is taken after the final norm; "
        f"in the same convention the block itself lies {side} 1."
    )


def _position_zero(
    short: ModelReport, long: ModelReport, verdict: Verdict, rule: Rule
) -> str | None:
    """Say what position 0 does if it does not do what the other tokens do."""
    others = {cell_key(cell): cell for cell in long.cells}
    first = next(
        cell
        for cell in short.cells
        if cell.token_class == "bos" and cell.lengths == "all" and not cell.after_final_norm
    )
    pair = first.log_gain, others[cell_key(first)].log_gain
    dissent = [cell for cell in verdict.dissent if cell.token_class == "bos"]
    if not any(cell.lengths == "all" and not cell.after_final_norm for cell in dissent):
        return None
    words = {"+": "expands", "-": "contracts", "0": "keeps its size", None: "is undecided"}
    does = [words[sign_of(interval, rule)] for interval in pair]
    said = f"{does[0]} in both" if does[0] == does[1] else f"{does[0]} in short, {does[1]} in long"
    gains = " and ".join(f"{np.exp(interval.estimate):.3f}" for interval in pair)
    return f"Position 0, one token per prompt, {said} ({gains})."


def _few_or_outlying(short: ModelReport, long: ModelReport, rule: Rule) -> str | None:
    """Say if the difference's interval fell short in calibration on prompts such as these."""
    pair = paired_prompts((short, long), rule)
    return None if pair is None else shortfall(pair[1] - pair[0], "difference")


def _seeds(verdict: Verdict) -> str | None:
    """Say what training does to theta's effect, or what the seeds could not have shown."""
    effects = [e for e in verdict.attribution if e.unit == "seeds" and e.component is None]
    claimed = [effect for effect in effects if effect.log_gain.excludes_zero]
    if claimed:
        return f"Over training seeds the effect of {claimed[0].factor} is " + (
            f"{short_nats(claimed[0].log_gain)}."
        )
    visible = [
        e.smallest_visible
        for e in effects
        if e.factor == "theta" and e.smallest_visible is not None
    ]
    if not visible or not np.isfinite(visible[0]):
        return None
    seeds = effects[0].log_gain.n
    return (
        f"With {seeds} seeds per cell an effect of theta below {visible[0]:.2f} nats is not seen."
    )


def _ablation(verdict: Verdict) -> str | None:
    """Name a component whose ablation turns the outcome or the sign of the difference."""
    deciding = [one for one in verdict.components if one.decides]
    if deciding:
        return (
            f"The outcome turns under {len(deciding)} of {len(verdict.components)} ablations, "
            f"first of all {component_label(deciding[0].site)}, {deciding[0].how}."
        )
    turning = turning_components(verdict.components, verdict.difference)
    if not turning:
        return None
    return (
        f"With {component_label(turning[0].site)} set to {turning[0].how} in both models the "
        f"difference turns: {short_nats(turning[0].difference)}."
    )


def _notes(reports: Sequence[ModelReport]) -> list[str]:
    return [f"{r.checkpoint.name}: {note}." for r in reports for note in r.interventions.notes]


def _theta(reports: Sequence[ModelReport]) -> str | None:
    """Say how much another theta changes at most; it moves a model away from its training."""
    changes = [
        (report, dose)
        for report in reports
        for dose in report.interventions.theta_dose
        if not dose.own and dose.change.delta_log_gain.known
    ]
    if not changes:
        return None
    report, dose = max(changes, key=lambda one: abs(one[1].change.delta_log_gain.estimate))
    return (
        f"Off the base that it was trained with {report.checkpoint.name}'s log gain changes by at "
        f"most {short_nats(dose.change.delta_log_gain)}: this measures distance from training."
    )


def _unembedding(short: ModelReport, long: ModelReport) -> str:
    """Compare what the logits can see of W_U: softmax is blind to its mean row."""
    largest = [report.unembed.centred_spectrum[0] for report in (short, long)]
    return (
        "Without its mean row, to which softmax is blind, W_U's largest singular value is "
        f"{largest[1] / largest[0]:.2f} times as large in the long model."
    )
