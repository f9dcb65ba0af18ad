"""Judge any claim: premise, contrast, outcome, robustness and reasons."""

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from gainlens.claims.cells import DECIDING_SHARE, LENGTHS, length_halves
from gainlens.claims.claim import Claim, bounds_of, premise_sides
from gainlens.claims.claim_reasons import premise_reasons, reasons_of
from gainlens.claims.contrasts import Contrasted
from gainlens.claims.effects import effect_of, judged_contrast
from gainlens.claims.numbers import NotEnough
from gainlens.claims.outcomes import decide, outcome_of_claim
from gainlens.claims.resolving import resolve_claim
from gainlens.claims.sentences import capital
from gainlens.core.spec import Rule
from gainlens.core.vocabulary import Lengths
from gainlens.metrics.registry import METRICS
from gainlens.records.claims import ClaimOutcome, ClaimVerdict, Evidence, Fact

_OPERATORS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
    "==": operator.eq, "!=": operator.ne,
}  # fmt: skip
_DECIDES_NOTHING: Final = ("UNDETERMINED", "NOT TESTED")


def failed_premises(
    claim: Claim, facts: Mapping[str, Sequence[Mapping[str, Fact]]]
) -> tuple[list[str], list[str]]:
    """Return the premises that fail, and those that are not known.

    facts: of each role, the facts of its models.  A premise must hold for every model of its roles.
    """
    failed: list[str] = []
    unknown: list[str] = []
    for text in claim.premise:
        (role, field), right, sign = premise_sides(text)
        lefts = [fact[field] for fact in facts[role]]
        others: list[Fact] = [right] if isinstance(right, float) else []
        if isinstance(right, tuple):
            others = [fact[right[1]] for fact in facts[right[0]]]
        pairs = [(left, other) for left in lefts for other in others]
        if any(left is None or other is None for left, other in pairs):
            unknown.append(text)
        elif not all(_OPERATORS[sign](left, other) for left, other in pairs):
            failed.append(text)
    return failed, unknown


def judge_claim(claim: Claim, evidence: Sequence[Evidence], rule: Rule) -> ClaimVerdict:
    """Judge a claim by the numbers of the models at hand.

    Args:
        claim: from `read_claim`.
        evidence: one per model, of any role; the claim takes the roles that it names.
        rule: confidence, resamples, seed and least number of prompts, fixed before the run.

    If a role has no model, or a premise fails or is not known, the outcome is NOT TESTED.  If a
    number could not be measured, or models or prompts are too few, or do not pair, it is
    UNDETERMINED.  Neither raises.
    """
    by_role = {
        role: [one for one in evidence if one.role == role] for role in claim.roles or ("model",)
    }
    verdict = _untested(claim, by_role)
    problem = _wrong_models(claim, {role: len(models) for role, models in by_role.items()})
    if problem:
        return replace(verdict, reasons=(problem,))
    facts = {role: [one.facts for one in models] for role, models in by_role.items()}
    failed, unknown = failed_premises(claim, facts)
    verdict = replace(verdict, premise=False if failed else None if unknown else True)
    mine = [one for models in by_role.values() for one in models]
    try:
        for one in mine:
            if one.unmeasured:
                raise NotEnough(one.unmeasured)
        found = judged_contrast(claim, mine, claim.estimand.reduction, rule)
    except NotEnough as problem:
        outcome = "UNDETERMINED" if verdict.premise else "NOT TESTED"
        reasons = (*premise_reasons(failed, unknown), f"{capital(str(problem))}.")
        return replace(verdict, outcome=outcome, measured="UNDETERMINED", reasons=reasons)
    verdict = _tested(claim, mine, rule, verdict, found)
    decides = _weakest(claim, found)
    return replace(verdict, reasons=reasons_of(claim, verdict, found, decides, failed, unknown))


def _untested(claim: Claim, by_role: Mapping[str, Sequence[Evidence]]) -> ClaimVerdict:
    """Return the verdict before anything is judged."""
    return ClaimVerdict(
        claim=claim.name,
        statement=claim.statement,
        source=claim.source,
        models={
            role: ", ".join(one.name for one in models)
            for role, models in by_role.items()
            if models
        },
        outcome="NOT TESTED",
        measured="NOT TESTED",
        robust=None,
        analyses=0,
        undecided=0,
        disagreeing=(),
        premise=None,
        estimates=(),
        unit=METRICS[claim.estimand.metric].unit,
        prediction=claim.contrast.prediction or "",
        independent="prompts",
        reasons=(),
        margin=claim.margin,
    )


