"""The notebook's comparison table: the models of a comparison, then rows from elsewhere."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gainlens.core.spec import ComparisonSpec
from gainlens.notebook.published import REFERENCE_ROWS, ReferenceRow
from gainlens.records.comparison import ModelReport

TABLE_HEADER: Final = ("Model", "Context", "RoPE Theta", "Last Gain", "W_U σ_max", "Behavior")


@dataclass(frozen=True)
class ComparisonRow:
    """One row of the notebook's comparison table."""

    label: str
    context: int
    """tokens"""
    rope_theta: float | None
    """None if the model has no RoPE"""
    last_gain: float
    """notebook's convention, ratio"""
    w_u_spectral: float
    """L2 norm"""
    behaviour: str
    """EXPANDS if last_gain > 1, else CONTRACTS: the notebook has no third word"""
    source: str
    """`measured`, or the source of a reference row"""


def comparison_rows(
    spec: ComparisonSpec, reports: Sequence[ModelReport]
) -> tuple[ComparisonRow, ...]:
    """Return the notebook's table: short, long, further models, then the rows from elsewhere.

    Labels and contexts come from the spec if it has them, as in the notebook's definitions (which
    give Llama-3.1 128,000 tokens), else from the checkpoint.
    """
    order = {"short": 0, "long": 1}
    ranked = sorted(reports, key=lambda report: order.get(report.role, 2))
    measured = [_measured_row(spec, report) for report in ranked]
    return (*measured, *(_reference_row(row) for row in REFERENCE_ROWS))


def _measured_row(spec: ComparisonSpec, report: ModelReport) -> ComparisonRow:
    key = report.checkpoint.name
    model = next(model for model in spec.models if model.key == key)
    return ComparisonRow(
        label=model.label or key,
        context=model.context_length or report.checkpoint.context,
        rope_theta=report.rope.rope_theta,
        last_gain=report.residual.last_gain,
        w_u_spectral=report.unembed.spectral_norm,
        behaviour="EXPANDS" if report.residual.last_expands else "CONTRACTS",
        source="measured",
    )


def _reference_row(row: ReferenceRow) -> ComparisonRow:
    return ComparisonRow(**row.model_dump())


def row_cells(row: ComparisonRow) -> tuple[str, ...]:
    """Return a row as the notebook printed it, in the order of TABLE_HEADER; a dash if unknown."""
    return (
        row.label,
        f"{row.context:,}",
        "-" if row.rope_theta is None else f"{row.rope_theta:,.0f}",
        f"{row.last_gain:.4f}x",
        f"{row.w_u_spectral:.2f}",
        row.behaviour,
    )


UNKNOWN_RATIO: Final = {
    "theta_ratio": "one of the two models has no RoPE theta; the notebook wrote 0 here",
    "gain_ratio": "the short model's last_gain is 0; the notebook wrote 0 here",
    "wu_ratio": "the short model's W_U has spectral norm 0; the notebook wrote 0 here",
}
