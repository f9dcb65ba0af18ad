"""Show re-scored files as tables, one per question, and say what cannot be concluded."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from gainlens.core.table import Table, column, fill
from gainlens.notebook.definitions import (
    BASES,
    REDUCTION_LIMITS,
    REDUCTIONS,
    STATE_LIMITS,
    STATES,
)
from gainlens.notebook.notebook_tables import model_table, test_table
from gainlens.notebook.record import Finding
from gainlens.notebook.rescored import (
    Limit,
    Measurement,
    Origin,
    PairedDifference,
    Rescore,
    SameModel,
    Spectrum,
)
from gainlens.notebook.wording import interval, sentence, three


def tables(score: Rescore) -> tuple[Table, ...]:
    """Return the tables of one file; a question that the file does not touch has none."""
    made = [model_table(key, model) for key, model in score.models.items()]
    made.append(test_table(score) if score.models else measurement_table(score.measurements))
    made.append(difference_table(score.differences))
    if not score.models:
        made.append(spectrum_table(score.spectra))
    words = (column("where", lambda row: row.place), column("its words", lambda row: row.text))
    made.append(fill("words", "what the file says itself", "", words, score.statements))
    made.append(finding_table(score.findings))
    numbered = (column("", lambda row: str(row[0])), column("what", lambda row: row[1]))
    closed = "what cannot be concluded from this file"
    made.append(fill("limits", closed, "", numbered, enumerate(limits(score), 1)))
    return tuple(table for table in made if table.rows)


_DEFINITION: Final = (
    column("number is of", lambda row: row.measurement.state),
    column("tokens", lambda row: REDUCTIONS[row.measurement.reduction]),
    column("value", lambda row: three(row.measurement.value)),
    column("95 %", lambda row: interval(row.measurement.low, row.measurement.high)),
    column("prompts", lambda row: str(row.measurement.prompts or "")),
    column("called", lambda row: row.measurement.called),
)


def side_by_side_table(rows: Sequence[SameModel]) -> Table:
    """Return the numbers that several files give for one model, by definition."""
    model, file = column("model", lambda row: row.model), column("file", lambda row: row.file)
    title = "one model, several numbers, by definition"
    return fill("same-model", title, "", (model, *_DEFINITION, file), rows)


def origin_table(rows: Sequence[Origin]) -> Table:
    """Return the gains that files copied, beside what those gains are."""
    columns = (
        column("model", lambda row: row.copied.measurement.model),
        column("copied", lambda row: three(row.copied.measurement.value)),
        column("in file", lambda row: row.copied.file),
        column("file says", lambda row: row.copied.measurement.says or ""),
        column(
            "is the gain of",
            lambda row: row.source.measurement.state if row.source else "not in these files",
        ),
        column("of model", lambda row: row.source.measurement.model if row.source else ""),
        column("measured in", lambda row: row.source.file if row.source else ""),
    )
    return fill("copied", "gains that a file copied, and what they are", "", columns, rows)


def finding_table(findings: Sequence[Finding]) -> Table:
    """Return stated numbers that are not what the rest of their file gives."""
    columns = (column("where", lambda row: row.place), column("finding", sentence))
    return fill("findings", "contradictions within a file", "", columns, findings)


def follows(row: Measurement) -> str:
    """Return what follows about the last block from one number."""
    if row.state != "last block":
        return "nothing of the last block"
    if row.behaviour is None:
        return "not sure: no interval"
    return "not decided" if row.behaviour == "UNDETERMINED" else row.behaviour.lower()


def limits(score: Rescore) -> Iterator[str]:
    """Yield what cannot be concluded, a sentence each."""
    for limit in score.limits:
        yield _LIMITS[limit](score) if limit in _LIMITS else _BY_DEFINITION[limit]


def _blind(score: Rescore) -> str:
    keys = [key for key, model in score.models.items() if model.residual.true_last_gain is None]
    return (
        f"whether the last block of {' and '.join(keys)} expands or contracts: its gain is not in "
        "the file, only its product with the final norm's"
    )


def _unsure(score: Rescore) -> str:
    if not score.models:
        return "how sure the numbers without prompts are: one number per model has no interval"
    ours = " (the intervals over prompts are under layers and verdict)" if score.ours else ""
    return f"how sure any of this is: one sentence, one number per model, n = 1, no interval{ours}"


def _tokens(score: Rescore) -> str:
    ours = " (tokens.parquet of the run has every token)" if score.ours else ""
    return (
        "which tokens it is about: a mean over positions mixes BOS and massive tokens with the "
        f"rest, and their share is not in these norms{ours}"
    )


def _cause(score: Rescore) -> str:
    pair = score.pair
    assert pair is not None
    differ = ", ".join(pair.differing) or "nothing that the file holds"
    ours = " (verdict.identification in the file says more)" if score.ours else ""
    return (
        f"what causes a difference between {pair.short} and {pair.long}: two models that differ in "
        f"{differ}, and perhaps in what the file does not hold (attention heads, MLP width, "
        f"training data and steps), identify no cause{ours}"
    )


_SPECTRA: Final = (
    "what a matrix does to the states of the model: a spectral norm is the largest stretch of any "
    "direction, and the states may lie in others"
)
_BY_DEFINITION: Final[dict[Limit, str]] = {**STATE_LIMITS, **REDUCTION_LIMITS}
_LIMITS: Final[dict[Limit, Callable[[Rescore], str]]] = {
    "block_of_last_gain": _blind,
    "interval": _unsure,
    "tokens": _tokens,
    "cause": _cause,
    "spectra": lambda score: _SPECTRA,
}


def measurement_table(
    measurements: Iterable[Measurement], title: str = "what the numbers are"
) -> Table:
    """Return each number with its definition, interval and what follows."""
    columns = (
        column("model", lambda row: row.model),
        column("called", lambda row: row.called),
        column(
            "is of", lambda row: row.state if row.block is None else f"{row.state} ({row.block})"
        ),
        column("tokens", lambda row: REDUCTIONS[row.reduction]),
        column("value", lambda row: three(row.value)),
        column("95 %", lambda row: interval(row.low, row.high)),
        column("n", lambda row: str(row.prompts or "")),
        column("file says", lambda row: row.says or ""),
        column("follows", follows),
        column("known", lambda row: BASES[row.basis]),
    )
    return fill("measurements", title, "", columns, measurements)


def state_table(scores: Sequence[Rescore]) -> Table:
    """Return the meaning of every state that the files' numbers are of."""
    used = {row.state for score in scores for row in score.measurements}
    rows = [(state, meaning) for state, meaning in STATES.items() if state in used]
    columns = (column("name", lambda row: row[0]), column("meaning", lambda row: row[1]))
    return fill("states", "what the names mean", "", columns, rows)


