"""The notebook that gainlens grew out of, to the digit: statistics, rule, table and JSON.

Source: buk81/uniformity-asymmetry@e3c7f94 (MIT), paper3/notebooks,
LLaMA2_vs_LLaMA3_Long_Context_Test.ipynb.  Its numbers stand here as it defined them; what they
cannot carry is said in DESIGN section 1 and by rescoring.py.
"""

import copy
import dataclasses
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from gainlens.records import Capture, HypothesisTest, ModelReport, NotebookResidual
from gainlens.spec import (
    HYPOTHESIS,
    NOTEBOOK_REFERENCES,
    REFERENCE_ROWS,
    ComparisonSpec,
    ReferenceRow,
)

NOTEBOOK_VERDICTS: Final = ("CONFIRMED", "REJECTED - Family Trait", "UNEXPECTED", "INVERTED")


def notebook_gains(norms: Sequence[float]) -> tuple[float, ...]:
    """Ratios of neighbouring norms, one fewer than norms; 1.0 where the earlier norm is 0."""
    return tuple(
        after / before if before > 0 else 1.0 for before, after in itertools.pairwise(norms)
    )


def notebook_residual(capture: Capture) -> NotebookResidual:
    """The notebook's statistics, from a capture of its one sentence; L2 norms and their ratios.

    Args:
        capture: of one prompt; the notebook's is `load_prompts("notebook")`.

    Norms are means over positions of Hugging Face's hidden_states: entry l is what enters block l,
    the last is the stream after the final norm.  The gain of the last block itself, and of the
    final norm, stand beside: their product is the notebook's last_gain.
    Raises ValueError where a norm is not finite.

    Examples:
        >>> sentence = gainlens.encode_for(loaded, gainlens.load_prompts("notebook"))
        >>> residual = gainlens.notebook_residual(gainlens.capture(loaded.model, sentence))
        >>> round(residual.last_gain, 2), round(residual.true_last_gain, 2)
        (0.69, 1.13)
    """
    assert capture.num_prompts == 1, "the notebook has one sentence"
    entering = np.sqrt(capture.column("xx")).mean(axis=1)
    leaving = float(np.sqrt(capture.column("yy")[-1]).mean())
    norms = tuple(float(norm) for norm in [*entering, capture.normed.mean()])
    if not all(math.isfinite(norm) for norm in (*norms, leaving)):
        raise ValueError(
            "the residual stream is not finite on the notebook's sentence (mean norms "
            f"{', '.join(f'{norm:g}' for norm in norms)}); measure in float32 or bfloat16"
        )
    gains = notebook_gains(norms)
    return NotebookResidual(
        norms=norms,
        gains=gains,
        embedding_norm=norms[0],
        final_norm=norms[-1],
        initial_gain=gains[0],
        last_gain=gains[-1],
        last_expands=gains[-1] > 1.0,
        cumulative_energy=math.prod(gains),
        num_layers=len(gains),
        contracting_layers=sum(gain < 1.0 for gain in gains),
        expanding_layers=sum(gain >= 1.0 for gain in gains),
        true_last_gain=_ratio(leaving, norms[-2]),
        final_norm_gain=_ratio(norms[-1], leaving),
    )


@dataclass(frozen=True)
class Side:
    """What the notebook's rule looks at, of one model."""

    last_gain: float
    rope_theta: float | None
    """None where not known, or where the model has no RoPE"""
    spectral_norm: float | None
    """largest singular value of lm_head, L2 norm; None where not known"""


def side_of(report: ModelReport) -> Side:
    """The side of a measured model."""
    return Side(
        last_gain=report.residual.last_gain,
        rope_theta=report.rope.rope_theta,
        spectral_norm=report.unembed.spectral_norm,
    )


def notebook_verdict(short_gain: float, long_gain: float) -> str:
    """The notebook's four strings, by which side of 1 the two last_gains lie.

    A gain of exactly 1 is neither above nor below and falls through to INVERTED, as it did there.
    """
    assert math.isfinite(short_gain), "notebook_residual lets no other gain through"
    assert math.isfinite(long_gain), "notebook_residual lets no other gain through"
    if short_gain > 1.0 and long_gain < 1.0:
        return "CONFIRMED"
    if short_gain < 1.0 and long_gain < 1.0:
        return "REJECTED - Family Trait"
    if short_gain > 1.0 and long_gain > 1.0:
        return "UNEXPECTED"
    return "INVERTED"


def hypothesis_test(short: Side, long: Side) -> HypothesisTest:
    """The notebook's test: long over short for each ratio.

    One departure: where a number is missing or the denominator is 0 the ratio is NaN; the notebook
    wrote 0 there, which reads as a measurement.
    """
    return HypothesisTest(
        short_expands=short.last_gain > 1.0,
        long_expands=long.last_gain > 1.0,
        theta_ratio=_ratio(long.rope_theta, short.rope_theta),
        gain_ratio=_ratio(long.last_gain, short.last_gain),
        wu_ratio=_ratio(long.spectral_norm, short.spectral_norm),
        verdict=notebook_verdict(short.last_gain, long.last_gain),
    )


