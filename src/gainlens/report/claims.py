"""Show the verdicts on claims: the answer in one line, and two tables."""

from collections.abc import Sequence
from typing import Final

from gainlens.claims.claim import Claim
from gainlens.claims.sentences import interval_text
from gainlens.core.table import Column, Table, fill
from gainlens.records.claims import ClaimVerdict

_NAMED: Final = 3
"""Claims that the answer names; of more it counts outcomes."""


def claims_answer(verdicts: Sequence[ClaimVerdict]) -> str:
    """Return what became of the claims in one line: of one claim with its weightiest reason."""
    if len(verdicts) == 1:
        (one,) = verdicts
        return f"{one.outcome}{_trust(one)}: {one.statement} {one.reasons[0]}"
    if len(verdicts) <= _NAMED:
        return "; ".join(f"{one.claim}: {one.outcome}" for one in verdicts)
    counts = dict.fromkeys(one.outcome for one in verdicts)
    said = (f"{sum(v.outcome == word for v in verdicts)} {word}" for word in counts)
    return f"{len(verdicts)} claims: {', '.join(said)}"


def _trust(verdict: ClaimVerdict) -> str:
    return "" if verdict.robust is None else ", robust" if verdict.robust else ", not robust"


def claim_table(verdicts: Sequence[ClaimVerdict]) -> Table:
    """Return one row per claim: outcome, the number that decides, and the prediction."""
    return fill(
        "claims",
        "Claims",
        "the number that is predicted, with its interval",
        (
            Column("claim", "claim", lambda one: one.claim, numeric=False),
            Column("outcome", "outcome", lambda one: one.outcome, numeric=False),
            Column("robust", "robust", _robust, numeric=False),
            Column("measured", "measured", _measured, numeric=False),
            Column("groups", "over groups", _over_groups, numeric=False),
            Column("prediction", "predicted", lambda one: one.prediction, numeric=False),
        ),
        verdicts,
    )


def _robust(one: ClaimVerdict) -> str:
    return "" if one.robust is None else "yes" if one.robust else "no"


def _measured(one: ClaimVerdict) -> str:
    shown = [interval_text(estimate.interval, one.unit) for estimate in one.estimates]
    return "; ".join(shown) if len(shown) <= 2 else f"{len(shown)} blocks"


def _over_groups(one: ClaimVerdict) -> str:
    """Write the number with groups of prompts as the unit, if the prompts carry groups."""
    if len(one.estimates) > 2:
        return ""
    found = [estimate.clustering for estimate in one.estimates if estimate.clustering]
    return "; ".join(interval_text(each.over_groups, one.unit) for each in found)


def resolved_table(verdicts: Sequence[ClaimVerdict]) -> Table:
    """Return one row per component, length, position or kind that a difference is resolved by."""
    rows = [
        (one.claim, each, interval_text(each.interval, one.unit))
        for one in verdicts
        for each in one.resolved
    ]
    return fill(
        "resolved",
        "Differences resolved",
        "the same difference on parts of the prompts, each with its own interval",
        (
            Column("claim", "claim", lambda row: row[0], numeric=False),
            Column("by", "by", lambda row: row[1].by, numeric=False),
            Column("group", "group", lambda row: row[1].group, numeric=False),
            Column("difference", "difference", lambda row: row[2], numeric=False),
        ),
        rows,
    )


def reasons_table(verdicts: Sequence[ClaimVerdict]) -> Table:
    """Return one row per reason, under its claim."""
    rows = [(one.claim, reason) for one in verdicts for reason in one.reasons]
    return fill(
        "reasons",
        "Reasons",
        "the weightiest first",
        (
            Column("claim", "claim", lambda row: row[0], numeric=False),
            Column("reason", "reason", lambda row: row[1], numeric=False),
        ),
        rows,
    )


def _models(claim: Claim) -> str:
    return ", ".join(claim.roles) or str(claim.models)


def catalogue_table(claims: Sequence[Claim]) -> Table:
    """Return one row per claim of the catalogue."""
    return fill(
        "catalogue",
        "The catalogue",
        "gainlens claims NAME prints one in full",
        (
            Column("claim", "claim", lambda one: one.name, numeric=False),
            Column("roles", "models", _models, numeric=False),
            Column("statement", "statement", lambda one: one.statement, numeric=False),
        ),
        claims,
    )
