"""Say why a claim has its outcome, in at most five sentences."""

from collections.abc import Sequence
from typing import Final

from gainlens.claims.claim import Claim
from gainlens.claims.conditions import EACH, clustered, shortfall
from gainlens.claims.contrasts import Contrasted
from gainlens.claims.numbers import WHOLE
from gainlens.claims.sentences import (
    capital,
    interval_text,
    measured_of,
    opposed_text,
    subject_of,
)
from gainlens.claims.wording import signed
from gainlens.records.claims import ClaimVerdict, Effect

_REASONS: Final = 5


def premise_reasons(failed: Sequence[str], unknown: Sequence[str]) -> list[str]:
    """Return a sentence on the first premise that fails or is not known; none if all hold."""
    if failed:
        return [f"The premise fails: {failed[0]} is not true of these models."]
    return [f"The premise is not known: {unknown[0]} cannot be checked."] if unknown else []


def reasons_of(
    claim: Claim,
    verdict: ClaimVerdict,
    found: Contrasted,
    decides: int,
    failed: Sequence[str],
    unknown: Sequence[str],
) -> tuple[str, ...]:
    """Return at most five sentences, the weightiest first.

    Args:
        claim: that was judged.
        verdict: without its reasons.
        found: the intervals.
        decides: place of the interval that decides.
        failed: premises that fail.
        unknown: premises that are not known.
    """
    reasons = premise_reasons(failed, unknown)
    if verdict.effect is not None:
        reasons += _effect_reasons(claim, verdict, verdict.effect)
    elif claim.contrast.kind == "signs":
        reasons += [
            f"{estimate.of.capitalize()}: {interval_text(estimate.interval, verdict.unit)}."
            for estimate in found.estimates
        ]
    else:
        reasons.append(_number_reason(claim, verdict, found, decides))
    if claim.contrast.kind == "factorial" and found.estimates[1].interval.excludes_zero:
        reasons.append(
            f"The interaction is {interval_text(found.estimates[1].interval, verdict.unit)}, so "
            "the effect averages over effects that differ."
        )
    if found.chance is not None and abs(found.estimates[0].interval.estimate) <= found.chance:
        reasons.append(f"Orders drawn at random reach {found.chance:.2f} as well.")
    if found.numbers:
        reasons += _doubts(found, claim.contrast.kind, decides, verdict.unit)
    if verdict.disagreeing:
        reasons.append(f"{len(verdict.disagreeing)} of {verdict.analyses} distinct analyses say "
                       f"otherwise, such as {verdict.disagreeing[0]}.")  # fmt: skip
    if verdict.undecided:
        reasons.append(
            f"{verdict.undecided} of {verdict.analyses} distinct analyses decide nothing."
        )
    if verdict.independent == "prompts":
        reasons.append("The interval runs over prompts, so it speaks of these weights, not of "
                       "training.")  # fmt: skip
    return tuple(reasons[:_REASONS])


def _number_reason(claim: Claim, verdict: ClaimVerdict, found: Contrasted, decides: int) -> str:
    """Return the number that decides, and what was predicted of it."""
    estimate = found.estimates[decides]
    subject = subject_of(claim)
    if claim.contrast.kind == "level" and claim.estimand.blocks == "each":
        subject = f"the {claim.estimand.metric.replace('_', ' ')} of {estimate.of}"
    said = f"is {interval_text(estimate.interval, verdict.unit)}"
    if verdict.reversal is not None:
        said = f"changes sign: it is {opposed_text(verdict.reversal, verdict.unit)}"
    return f"{capital(subject)} {said}; the claim predicts {claim.contrast.prediction}."


def _doubts(found: Contrasted, kind: str, place: int, unit: str) -> list[str]:
    """Say what groups of prompts, few prompts and outliers do to the interval that decides."""
    estimate = found.estimates[place]
    subject = "it" if estimate.of == WHOLE else estimate.of
    of_groups = clustered(estimate.clustering, lambda one: interval_text(one, unit), subject)
    contrast = EACH if found.simultaneous else kind
    too_narrow = shortfall(found.numbers[place].values, contrast)
    return [said for said in (of_groups, too_narrow) if said]


def _effect_reasons(claim: Claim, verdict: ClaimVerdict, effect: Effect) -> list[str]:
    """Return what the intervention changes beside its control, and which of both is predicted."""
    assert claim.intervention is not None
    beyond = claim.intervention.against == "control"
    measured = measured_of(claim)
    if claim.contrast.kind == "difference":
        first, second = claim.roles
        measured = f"{measured} in {second} minus {first}"
    excess = interval_text(effect.excess, verdict.unit)
    said = [
        f"{capital(effect.intervention)} changes {measured} by "
        f"{interval_text(effect.change, verdict.unit)}; {effect.control} changes it by "
        f"{interval_text(effect.control_change, verdict.unit)}."
    ]
    margin = f" ± {claim.margin:g}" if claim.margin else ""
    prediction = f"the claim predicts {claim.contrast.prediction}{margin} of"
    if beyond:
        said.append(f"The first change minus the second is {excess}; {prediction} this difference.")
    else:
        unclear = effect.excess.known and not effect.excess.excludes_zero
        doubt = ", which cannot be told from 0" if unclear else ""
        said.append(f"{capital(prediction)} the first change; the first minus the second is "
                    f"{excess}{doubt}.")  # fmt: skip
    low, high = (signed(mean, 4) for mean in (min(effect.draws), max(effect.draws)))
    drawn = "is on all" if effect.exhausted else "was drawn"
    last = "other blocks" if effect.exhausted else "times"
    said.append(f"The control {drawn} {len(effect.draws)} {last}, and its mean changes lie "
                f"between {low} and {high}.")  # fmt: skip
    return said