def _ratio(numerator: float | None, denominator: float | None) -> float:
    return math.nan if numerator is None or not denominator else numerator / denominator


TABLE_HEADER: Final = ("Model", "Context", "RoPE Theta", "Last Gain", "W_U σ_max", "Behavior")


@dataclass(frozen=True)
class ComparisonRow:
    """A row of the notebook's comparison table."""

    label: str
    context: int
    """tokens"""
    rope_theta: float | None
    """None where the model has no RoPE"""
    last_gain: float
    """notebook's convention, ratio"""
    w_u_spectral: float
    """L2 norm"""
    behaviour: str
    """EXPANDS where last_gain > 1, else CONTRACTS: the notebook has no third word"""
    source: str
    """`measured`, or where a reference row is from"""


def comparison_rows(
    spec: ComparisonSpec, reports: Sequence[ModelReport]
) -> tuple[ComparisonRow, ...]:
    """The notebook's table: short, long, further models as given, then the rows from elsewhere.

    Labels and contexts come from the spec where it has them, as in the notebook's definitions
    (which give Llama-3.1 128,000 tokens), else from the checkpoint.
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
    """A row as the notebook printed it, in the order of TABLE_HEADER; a dash where unknown."""
    return (
        row.label,
        f"{row.context:,}",
        "-" if row.rope_theta is None else f"{row.rope_theta:,.0f}",
        f"{row.last_gain:.4f}x",
        f"{row.w_u_spectral:.2f}",
        row.behaviour,
    )


_UNKNOWN_RATIO: Final = {
    "theta_ratio": "one of the two models has no RoPE theta; the notebook wrote 0 here",
    "gain_ratio": "the short model's last_gain is 0; the notebook wrote 0 here",
    "wu_ratio": "the short model's W_U has spectral norm 0; the notebook wrote 0 here",
}


def notebook_json(
    experiment: str, date: str, reports: Sequence[ModelReport], test: HypothesisTest
) -> dict[str, Any]:
    """The notebook's JSON, key for key: plain values only, what is unknown null with a reason.

    Added to its keys: true_last_gain and final_norm_gain under `residual`; short_expands and
    long_expands under `hypothesis_test`, beside the names that the notebook gave them.
    """
    return {
        "experiment": experiment,
        "date": date,
        "hypothesis": HYPOTHESIS,
        "models": {report.checkpoint.name: _model_json(report) for report in reports},
        "hypothesis_test": _test_json(test),
        "references": copy.deepcopy(NOTEBOOK_REFERENCES),
    }


def _model_json(report: ModelReport) -> dict[str, Any]:
    residual, unembed = report.residual, report.unembed
    no_gain = "nothing enters the last block, so it has no gain"
    return {
        "model": report.checkpoint.name,
        "hf_name": report.checkpoint.hf_name,
        "num_layers": report.checkpoint.num_layers,
        "residual": dataclasses.asdict(residual)
        | {"norms": list(residual.norms), "gains": list(residual.gains)}
        | _known("true_last_gain", residual.true_last_gain, no_gain)
        | _known("final_norm_gain", residual.final_norm_gain, "nothing leaves the last block"),
        "w_u": {
            "shape": list(unembed.shape),
            "vocab_size": unembed.vocab_size,
            "hidden_dim": unembed.hidden_dim,
            "frobenius_norm": unembed.frobenius_norm,
            "spectral_norm": unembed.spectral_norm,
            "mean_row_norm": unembed.mean_row_norm,
        },
        "rope": _rope_json(report),
    }


def _rope_json(report: ModelReport) -> dict[str, Any]:
    rope = report.rope
    scaling = None if rope.rope_scaling is None else copy.deepcopy(dict(rope.rope_scaling))
    return (
        _known("rope_theta", rope.rope_theta, "the model has no rotary position embedding")
        | {"rope_scaling": scaling}
        | _known("max_position", rope.max_position, "the config gives no max_position_embeddings")
    )


def _test_json(test: HypothesisTest) -> dict[str, Any]:
    ratios: dict[str, Any] = {}
    for name, reason in _UNKNOWN_RATIO.items():
        ratios |= _known(name, getattr(test, name), reason)
    return {
        "short_expands": test.short_expands,
        "long_expands": test.long_expands,
        "llama2_expands": test.short_expands,
        "llama31_expands": test.long_expands,
        **ratios,
        "verdict": test.verdict,
    }


def _known(name: str, value: float | int | None, reason: str) -> dict[str, Any]:
    """A number under its name; where it is not known, null with the reason beside it."""
    if value is not None and math.isfinite(value):
        return {name: value}
    return {name: None, f"{name}_reason": reason}
