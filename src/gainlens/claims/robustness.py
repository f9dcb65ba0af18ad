"""Compare every way of measuring with the one that decides.

An analysis is a way of measuring before the final norm, on more than position 0.  Analyses that
give the same number in both models are one analysis (with one massive token per prompt all five
reductions of it agree), so that repeating a number adds no support.
"""

from collections.abc import Sequence
from typing import Final

from gainlens.claims.behaviour import outcome_of
from gainlens.claims.cells import DECIDING_SHARE, cell_key
from gainlens.core.spec import Rule
from gainlens.core.vocabulary import Outcome
from gainlens.records.comparison import ModelReport
from gainlens.records.interval import Interval
from gainlens.records.verdict import CellOutcome, GainCell

_DIGITS: Final = 9
"""Numbers that agree to 1e-9 nats are one number computed in another order."""


def cell_outcomes(short: ModelReport, long: ModelReport, rule: Rule) -> tuple[CellOutcome, ...]:
    """Return the outcome under every way of measuring that has tokens in both models."""
    others = {cell_key(cell): cell for cell in long.cells}
    seen: set[tuple[float | None, ...]] = set()
    outcomes: list[CellOutcome] = []
    for cell in short.cells:
        pair = cell, others[cell_key(cell)]
        if any(one.log_gain.problem == "no tokens" for one in pair):
            continue
        numbers = _numbers(pair)
        if numbers in seen:
            continue
        seen.add(numbers)
        outcome = outcome_of(pair[0].log_gain, pair[1].log_gain, rule)
        counts = cell.token_class != "bos" and not cell.after_final_norm
        outcomes.append(CellOutcome(*cell_key(cell), outcome, counts))
    return tuple(outcomes)


def _numbers(pair: Sequence[GainCell]) -> tuple[float | None, ...]:
    """Return what is equal in two analyses that are one; NaN becomes None, which equals itself."""
    kind = float(pair[0].after_final_norm), float(pair[0].token_class == "bos")
    return (*kind, *(number for cell in pair for number in _rounded(cell.log_gain)))


def _rounded(interval: Interval) -> tuple[float | None, ...]:
    values = (interval.estimate, interval.low, interval.high, float(interval.n))
    return tuple(None if value != value else round(value, _DIGITS) for value in values)


def is_robust(outcome: Outcome, cells: Sequence[CellOutcome]) -> bool:
    """Return whether enough analyses decide and every one that decides agrees.

    At least four in five distinct analyses must decide.  One that does not decide is never counted
    as agreement, so fewer prompts never make an outcome more robust.
    """
    analyses = [cell.outcome for cell in cells if cell.counts]
    decided = [said for said in analyses if said != "UNDETERMINED"]
    if outcome == "UNDETERMINED" or len(decided) < DECIDING_SHARE * len(analyses):
        return False
    return all(said == outcome for said in decided)
