"""Gains and a rule fixed beforehand -> what can be said of the claim.  DESIGN section 7.

The claim is the notebook's: the short-context model's last block expands, the long one's contracts.
A cell is the last block under one way of measuring it (class of tokens, reduction, length of the
prompts, before or after the final norm); the rule names the cell that decides before anything is
measured, and the others say whether the answer hangs on that choice.
"""

from collections.abc import Sequence

from gainlens.claims.attribution import attribute
from gainlens.claims.cells import (
    BLIND,
    NO_TOKENS,
    cell_key,
    cell_name,
    primary_cell,
    repeats_another_cell,
)
from gainlens.claims.components import (
    ablated_outcome,
    ablated_verdicts,
    causal_reasons,
    differences_at_theta,
)
from gainlens.claims.headline import Standing, headline_of
from gainlens.claims.identification import identify
from gainlens.claims.outcomes import outcome_of
from gainlens.claims.pairing import difference_of
from gainlens.claims.reasons import reasons_for
from gainlens.claims.training_table import TrainingCurves
from gainlens.core.spec import Rule
from gainlens.records.comparison import ModelReport
from gainlens.records.verdict import Verdict


def compare_cells(
    short: ModelReport, long: ModelReport, outcome: str
) -> tuple[tuple[str, ...], tuple[str, ...], int]:
    """Every cell's outcome against the primary one: (dissent, undecided, cells that agree).

    Cells without tokens are skipped.  Dissent after the final norm is marked as blind, comes last
    and has no veto; undecided and agreeing cells are counted before the final norm alone.
    """
    others = {cell_key(cell): cell for cell in long.cells}
    dissent: list[str] = []
    blind: list[str] = []
    undecided: list[str] = []
    agree = 0
    for cell in short.cells:
        other = others[cell_key(cell)]
        if repeats_another_cell(cell) and repeats_another_cell(other):
            continue
        if NO_TOKENS in (cell.log_gain.status, other.log_gain.status):
            continue
        said = outcome_of(cell.behaviour, other.behaviour)
        name = cell_name(cell)
        if cell.after_final_norm:
            if said not in (outcome, "UNDETERMINED"):
                blind.append(f"{name}: {said} {BLIND}")
        elif said == "UNDETERMINED":
            undecided.append(name)
        elif said != outcome:
            dissent.append(f"{name}: {said}")
        else:
            agree += 1
    return (*dissent, *blind), tuple(undecided), agree


def premise_of(short: ModelReport, long: ModelReport) -> bool | None:
    """Whether the long model has the larger theta and the larger context; None if not known."""
    thetas = short.rope.rope_theta, long.rope.rope_theta
    if thetas[0] is None or thetas[1] is None:
        return None
    return thetas[1] > thetas[0] and long.checkpoint.context > short.checkpoint.context


def judge(
    reports: Sequence[ModelReport], rule: Rule, curves: TrainingCurves | None = None
) -> Verdict:
    """The verdict on one short and one long model, with what the others allow to attribute.

    Args:
        reports: one of role short, one of role long, and any others.
        rule: estimand, interval and least number of prompts, fixed before the run.
        curves: the training table of the reports' own design (attribution.read_curves), where there
            is one.

    Robust: decided, and no cell before the final norm decides otherwise.

    Examples:
        >>> verdict = gainlens.judge(run.reports, run.spec.rule)
        >>> verdict.outcome == run.verdict.outcome
        True
    """
    short, long = (next(r for r in reports if r.role == role) for role in ("short", "long"))
    cells = primary_cell(short.cells, rule), primary_cell(long.cells, rule)
    outcome = outcome_of(cells[0].behaviour, cells[1].behaviour)
    dissent, undecided, agree = compare_cells(short, long, outcome)
    vetoes = [line for line in dissent if not line.endswith(BLIND)]
    robust = outcome != "UNDETERMINED" and not vetoes
    difference, paired = difference_of(short, long, rule)
    identification = identify(short.checkpoint, long.checkpoint)
    effects, note = attribute(reports, rule, curves)
    premise = premise_of(short, long)
    components = ablated_verdicts(short, long, rule)
    at_theta = differences_at_theta(short, long, rule)
    named = tuple(line.rpartition(": ")[0] for line in vetoes)
    causal = causal_reasons(short, long, components, at_theta)
    standing = Standing(outcome, robust, len(vetoes), agree, len(undecided), premise, named)
    return Verdict(
        outcome=outcome,
        robust=robust,
        dissent=dissent,
        undecided=undecided,
        premise=premise,
        difference=difference,
        paired=paired,
        identification=identification,
        attribution=effects,
        attribution_note=note,
        reasons=reasons_for(short, long, premise, difference, paired, causal),
        headline=headline_of(short, long, cells, standing, identification),
        components=components,
        at_theta=at_theta,
        ablated_outcome=ablated_outcome(short, long),
    )
