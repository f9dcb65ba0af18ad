"""Build the tables of interventions: what every ablation, theta and token control changes.

A row is made from a pair: a model's report, and one of its intervention records.
"""

from collections.abc import Callable
from math import exp
from typing import Any, Final

from gainlens.claims.wording import component_label, nats, plain, ratio
from gainlens.core.table import NAME, Column, Table, fill, number, word
from gainlens.records.comparison import Comparison
from gainlens.records.interventions import Change
from gainlens.report.run import Run

_MODEL: Final = word(NAME, lambda report: report.checkpoint.name)
_PAIR_MODEL: Final = word(NAME, lambda pair: pair[0].checkpoint.name)


def _change_columns(change_of: Callable[[Any], Change | None]) -> tuple[Column, ...]:
    """Return the columns of a change; a record without a change has empty cells."""

    def cell(text: Callable[[Change], str]) -> Callable[[Any], str]:
        return lambda record: "" if (change := change_of(record)) is None else text(change)

    return (
        number("gain_before", cell(lambda c: plain(exp(c.before.log_gain.estimate), ".3f"))),
        number("gain_after", cell(lambda c: ratio(c.after.log_gain)), "gain after"),
        number("delta_log_gain", cell(lambda c: nats(c.delta_log_gain)), "change of log gain"),
        number("delta_loss", cell(lambda c: nats(c.delta_loss)), "change of loss"),
        number("delta_last_gain", cell(_last_gains), "last_gain"),
        word("behaviour_after", cell(lambda c: c.after.behaviour or "unknown")),
    )


def _last_gains(change: Change) -> str:
    before, after = change.before.notebook_last_gain, change.after.notebook_last_gain
    return f"{plain(before, '.3f')} → {plain(after, '.3f')}"


def sweep(run: Run) -> Table:
    """Return what every ablated component changes."""
    return fill(
        "sweep",
        "Components ablated in turn",
        "The last block under each ablation, on the same tokens; differences in nats, paired over "
        "prompts.",
        (
            _PAIR_MODEL,
            word("site", lambda pair: component_label(pair[1].site)),
            word("how", lambda pair: pair[1].how),
            *_change_columns(lambda pair: pair[1].change),
        ),
        [(report, e) for report in run.reports for e in report.interventions.sweep],
    )


def theta(run: Run) -> Table:
    """Return the last block of the same weights under other RoPE bases."""
    return fill(
        "theta-dose",
        "Theta on fixed weights",
        "The last block of the same weights under another RoPE base; the row without a change is "
        "the model's own base.",
        (
            _PAIR_MODEL,
            number("theta", lambda pair: f"{pair[1].theta:,.0f}"),
            *_change_columns(lambda pair: pair[1].change),
        ),
        [(report, d) for report in run.reports for d in report.interventions.theta_dose],
    )


def ablated(comparison: Comparison) -> Table:
    """Return every model before and after the ablations that were asked for."""
    asked = " and ".join(f"{one.site} by {one.how}" for one in comparison.spec.ablate)
    return fill(
        "ablated",
        "Before and after the ablation",
        f"{asked}; the outcome under it: {comparison.verdict.ablated_outcome}.",
        (_MODEL, *_change_columns(lambda report: report.interventions.ablated.change)),
        [report for report in comparison.reports if report.interventions.ablated],
    )


def components(comparison: Comparison) -> Table:
    """Return the outcome with each component ablated in either model and in both."""
    names = ("how", "before", "short_ablated", "long_ablated", "both_ablated")
    return fill(
        "components",
        "What the outcome depends on",
        "The outcome with a component ablated in the short model, in the long one, and in both; "
        "and the difference between them with it ablated in both.",
        (
            word("site", lambda found: component_label(found.site)),
            *(word(name, lambda found, name=name: getattr(found, name)) for name in names),
            number("difference", lambda found: nats(found.difference), "difference, both ablated"),
        ),
        comparison.verdict.components,
    )


def token_controls(run: Run) -> Table:
    """Return what setting massive activations and leaving out BOS changes."""
    return fill(
        "token-controls",
        "Massive activations and BOS",
        "Massive activations set to their mean over the prompts and to 0, where they first appear; "
        "BOS left out, and given twice.",
        (
            _PAIR_MODEL,
            word("control", lambda pair: pair[1].name),
            word("note", lambda pair: pair[1].note),
            *_change_columns(lambda pair: pair[1].change),
        ),
        [(report, c) for report in run.reports for c in report.interventions.controls],
    )


def intervention_tables(run: Run) -> list[Table]:
    """Return the tables of the interventions that this run carried out."""
    done = [report.interventions for report in run.reports]
    of_claim = run if isinstance(run, Comparison) else None
    tables: list[Table] = []
    if of_claim is not None and of_claim.spec.ablate:
        tables.append(ablated(of_claim))
    tables += [sweep(run)] if any(one.sweep for one in done) else []
    if of_claim is not None and of_claim.verdict.components:
        tables.append(components(of_claim))
    tables += [theta(run)] if any(one.theta_dose for one in done) else []
    tables += [token_controls(run)] if any(one.controls for one in done) else []
    return tables
