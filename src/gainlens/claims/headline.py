"""Say the verdict in one sentence: outcome, both gains, the difference, and how far to trust it."""

from typing import Final

from gainlens.claims.behaviour import sign_of
from gainlens.claims.wording import at_group, ratio, short_nats
from gainlens.core.glossary import GLOSSARY
from gainlens.core.spec import Rule
from gainlens.core.vocabulary import Outcome
from gainlens.records.comparison import ModelReport
from gainlens.records.verdict import GainCell, Verdict

OUTCOME_WORDS: Final[dict[Outcome, str]] = {
    "CONFIRMED": "the short model expands and the long one contracts, as was claimed",
    "REJECTED": "both contract, so the claim is not supported",
    "UNEXPECTED": "both expand, so the claim is not supported",
    "INVERTED": "the short model contracts and the long one expands, the claim's opposite",
    "UNDETERMINED": "it cannot be told",
    "NOT TESTED": "the claim's premise does not hold for these two models, or is not known",
}
_NAMED: Final = 3
"""At most this many dissenting analyses are named in the headline."""


def headline_of(
    short: ModelReport,
    long: ModelReport,
    cells: tuple[GainCell, GainCell],
    verdict: Verdict,
    rule: Rule,
) -> str:
    """Return one sentence on the verdict.  If the claim was not tested, the difference leads."""
    kind = GLOSSARY[cells[0].token_class].label
    gains = " and ".join(
        f"{ratio(cell.log_gain)} in {report.checkpoint.name}"
        for cell, report in zip(cells, (short, long), strict=True)
    )
    level = f"the last block's gain on {kind} is {gains}"
    difference = difference_words(verdict)
    if verdict.outcome == "NOT TESTED":
        why = "the premise fails" if verdict.premise is False else "the premise is not known"
        return f"NOT TESTED: {why}, so the claim says nothing of this pair; {difference}; {level}."
    trust = [agreement(verdict)]
    if not verdict.identification.controlled:
        count = len(verdict.identification.differing)
        trust.append(f"confounded by {count} further difference{'' if count == 1 else 's'}")
    undetermined = verdict.outcome == "UNDETERMINED"
    words = _undecided(cells, rule) if undetermined else OUTCOME_WORDS[verdict.outcome]
    return f"{verdict.outcome}: {words}; {level}; {difference}; {', '.join(trust)}."


def _undecided(cells: tuple[GainCell, GainCell], rule: Rule) -> str:
    """Say what an undetermined outcome does tell: a gain of 1 is a finding."""
    flat = [
        f"the {role} model"
        for role, cell in zip(("short", "long"), cells, strict=True)
        if sign_of(cell.log_gain, rule) == "0"
    ]
    margin = f"within {rule.equivalence:.2g} of a gain of 1"
    if len(flat) == 2:
        return f"neither model expands or contracts: both are {margin}"
    if flat:
        return f"{flat[0]} neither expands nor contracts: it is {margin}"
    return "it cannot be told whether both expand or contract"


def difference_words(verdict: Verdict) -> str:
    """Say long minus short in one number, or in two if its sign depends on the prompts."""
    if verdict.reversal is not None:
        parts = " and ".join(
            f"{short_nats(group.log_gain)} {at_group(group.by, group.group)}"
            for group in verdict.reversal
        )
        return f"long minus short changes sign: {parts}"
    how = "" if verdict.paired else ", unpaired"
    return f"long minus short is {short_nats(verdict.difference)}{how}"


def agreement(verdict: Verdict) -> str:
    """Say how many distinct analyses decide, and how many of those agree."""
    total, vetoes = len(verdict.analyses), verdict.vetoes
    decided = total - len(verdict.undecided)
    if verdict.outcome in ("UNDETERMINED", "NOT TESTED"):
        return f"{decided} of {total} other analyses decide"
    if verdict.robust:
        return f"robust: {decided} of {total} distinct analyses decide, and all agree"
    if vetoes:
        named = f" ({', '.join(c.name for c in vetoes)})" if len(vetoes) <= _NAMED else ""
        return f"not robust: {len(vetoes)} of {decided} analyses that decide disagree{named}"
    return f"not robust: only {decided} of {total} distinct analyses decide"
