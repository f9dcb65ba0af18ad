"""A difference resolved by component, length, position and kind of prompt."""

import dataclasses

import numpy as np
import pytest
from planting.reports import RULE, checkpoint, pair, planted, report

from gainlens.claims.judging import judge
from gainlens.claims.resolving import (
    clustering_of,
    component_differences,
    intraclass_correlation,
    resolved_differences,
)
from gainlens.records.verdict import GroupDifference

PROMPTS = 64


def reports_with(shift, groups=(), seed=0):
    """A pair whose long model adds `shift` [token] to the log gain of a capture's tokens."""
    capture = planted(1.3, seed, prompts=PROMPTS)
    gram = capture.gram.copy()
    noise = 0.01 * np.random.default_rng(seed + 1).normal(size=PROMPTS)[capture.prompt]
    added = np.where(capture.position > 0, shift(capture) + noise, 0)
    gram[6, 0] *= np.exp(2 * added)
    long = dataclasses.replace(capture, gram=gram)
    return (
        report("short", capture, checkpoint("s"), groups=groups),
        report("long", long, checkpoint("l", 4096, 5e5), theta=5e5, groups=groups),
    )


def by(groups: tuple[GroupDifference, ...], what: str) -> dict[str, float]:
    return {group.group: group.log_gain.estimate for group in groups if group.by == what}


def lengths(capture):
    return np.bincount(capture.prompt)[capture.prompt]


def test_parts_sum_to_the_difference():
    short, long = pair(planted(1.2, 1), planted(1.3, 2))
    attention, mlp = component_differences(short, long, RULE)
    total = judge((short, long), RULE).difference
    remainder = attention.part.estimate + mlp.part.estimate - total.estimate
    assert remainder == pytest.approx(0, abs=1e-9)
    assert (attention.component, mlp.component) == ("attention", "mlp")
    # both write their share of y - x, 0.4 and 0.6
    assert attention.part.estimate / mlp.part.estimate == pytest.approx(2 / 3, rel=1e-6)


def test_a_change_of_sign_over_lengths_is_in_the_headline():
    """Half the prompts gain 0.1, half lose 0.1: the mean is near 0."""

    def shift(capture):
        return np.where(lengths(capture) > np.median(np.bincount(capture.prompt)), 0.1, -0.1)

    verdict = judge(reports_with(shift), RULE)
    low, high = verdict.reversal
    assert (low.group, high.group) == ("short prompts", "long prompts")
    assert low.log_gain.high < 0 < high.log_gain.low
    assert "changes sign" in verdict.headline
    assert "changes sign" in verdict.reasons[0]
    assert f"{verdict.difference.estimate:+.3f} nats" not in verdict.headline


def test_a_change_of_sign_over_positions_is_found_too():
    """Every prompt loses at positions 1-3 and gains from 4 on."""
    reports = reports_with(lambda capture: np.where(capture.position < 4, -0.2, 0.1))
    found = by(resolved_differences(*reports, RULE), "position")
    assert found["1-3"] == pytest.approx(-0.2, abs=0.01)
    assert found["4-15"] == pytest.approx(0.1, abs=0.01)
    assert found["0"] == 0
    assert "64-127" not in found  # no prompt is that long
    low, _ = judge(reports, RULE).reversal
    assert (low.by, low.group) == ("position", "1-3")


def test_the_same_sign_everywhere_is_no_reversal():
    verdict = judge(reports_with(lambda capture: 0.1), RULE)
    assert verdict.reversal is None
    assert "long minus short is +0.099" in verdict.headline


def test_kinds_with_enough_prompts_are_compared():
    groups = ("code",) * 32 + ("prose",) * 28 + ("rare",) * 4

    def shift(capture):
        return np.where(capture.prompt < 32, -0.1, 0.1)

    reports = reports_with(shift, groups)
    found = by(resolved_differences(*reports, RULE), "kind")
    assert set(found) == {"code", "prose"}
    assert found["code"] < -0.09 < 0.09 < found["prose"]


def test_unpaired_models_resolve_nothing():
    short, long = reports_with(lambda capture: 0.1)
    other = dataclasses.replace(long, prompts=dataclasses.replace(long.prompts, sha256="other"))
    assert resolved_differences(short, other, RULE) == ()
    assert component_differences(short, other, RULE) == ()
    assert clustering_of(short, other, RULE) is None


# --- clusters


def test_intraclass_correlation_of_planted_clusters():
    """Group effects of variance 1 among errors of variance 1: 0.5; none: 0."""
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(400), rng.integers(2, 9, size=400))
    error = rng.normal(size=len(group))
    clustered = rng.normal(size=400)[group] + error
    assert intraclass_correlation(clustered, group) == pytest.approx(0.5, abs=0.05)
    assert intraclass_correlation(error, group) < 0.05
    assert np.isnan(intraclass_correlation(np.ones(6), np.arange(6) // 2))


@pytest.mark.fault(
    "prompts of one kind that resemble one another", "caveat: the interval over groups beside it"
)
def test_clustered_prompts_are_said_to_be_so():
    """Eight documents of eight prompts; the difference is a property of the document."""
    groups = tuple(f"doc-{i // 8}" for i in range(PROMPTS))
    effect = 0.1 * np.random.default_rng(5).normal(size=8)

    verdict = judge(reports_with(lambda c: effect[c.prompt // 8], groups), RULE)
    clustering = verdict.clustering
    assert clustering.groups == 8
    assert clustering.correlation > 0.8
    width = clustering.over_groups.high - clustering.over_groups.low
    assert width > 2 * (verdict.difference.high - verdict.difference.low)
    assert any("over 8 groups" in reason for reason in verdict.reasons)


def test_prompts_without_groups_have_no_clustering():
    assert judge(reports_with(lambda capture: 0.1), RULE).clustering is None
    names = tuple(f"own-{i}" for i in range(PROMPTS))
    assert judge(reports_with(lambda capture: 0.1, names), RULE).clustering is None
