"""TODO: claims.headline."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from gainlens.core.glossary import GLOSSARY
from gainlens.records.comparison import ModelReport
from gainlens.records.interval import Interval
from gainlens.records.verdict import GainCell, Identification

OUTCOME_WORDS: Final = {
    "CONFIRMED": "the short model expands and the long one contracts, as was claimed",
    "REJECTED": "both contract, so the claim is not supported",
    "UNEXPECTED": "both expand, so the claim is not supported",
    "INVERTED": "the short model contracts and the long one expands, the claim's opposite",
    "UNDETERMINED": "it cannot be told",
}
_NAMED: Final = 3
"""So many dissenting ways of measuring are named in the headline."""


@dataclass(frozen=True)
class Standing:
    """The verdict in counts, for the headline."""

    outcome: str
    robust: bool
    dissent: int
    """cells before the final norm that decide otherwise"""
    agree: int
    undecided: int
    premise: bool | None
    dissenting: tuple[str, ...] = ()
    """which they are"""


def headline_of(
    short: ModelReport,
    long: ModelReport,
    cells: tuple[GainCell, GainCell],
    standing: Standing,
    identification: Identification,
) -> str:
    """One sentence: the outcome, both gains with their intervals, and how far to trust it."""
    kind = GLOSSARY[cells[0].token_class].label
    gains = " and ".join(
        f"{_gain(cell.log_gain)} in {report.checkpoint.name}"
        for cell, report in zip(cells, (short, long), strict=True)
    )
    trust = [_agreement(standing)]
    if standing.premise is False:
        trust.append("the premise fails")
    if not identification.controlled:
        count = len(identification.differing)
        trust.append(f"confounded by {count} further difference{'' if count == 1 else 's'}")
    return (
        f"{standing.outcome}: {OUTCOME_WORDS[standing.outcome]}; the last block's gain on {kind} "
        f"is {gains}; {', '.join(trust)}."
    )


def _gain(interval: Interval) -> str:
    estimate = f"{np.exp(interval.estimate):.4g}"
    if np.isnan(interval.estimate):
        return f"not known ({interval.status})"
    ends = f"[{np.exp(interval.low):.4g}, {np.exp(interval.high):.4g}]"
    return f"{estimate} {ends}" if interval.known else f"{estimate} ({interval.status})"


def _agreement(standing: Standing) -> str:
    if standing.outcome == "UNDETERMINED":
        return (
            f"that cannot be told, and {standing.dissent} other ways of measuring would tell"
            if standing.dissent
            else "that cannot be told, whichever way it is measured"
        )
    decided = standing.agree + standing.dissent
    undecided = f" ({standing.undecided} more undecided)" if standing.undecided else ""
    if standing.robust:
        return f"robust: all {decided} ways of measuring that decide agree{undecided}"
    named = f" ({', '.join(standing.dissenting)})" if standing.dissent <= _NAMED else ""
    return (
        f"not robust: {standing.dissent} of {decided} ways of measuring "
        f"disagree{'s' if standing.dissent == 1 else ''}{named}{undecided}"
    )