def difference_table(
    differences: Iterable[PairedDifference],
    title: str = "paired differences over the same prompts, in nats",
) -> Table:
    """Return the paired tests, the file's own word beside each."""
    columns = (
        column("model", lambda row: row.model),
        column("minus", lambda row: row.minus),
        column("of", lambda row: row.state),
        column("nats", lambda row: f"{row.nats:+.3f}"),
        column("95 %", lambda row: f"[{row.low:+.3f}, {row.high:+.3f}]"),
        column("n", lambda row: str(row.prompts)),
        column("p (Holm)", lambda row: f"{row.p:.2g}"),
        column("file says", lambda row: row.says or ""),
        column(
            "follows",
            lambda row: "they differ" if row.low > 0 or row.high < 0 else "no difference shown",
        ),
    )
    return fill("differences", title, "", columns, differences)


def spectrum_table(spectra: Iterable[Spectrum]) -> Table:
    """Return each matrix's norms, beside those of a random matrix if its shape is known."""
    columns = (
        column("model", lambda row: row.model),
        column("matrix", lambda row: row.matrix),
        column("blocks", lambda row: str(max(len(row.spectral_norms), len(row.effective_ranks)))),
        column("σ_max", lambda row: _last(row.spectral_norms)),
        column("Frobenius", lambda row: _last(row.frobenius_norms)),
        column("stable rank", lambda row: three(row.stable_rank)),
        column("over random edge", lambda row: three(row.edge_ratio)),
        column("effective rank", lambda row: _last(row.effective_ranks)),
    )
    return fill("spectra", "spectra; of several blocks the last", "", columns, spectra)


def _last(values: Sequence[float | None]) -> str:
    return three(values[-1]) if values else ""
