"""Judge the long-context claim: the short model's last block expands, the long one's contracts.

A cell is the last block under one way of measuring it (class of tokens, reduction, length of the
prompts, before or after the final norm).  The rule names the cell that decides before anything is
measured.  The other cells show whether the answer depends on that choice.
"""

from collections.abc import Sequence
from dataclasses import replace

from gainlens.claims.attribution import attribute
from gainlens.claims.behaviour import outcome_of
from gainlens.claims.cells import primary_cell
from gainlens.claims.claim import SEED_CLAIM, catalogue
from gainlens.claims.components import ablated_outcome, ablated_verdicts, differences_at_theta
from gainlens.claims.engine import failed_premises
from gainlens.claims.evidence import facts_of
from gainlens.claims.headline import headline_of
from gainlens.claims.identification import identify
from gainlens.claims.pairing import difference_of
from gainlens.claims.reasons import reasons_for
from gainlens.claims.resolving import (
    clustering_between,
    component_differences,
    resolved_differences,
)
from gainlens.claims.robustness import cell_outcomes, is_robust
from gainlens.claims.training_table import TrainingCurves
from gainlens.core.spec import Rule
from gainlens.records.comparison import ModelReport
from gainlens.records.verdict import Verdict


def premise_of(short: ModelReport, long: ModelReport) -> bool | None:
    """Return whether the catalogue's premise of the claim holds; None if a theta is not known."""
    facts = {"short": [facts_of(short)], "long": [facts_of(long)]}
    failed, unknown = failed_premises(catalogue()[SEED_CLAIM], facts)
    return False if failed else None if unknown else True


def judge(
    reports: Sequence[ModelReport], rule: Rule, curves: TrainingCurves | None = None
) -> Verdict:
    """Return the verdict on one short and one long model, with what the others allow to attribute.

    Args:
        reports: one of role short, one of role long, and any others.
        rule: estimand, interval, margin and least number of prompts, fixed before the run.
        curves: the training table of the reports' own design, from `read_curves`, if there is one.

    If the premise fails or is not known the outcome is NOT TESTED, whatever was measured.

    Examples:
        >>> verdict = gainlens.judge(run.reports, run.spec.rule)
        >>> verdict.outcome == run.verdict.outcome
        True
    """
    short, long = (next(r for r in reports if r.role == role) for role in ("short", "long"))
    cells = primary_cell(short.cells, rule), primary_cell(long.cells, rule)
    measured = outcome_of(cells[0].log_gain, cells[1].log_gain, rule)
    outcomes = cell_outcomes(short, long, rule)
    premise = premise_of(short, long)
    difference, paired = difference_of(short, long, rule)
    effects, note = attribute(reports, rule, curves)
    verdict = Verdict(
        outcome=measured if premise else "NOT TESTED",
        robust=is_robust(measured, outcomes) if premise else None,
        measured=measured,
        cells=outcomes,
        premise=premise,
        difference=difference,
        paired=paired,
        parts=component_differences(short, long, rule),
        resolved=resolved_differences(short, long, rule),
        clustering=clustering_between(short, long, rule),
        identification=identify(short.checkpoint, long.checkpoint),
        attribution=effects,
        attribution_note=note,
        reasons=(),
        headline="",
        components=ablated_verdicts(short, long, rule),
        at_theta=differences_at_theta(short, long, rule),
        ablated_outcome=ablated_outcome(short, long, rule),
    )
    return replace(
        verdict,
        reasons=reasons_for(short, long, verdict, rule),
        headline=headline_of(short, long, cells, verdict, rule),
    )
