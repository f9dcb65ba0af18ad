"""Check what interventions say: components that decide, differences under one theta, in words."""

from dataclasses import replace

import numpy as np
import pytest
from planting.interventions import ATTENTION, MLP, interventions
from planting.reports import RULE, pair, planted

from gainlens.claims.components import (
    ablated_outcome,
    ablated_verdicts,
    differences_at_theta,
    turning_components,
)
from gainlens.claims.judging import judge
from gainlens.claims.pairing import difference_of
from gainlens.claims.reasons import _theta

WAVES = np.tile([1.0, -1.0], 20)


def intervened(short_gain=1.2, long_gain=0.8, *, short=None, long=None, **options):
    """A pair with interventions; short and long: shift of log gain by site, by theta, ablated."""
    reports = pair(planted(short_gain, 1), planted(long_gain, 2), **options)
    return tuple(
        replace(report, interventions=interventions(report.last_block, *(found or ({}, {}))))
        for report, found in zip(reports, (short, long), strict=True)
    )


def test_a_component_decides_where_its_ablation_turns_the_outcome():
    erases = {MLP: +0.6, ATTENTION: -0.01}
    reports = intervened(short=({MLP: -0.01, ATTENTION: -0.01}, {}), long=(erases, {}))
    mlp, attention = ablated_verdicts(*reports, RULE)
    assert (mlp.site, mlp.before) == (MLP, "CONFIRMED")
    assert (mlp.short_ablated, mlp.long_ablated, mlp.both_ablated) == (
        "CONFIRMED",
        "UNEXPECTED",
        "UNEXPECTED",
    )
    assert mlp.decides
    assert not attention.decides


def test_the_difference_under_ablation_is_that_of_the_ablated_pair():
    """Ablating adds 0.1 to every short prompt and 0.3 to every long one."""
    reports = intervened(short=({MLP: 0.1}, {}), long=({MLP: 0.3}, {}))
    before, _ = difference_of(*reports, RULE)
    (found,) = ablated_verdicts(*reports, RULE)
    assert found.difference.estimate == pytest.approx(before.estimate + 0.2)
    assert found.difference.high - found.difference.low == pytest.approx(before.high - before.low)


def test_components_of_one_sweep_alone_are_left_out():
    reports = intervened(short=({MLP: 0.1, ATTENTION: 0.1}, {}), long=({MLP: 0.1}, {}))
    assert [found.site for found in ablated_verdicts(*reports, RULE)] == [MLP]


def test_differences_are_compared_at_the_thetas_that_both_have():
    short = {1e4: 0.0, 5e5: 0.02, 1e6: 0.5}
    long = {1e4: -0.03, 5e5: 0.0}
    reports = intervened(short=({}, short), long=({}, long))
    before, _ = difference_of(*reports, RULE)
    found = differences_at_theta(*reports, RULE)
    assert [one.theta for one in found] == [1e4, 5e5]
    shifts = [one.difference.estimate - before.estimate for one in found]
    assert shifts == pytest.approx([-0.03, -0.02])


def test_without_interventions_nothing_is_said():
    reports = intervened()
    assert ablated_verdicts(*reports, RULE) == ()
    assert differences_at_theta(*reports, RULE) == ()
    assert ablated_outcome(*reports, RULE) is None


def test_an_outcome_that_is_merely_lost_does_not_depend_on_the_component():
    """Ablating takes the long model to a gain of 1: UNDETERMINED is a loss of power, no turn."""
    to_one = -np.log(0.8) + 0.02 * WAVES
    lost = intervened(short=({MLP: 0.01 * WAVES}, {}), long=({MLP: to_one}, {}))
    (verdict,) = ablated_verdicts(*lost, RULE)
    assert verdict.long_ablated == "UNDETERMINED"
    assert not verdict.decides
    assert verdict.matters  # the difference changes, beyond its interval


def test_a_component_matters_if_the_difference_changes_beyond_its_interval():
    rng = np.random.default_rng(3)
    noise = 0.02 * rng.normal(size=40)
    noise -= noise.mean()
    for shift, matters in ((0.0, False), (0.1, True)):
        reports = intervened(1.2, 1.3, short=({MLP: 0.0}, {}), long=({MLP: noise + shift}, {}))
        (verdict,) = ablated_verdicts(*reports, RULE)
        assert not verdict.decides
        assert verdict.change.estimate == pytest.approx(shift)
        assert verdict.matters == matters


def test_a_difference_that_turns_under_ablation_is_named():
    reports = intervened(1.2, 1.3, short=({ATTENTION: 0.3}, {}), long=({ATTENTION: -0.1}, {}))
    verdict = judge(reports, RULE)
    (turning,) = turning_components(verdict.components, verdict.difference)
    assert turning.site == ATTENTION
    assert any("difference turns" in reason for reason in verdict.reasons)
    same = intervened(1.2, 1.3, short=({ATTENTION: 0.1}, {}), long=({ATTENTION: 0.1}, {}))
    assert turning_components(judge(same, RULE).components, verdict.difference) == ()


def test_the_verdict_says_which_ablation_turns_the_outcome():
    reports = intervened(
        short=({MLP: -0.01, ATTENTION: -0.02}, {1e4: 0.0, 5e5: 0.014}),
        long=({MLP: 0.6, ATTENTION: -0.02}, {1e4: 0.0, 5e5: 0.0}),
    )
    verdict = judge(reports, RULE)
    assert verdict.components == ablated_verdicts(*reports, RULE)
    assert verdict.at_theta == differences_at_theta(*reports, RULE)
    (said,) = [reason for reason in verdict.reasons if "turns under 1 of 2" in reason]
    assert "last, MLP, zero" in said


@pytest.mark.parametrize("change", [0.04, -0.04])
def test_a_theta_swap_is_told_as_distance_from_training(change):
    """The swapped model that changes most is named, whichever way it changes."""
    reports = intervened(
        1.2, 1.3, short=({}, {1e4: 0.0, 5e5: 0.01 * WAVES}), long=({}, {5e5: change + 0.01 * WAVES})
    )
    said = _theta(reports)
    assert f"{change:+.3f} nats" in said
    assert said.startswith("Off the base")
    assert "l's log gain" in said
    assert "distance from training" in said


def test_notes_are_said():
    reports = pair(planted(1.2, 1), planted(0.8, 2))
    done = interventions(reports[0].last_block, {}, {}, notes=("theta was not swapped: no RoPE",))
    short = replace(reports[0], interventions=done)
    assert "s: theta was not swapped: no RoPE." in judge((short, reports[1]), RULE).reasons


def test_the_outcome_under_the_ablation_that_was_asked_for():
    reports = pair(planted(1.2, 1), planted(0.8, 2))
    short, long = (
        replace(report, interventions=interventions(report.last_block, {}, {}, ablated=shift))
        for report, shift in zip(reports, (-0.6, 0.0), strict=True)
    )
    assert ablated_outcome(short, long, RULE) == "REJECTED"
    verdict = judge((short, long), RULE)
    assert verdict.outcome == "CONFIRMED"
    assert verdict.ablated_outcome == "REJECTED"
    assert "Under the ablation that was asked for the outcome is REJECTED." in verdict.reasons
