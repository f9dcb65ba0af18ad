"""Say a verdict in plain words: the answer in one line, and every doubt in a line each."""

from typing import Final

from gainlens.claims.headline import OUTCOME_WORDS, difference_words
from gainlens.claims.reasons import premise_reason
from gainlens.claims.wording import nats
from gainlens.records.comparison import Comparison
from gainlens.records.verdict import Identification, Verdict

_ANSWERS: Final = {
    "CONFIRMED": "YES",
    "REJECTED": "NO",
    "UNEXPECTED": "NO",
    "INVERTED": "NO",
    "UNDETERMINED": "NOT KNOWN",
    "NOT TESTED": "NOT TESTED",
}
_NAMED: Final = 2
"""Dissenting ways of measuring that a doubt names; the rest is a count."""


def answer(verdict: Verdict) -> str:
    """Return the answer in one line: yes, no or not known, why, and the outcome's name."""
    words = OUTCOME_WORDS[verdict.outcome]
    if verdict.outcome == "NOT TESTED":
        return f"NOT TESTED: {words}."
    trust = "robust" if verdict.robust else "not robust"
    return f"{_ANSWERS[verdict.outcome]}: {words} ({verdict.outcome}, {trust})."


def vetoes(verdict: Verdict) -> list[str]:
    """Return the ways of measuring before the final norm that say otherwise."""
    return [str(cell) for cell in verdict.vetoes]


def doubts(comparison: Comparison) -> list[str]:
    """Return what limits the answer, a sentence each, the most important first."""
    verdict = comparison.verdict
    other = vetoes(verdict)
    lines: list[str] = []
    premise = premise_reason(comparison.report("short"), comparison.report("long"), verdict.premise)
    if premise is not None:
        lines.append(premise)
    if other:
        more = f" and {len(other) - _NAMED} more" if len(other) > _NAMED else ""
        verb = "says" if len(other) == 1 else "say"
        lines.append(f"{_ways(len(other))} {verb} otherwise: {'; '.join(other[:_NAMED])}{more}.")
    if verdict.undecided:
        verb = "decides" if len(verdict.undecided) == 1 else "decide"
        lines.append(f"{_ways(len(verdict.undecided))} {verb} nothing.")
    if verdict.identification.same_weights:
        lines.append("Both models hold the same weights.")
    if (confounds := confounded(verdict.identification)) is not None:
        lines.append(confounds)
    lines.append(
        f"The notebook's rule says {comparison.test.verdict!r}; it reads the stream after the "
        "final norm."
    )
    return lines


def _ways(count: int) -> str:
    return f"{count} way{'' if count == 1 else 's'} of measuring"


def confounded(identification: Identification) -> str | None:
    """Return what else differs between the models, or None if theta and context alone do."""
    if identification.controlled:
        return None
    fields = identification.differing
    noun = "thing" if len(fields) == 1 else "things"
    return f"Theta and context are confounded with {len(fields)} {noun}: {', '.join(fields)}."


def difference(verdict: Verdict) -> str:
    """Return the difference between the long and the short model in one line."""
    if verdict.reversal is not None:
        return difference_words(verdict).capitalize()
    kind = "paired over prompts" if verdict.paired else "unpaired"
    return f"Long minus short: {nats(verdict.difference)} nats ({kind}, n = {verdict.difference.n})"
