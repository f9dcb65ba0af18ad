"""What the interventions say: components that decide, differences under one theta, in words."""

from dataclasses import replace

import numpy as np
import pytest
from planting.interventions import ATTENTION, MLP, interventions
from planting.reports import RULE, pair, planted

from gainlens.claims.components import (
    ablated_outcome,
    ablated_verdicts,
    causal_reasons,
    differences_at_theta,
)
from gainlens.claims.judging import judge
from gainlens.claims.pairing import difference_of


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
    assert ablated_outcome(*reports) is None
    assert causal_reasons(*reports, (), ()) == ()


def test_the_verdict_says_in_words_what_the_interventions_found():
    reports = intervened(
        short=({MLP: -0.01, ATTENTION: -0.02}, {1e4: 0.0, 5e5: 0.014}),
        long=({MLP: 0.6, ATTENTION: -0.02}, {1e4: 0.0, 5e5: 0.0}),
    )
    verdict = judge(reports, RULE)
    text = "\n".join(verdict.reasons)
    assert verdict.components == ablated_verdicts(*reports, RULE)
    assert verdict.at_theta == differences_at_theta(*reports, RULE)
    assert (
        "The outcome, CONFIRMED, depends on 1 of 2 ablated components: last, MLP, zero (short "
        "CONFIRMED, long UNEXPECTED, both UNEXPECTED)." in text
    )
    assert "last, MLP, zero: +0.6000" in text
    assert "last block's log gain of s, trained with 10,000, changes by +0.0140" in text
    assert "With both models under one theta the difference" in text


def test_where_no_component_decides_the_words_say_so():
    same = ({MLP: -0.01, ATTENTION: -0.01}, {})
    text = "\n".join(judge(intervened(short=same, long=same), RULE).reasons)
    assert "depends on no component of these: with any one of the 2 ablated" in text
    assert "it stays CONFIRMED" in text


def test_a_swap_that_may_do_nothing_is_called_so():
    reports = pair(planted(1.2, 1), planted(0.8, 2))
    noise = np.random.default_rng(0).normal(0, 0.01, size=40)
    noise -= noise.mean()
    done = interventions(reports[0].last_block, {}, {1e4: 0.0, 5e5: noise})
    short = replace(reports[0], interventions=done)
    text = "\n".join(causal_reasons(short, reports[1], (), ()))
    assert "may be none" in text


def test_notes_are_said():
    reports = pair(planted(1.2, 1), planted(0.8, 2))
    done = interventions(reports[0].last_block, {}, {}, notes=("theta was not swapped: no RoPE",))
    short = replace(reports[0], interventions=done)
    assert causal_reasons(short, reports[1], (), ()) == ("s: theta was not swapped: no RoPE.",)


def test_the_outcome_under_the_ablation_that_was_asked_for():
    reports = pair(planted(1.2, 1), planted(0.8, 2))
    short, long = (
        replace(report, interventions=interventions(report.last_block, {}, {}, ablated=shift))
        for report, shift in zip(reports, (-0.6, 0.0), strict=True)
    )
    assert ablated_outcome(short, long) == "REJECTED"
    verdict = judge((short, long), RULE)
    assert verdict.outcome == "CONFIRMED"
    assert verdict.ablated_outcome == "REJECTED"
    assert "Under the ablation that was asked for the outcome is REJECTED." in verdict.reasons
