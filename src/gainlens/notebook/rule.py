"""Apply the notebook's test: on which side of 1 two gains lie, and three ratios."""

import math
from dataclasses import dataclass
from typing import Final

from gainlens.records.comparison import HypothesisTest, ModelReport

NOTEBOOK_VERDICTS: Final = ("CONFIRMED", "REJECTED - Family Trait", "UNEXPECTED", "INVERTED")


@dataclass(frozen=True)
class Side:
    """Hold the numbers of one model that the notebook's rule reads."""

    last_gain: float
    rope_theta: float | None
    """None if it is not known or the model has no RoPE"""
    spectral_norm: float | None
    """largest singular value of lm_head; None if it is not known"""


def side_of(report: ModelReport) -> Side:
    """Return the side of a measured model."""
    return Side(
        last_gain=report.residual.last_gain,
        rope_theta=report.rope.rope_theta,
        spectral_norm=report.unembed.spectral_norm,
    )


def notebook_verdict(short_gain: float, long_gain: float) -> str:
    """Return one of the notebook's four strings, by which side of 1 the two last_gains lie.

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
    """Return the notebook's test, with each ratio as long over short.

    One departure: if a number is missing or the denominator is 0, the ratio is NaN.  The notebook
    wrote 0 there, which reads as a measurement.
    """
    return HypothesisTest(
        short_expands=short.last_gain > 1.0,
        long_expands=long.last_gain > 1.0,
        theta_ratio=ratio(long.rope_theta, short.rope_theta),
        gain_ratio=ratio(long.last_gain, short.last_gain),
        wu_ratio=ratio(long.spectral_norm, short.spectral_norm),
        verdict=notebook_verdict(short.last_gain, long.last_gain),
    )


def ratio(numerator: float | None, denominator: float | None) -> float:
    """Return a ratio, NaN if one of its numbers is unknown or the denominator is 0."""
    return math.nan if numerator is None or not denominator else numerator / denominator
