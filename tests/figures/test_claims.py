"""The figure of a claim: its numbers, and what it predicts of which."""

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.colors import to_hex
from planting.drawings import claim_verdict
from planting.evidence import RULE, planted

from gainlens import figures
from gainlens.claims.claim import catalogue
from gainlens.claims.engine import judge_claim
from gainlens.figures.claims import _SHADE
from gainlens.figures.style import FAINT


def shades(axes):
    """Return the extent of each shaded region: left, right and middle height."""
    found = [c for c in axes.collections if c.get_facecolor().size]
    found = [c for c in found if to_hex(c.get_facecolor()[0]).upper() == _SHADE]
    boxes = [c.get_paths()[0].get_extents() for c in found]
    return [(box.x0, box.x1, (box.y0 + box.y1) / 2) for box in boxes]


def intervals(axes):
    """Return the ends of the intervals, in the order of the rows."""
    segments = [s for c in axes.collections if hasattr(c, "get_segments") for s in c.get_segments()]
    return [(s[0][0], s[1][0]) for s in segments]


def test_the_change_stands_beside_its_control_and_the_prediction_is_of_the_change():
    verdict = claim_verdict()
    effect = verdict.effect
    axes = figures.claim_interval(verdict)
    names = [tick.get_text() for tick in axes.get_yticklabels()]
    assert names == ["change", "change under the control", "difference of both"]
    drawn = [effect.change, effect.control_change, effect.excess]
    np.testing.assert_allclose(intervals(axes), [(one.low, one.high) for one in drawn])
    assert shades(axes) == [pytest.approx((-0.05, 0.05, 0.0))]
    assert any(np.array_equal(line.get_xdata(), effect.draws) for line in axes.lines)
    assert axes.get_title(loc="left") == "sinks-dispensable: CONTRADICTED"


def test_a_prediction_beyond_the_control_shades_the_difference():
    verdict = claim_verdict()
    beyond = replace(verdict.effect, against="control")
    axes = figures.claim_interval(replace(verdict, effect=beyond, prediction="> 1", margin=0.0))
    ((left, right, height),) = shades(axes)
    assert (left, right, height) == pytest.approx((1.0, axes.get_xlim()[1], 2.0))


def test_a_claim_that_was_not_tested_is_grey():
    def colours(outcome):
        axes = figures.claim_interval(claim_verdict(outcome))
        return {to_hex(line.get_color()).upper() for line in axes.lines if line.get_marker() == "o"}

    assert colours("NOT TESTED") == {FAINT}
    assert FAINT not in colours("CONTRADICTED")


def test_a_claim_without_a_number_says_why():
    claim = catalogue()["sinks-dispensable"]
    blind = replace(planted(0.1), values={}, unmeasured="this back end shows nothing")
    axes = figures.claim_interval(judge_claim(claim, [blind], RULE))
    assert [text.get_text() for text in axes.texts] == ["This back end shows nothing."]
