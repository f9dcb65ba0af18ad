"""Show re-scored files as tables, one per question, and say what cannot be concluded."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from gainlens.notebook.definitions import (
    BASES,
    REDUCTION_LIMITS,
    REDUCTIONS,
    STATE_LIMITS,
    STATES,
)
from gainlens.notebook.notebook_tables import model_rows, test_table
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
from gainlens.notebook.wording import FACTS, Table, interval, sentence, three


def tables(score: Rescore) -> tuple[Table, ...]:
    """Return the tables of one file; a question that the file does not touch has none."""
    made = [Table(key, FACTS, tuple(model_rows(model))) for key, model in score.models.items()]
    if score.models:
        made.append(test_table(score))
    else:
        made.append(measurement_table(score.measurements))
    made.append(difference_table(score.differences))
    if not score.models:
        made.append(spectrum_table(score.spectra))
    made.append(
        Table(
            "what the file says itself",
            ("where", "its words"),
            tuple((statement.place, statement.text) for statement in score.statements),
        )
    )
    made.append(finding_table(score.findings))
    closed = tuple((str(number), text) for number, text in enumerate(limits(score), 1))
    made.append(Table("what cannot be concluded from this file", ("", "what"), closed))
    return tuple(table for table in made if table.rows)


def side_by_side_table(rows: Sequence[SameModel]) -> Table:
    """Return the numbers that several files give for one model, by definition."""
    return Table(
        "one model, several numbers, by definition",
        ("model", "number is of", "tokens", "value", "95 %", "prompts", "called", "file"),
        tuple(
            (
                row.model,
                row.measurement.state,
                REDUCTIONS[row.measurement.reduction],
                three(row.measurement.value),
                interval(row.measurement.low, row.measurement.high),
                str(row.measurement.prompts or ""),
                row.measurement.called,
                row.file,
            )
            for row in rows
        ),
    )


def origin_table(rows: Sequence[Origin]) -> Table:
    """Return the gains that files copied, beside what those gains are."""
    return Table(
        "gains that a file copied, and what they are",
        ("model", "copied", "in file", "file says", "is the gain of", "of model", "measured in"),
        tuple(
            (
                row.copied.measurement.model,
                three(row.copied.measurement.value),
                row.copied.file,
                row.copied.measurement.says or "",
                row.source.measurement.state if row.source else "not in these files",
                row.source.measurement.model if row.source else "",
                row.source.file if row.source else "",
            )
            for row in rows
        ),
    )


def finding_table(findings: Sequence[Finding]) -> Table:
    """Return stated numbers that are not what the rest of their file gives."""
    return Table(
        "contradictions within a file",
        ("where", "finding"),
        tuple((finding.place, sentence(finding)) for finding in findings),
    )


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
    return Table(
        title,
        (
            "model",
            "called",
            "is of",
            "tokens",
            "value",
            "95 %",
            "n",
            "file says",
            "follows",
            "known",
        ),
        tuple(
            (
                row.model,
                row.called,
                row.state if row.block is None else f"{row.state} ({row.block})",
                REDUCTIONS[row.reduction],
                three(row.value),
                interval(row.low, row.high),
                str(row.prompts or ""),
                row.says or "",
                follows(row),
                BASES[row.basis],
            )
            for row in measurements
        ),
    )


def state_table(scores: Sequence[Rescore]) -> Table:
    """Return the meaning of every state that the files' numbers are of."""
    used = {row.state for score in scores for row in score.measurements}
    rows = tuple((state, meaning) for state, meaning in STATES.items() if state in used)
    return Table("what the names mean", ("name", "meaning"), rows)


def difference_table(
    differences: Iterable[PairedDifference],
    title: str = "paired differences over the same prompts, in nats",
) -> Table:
    """Return the paired tests, the file's own word beside each."""
    return Table(
        title,
        ("model", "minus", "of", "nats", "95 %", "n", "p (Holm)", "file says", "follows"),
        tuple(
            (
                row.model,
                row.minus,
                row.state,
                f"{row.nats:+.3f}",
                f"[{row.low:+.3f}, {row.high:+.3f}]",
                str(row.prompts),
                f"{row.p:.2g}",
                row.says or "",
                "they differ" if row.low > 0 or row.high < 0 else "no difference shown",
            )
            for row in differences
        ),
    )


def spectrum_table(spectra: Iterable[Spectrum]) -> Table:
    """Return each matrix's norms, beside those of a random matrix if its shape is known."""
    return Table(
        "spectra; of several blocks the last",
        ("model", "matrix", "blocks", "σ_max", "Frobenius", "stable rank", "over random edge",
         "effective rank"),
        tuple(
            (
                row.model,
                row.matrix,
                str(max(len(row.spectral_norms), len(row.effective_ranks))),
                _last(row.spectral_norms),
                _last(row.frobenius_norms),
                three(row.stable_rank),
                three(row.edge_ratio),
                _last(row.effective_ranks),
            )
            for row in spectra
        ),
    )  # fmt: skip


def _last(values: Sequence[float | None]) -> str:
    return three(values[-1]) if values else ""