def _tested(
    claim: Claim, mine: Sequence[Evidence], rule: Rule, verdict: ClaimVerdict, found: Contrasted
) -> ClaimVerdict:
    """Return the verdict with what the contrast shows, still without reasons."""
    measured = outcome_of_claim(claim, found)
    return replace(
        _with_analyses(verdict, _analyses(claim, mine, rule), measured),
        outcome=measured if verdict.premise else "NOT TESTED",
        measured=measured,
        estimates=found.estimates,
        independent=found.independent,
        effect=None if claim.intervention is None else effect_of(claim, mine, rule),
        resolved=resolve_claim(claim, mine, found.numbers, rule),
    )


def _wrong_models(claim: Claim, counts: Mapping[str, int]) -> str:
    """Return why the models do not fit the claim's roles; empty if they do."""
    for role, count in counts.items():
        if count == 0:
            return f"No model was given for the role {role}: add {role}=MODEL."
        if count > 1 and claim.roles:
            return f"The role {role} takes one model, and {count} were given."
    return ""


def _with_analyses(
    verdict: ClaimVerdict, analyses: Mapping[str, ClaimOutcome], measured: ClaimOutcome
) -> ClaimVerdict:
    """Return the verdict with what the distinct analyses say, and whether it is robust."""
    decided = {name: one for name, one in analyses.items() if one not in _DECIDES_NOTHING}
    disagreeing = tuple(name for name, outcome in decided.items() if outcome != measured)
    robust = (
        measured not in _DECIDES_NOTHING
        and not disagreeing
        and len(decided) >= DECIDING_SHARE * len(analyses)
    )
    return replace(
        verdict,
        robust=robust if verdict.premise else None,
        analyses=len(analyses),
        undecided=len(analyses) - len(decided),
        disagreeing=disagreeing,
    )


def _analyses(claim: Claim, evidence: Sequence[Evidence], rule: Rule) -> dict[str, ClaimOutcome]:
    """Return the outcome of every distinct analysis, by name.

    An analysis is a way of reducing tokens on all prompts or on the shorter or longer half.
    Analyses that give the same numbers count once.
    """
    outcomes: dict[str, ClaimOutcome] = {}
    seen: set[tuple[float, ...]] = set()
    for half in LENGTHS:
        halves = [_half(one, half) for one in evidence]
        for over in evidence[0].values:
            try:
                found = judged_contrast(claim, halves, over, rule)
            except NotEnough:
                outcomes[f"{over}, {half} prompts"] = "UNDETERMINED"
                continue
            key = tuple(round(estimate.interval.estimate, 12) for estimate in found.estimates)
            if key not in seen:
                seen.add(key)
                outcomes[f"{over}, {half} prompts"] = outcome_of_claim(claim, found)
    return outcomes


def _half(one: Evidence, half: Lengths) -> Evidence:
    """Return a model's numbers on the shorter or longer half of its prompts, or on all.

    If all prompts have one length, either half is all of them.
    """
    rows = np.flatnonzero(length_halves(one.lengths)[half])
    if half == "all" or len(rows) == 0:
        return one
    return replace(
        one,
        ids=tuple(one.ids[row] for row in rows),
        lengths=one.lengths[rows],
        groups=tuple(one.groups[row] for row in rows) if one.groups else (),
        values={over: values[:, rows] for over, values in one.values.items()},
        with_values=None if one.with_values is None else one.with_values[:, rows],
        controlled=None if one.controlled is None else one.controlled.at(rows),
        at_positions={},
        parts={},
    )


def _weakest(claim: Claim, found: Contrasted) -> int:
    """Return the place of the block that decides: one that contradicts, else one that is open.

    Of several it is the one whose estimate lies furthest against the prediction.
    """
    if claim.contrast.kind in ("factorial", "signs"):
        return 0
    order: dict[ClaimOutcome, int] = {"CONTRADICTED": 0, "UNDETERMINED": 1}
    prediction = str(claim.contrast.prediction)
    sign, low, high = bounds_of(prediction)

    def key(place: int) -> tuple[int, float]:
        interval = found.estimates[place].interval
        against = {">": interval.estimate, "<": -interval.estimate}
        distance = -abs(interval.estimate - (low + high) / 2)
        decided = decide(interval, prediction, claim.margin)
        return order.get(decided, 2), against.get(sign, distance)

    return min(range(len(found.estimates)), key=key)
