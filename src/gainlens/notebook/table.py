"""Build the notebook's comparison table: the models of a comparison, then published rows."""

from collections.abc import Sequence
from typing import Final

from gainlens.core.spec import ComparisonSpec
from gainlens.notebook.published import REFERENCE_ROWS, ComparisonRow
from gainlens.records.comparison import ModelReport

TABLE_HEADER: Final = ("Model", "Context", "RoPE Theta", "Last Gain", "W_U σ_max", "Behavior")


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
    return (*measured, *REFERENCE_ROWS)


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
