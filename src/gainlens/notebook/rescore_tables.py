"""A re-scored file as rows for the terminal and the report: label, value, and what it means."""

from collections.abc import Iterator
from dataclasses import dataclass

from gainlens.notebook.rescore_model import ERASES_BELOW, BlockChange, ModelRescore
from gainlens.notebook.rescoring import PairRescore, Rescore


@dataclass(frozen=True)
class Row:
    """One line.  Labels and explanations may hold text from the file: escape them for markup."""

    label: str
    value: str
    explanation: str


@dataclass(frozen=True)
class Table:
    """One titled table."""

    title: str
    rows: tuple[Row, ...]


def tables(score: Rescore) -> tuple[Table, ...]:
    """A table for each model, one for the notebook's test, one of what cannot be concluded."""
    per_model = [Table(model.key, tuple(_model_rows(model))) for model in score.models]
    if score.pair is None:
        pair = Table("the notebook's test", (Row("not done", "", score.pair_reason),))
    else:
        title = f"the notebook's test: {score.pair.short} against {score.pair.long}"
        pair = Table(title, tuple(_pair_rows(score.pair)))
    closed = tuple(Row(str(i), "", said) for i, said in enumerate(score.cannot_conclude, 1))
    return (*per_model, pair, Table("what cannot be concluded from this file", closed))


def _model_rows(model: ModelRescore) -> Iterator[Row]:
    last = model.last_gain
    yield Row("normed state", f"entry {last.normed_entry}", "; ".join(last.evidence))
    yield Row("last_gain is", f"{last.value:.4f}", last.what_it_is)
    block = "" if last.block_gain is None else f"{last.block_gain:.4f}"
    yield Row("last_gain is not", block, last.what_it_is_not)
    reasons = dict(model.unknown)
    if model.writes is None:
        yield Row("writing block", "none", reasons["writes"])
    else:
        yield _change(
            "writing block",
            model.writes,
            "the mean norm jumps here, as where massive tokens are written",
        )
    for block in model.erases:
        yield _change("erasing block", block, "the mean norm falls here")
    if not model.erases:
        seen = "no block" if last.block_gain is not None else "no block before the last"
        yield Row("erasing block", "none", f"{seen} has a gain below {ERASES_BELOW:g}")
    yield from _telescope_row(model, reasons)
    yield from _unembed_rows(model, reasons)
    yield from _rope_row(model, reasons)
    yield from (Row("contradiction", "", finding) for finding in model.findings)


def _change(label: str, block: BlockChange, explanation: str) -> Row:
    return Row(label, f"block {block.layer}", f"gain {block.gain:.4g}: {explanation}")


def _telescope_row(model: ModelRescore, reasons: dict[str, str]) -> Iterator[Row]:
    found = model.telescope
    if found is None:
        yield Row("cumulative_energy", "unknown", reasons["telescope"])
        return
    yield Row(
        "cumulative_energy",
        f"{found.cumulative_energy:.4g}",
        f"telescopes to final over embedding norm, {found.final_over_embedding:.4g} "
        f"(relative difference {found.difference:.0e}): no information",
    )


def _unembed_rows(model: ModelRescore, reasons: dict[str, str]) -> Iterator[Row]:
    found = model.unembed
    if found is None:
        yield Row("W_U", "unknown", reasons["unembed"])
        return
    yield Row(
        "σ_max(W_U) over random edge",
        f"{found.edge_ratio:.1f}x",
        f"{found.spectral_norm:.2f} against {found.edge:.2f} for a random matrix of this shape "
        "and Frobenius norm; far above 1 there is a direction that the rows share",
    )
    yield Row(
        "energy of the top direction",
        f"{found.energy_share:.1%}",
        "σ_max² over |W_U|²; a part common to all rows would leave softmax as it is",
    )


def _rope_row(model: ModelRescore, reasons: dict[str, str]) -> Iterator[Row]:
    found = model.rope
    if found is None:
        yield Row("RoPE theta", "unknown", reasons["rope"])
        return
    side = "below" if found.theta_over_bound < 1 else "at or above"
    scaled = "; the config scales frequencies as well, so theta alone says less"
    yield Row(
        "RoPE theta",
        f"{found.theta:,.0f}",
        f"{side} the bound {found.theta_bound:,.0f} for a context of {found.context:,} (Men et al. "
        f"2024){scaled if found.scaled else ''}",
    )


def _pair_rows(pair: PairRescore) -> Iterator[Row]:
    reasons = dict(pair.unknown)
    yield Row("short and long", f"{pair.short}, {pair.long}", f"told apart by {pair.chosen_by}")
    stated = "the file states none" if pair.stated_verdict is None else pair.stated_verdict
    yield Row("verdict", pair.verdict, f"by the notebook's rule; stated: {stated}")
    for name in ("theta_ratio", "gain_ratio"):
        value: float | None = getattr(pair, name)
        text = "unknown" if value is None else f"{value:.4g}"
        yield Row(name, text, reasons.get(name, "long over short"))
    if pair.wu_ratio is None or pair.wu_vocabulary is None or pair.wu_rest is None:
        yield Row("wu_ratio", "unknown", reasons["wu_ratio"])
    else:
        yield Row(
            "wu_ratio",
            f"{pair.wu_ratio:.2f}",
            f"= {pair.wu_vocabulary:.2f} x {pair.wu_rest:.2f}: the square root of the vocabulary "
            "ratio, and the rest",
        )
    yield from (Row("contradiction", "", finding) for finding in pair.findings)
