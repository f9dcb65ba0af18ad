"""Say what calibration found of intervals in the runs that it concerns."""

import numpy as np
import pytest
from planting.evidence import RULE, planted

from gainlens.claims import conditions
from gainlens.claims.claim import catalogue
from gainlens.claims.clusters import clustering_of
from gainlens.claims.conditions import (
    CLUSTERS,
    EACH,
    OUTLIERS,
    SHAPES,
    Coverage,
    clustered,
    count_outliers,
    coverages,
    shortfall,
)
from gainlens.claims.engine import judge_claim

NORMAL = np.random.default_rng(0).normal(size=64)


def table(**rates):
    """Coverage as calibrated: normal at 16 and 32 prompts, outliers, groups."""
    found = {"few": 0.95, "enough": 0.95, "outliers": 0.95, "prompts": 0.95, "groups": 0.95} | rates
    return (
        Coverage(SHAPES[0], "prompts", 16, found["few"]),
        Coverage(SHAPES[1], "prompts", 16, 0.95),
        Coverage(SHAPES[0], "prompts", 32, found["enough"]),
        Coverage(OUTLIERS, "prompts", 32, found["outliers"]),
        Coverage(CLUSTERS[0.5], "prompts", 32, found["prompts"]),
        Coverage(CLUSTERS[0.5], "groups", 4, found["groups"]),
    )


@pytest.fixture
def calibrated(monkeypatch):
    def use(**rates):
        monkeypatch.setattr(conditions, "coverages", lambda contrast: table(**rates))

    return use


def test_the_shipped_table_has_every_condition():
    found = {(row.case, row.unit, row.n) for row in coverages()}
    for n in (16, 32, 64):
        assert {(shape, "prompts", n) for shape in SHAPES} <= found
        assert (OUTLIERS, "prompts", n) in found
    for case in CLUSTERS.values():
        assert (case, "prompts", 32) in found
        assert (case, "groups", 4) in found


def test_few_prompts_are_said_if_intervals_over_few_fell_short(calibrated):
    calibrated(few=0.91)
    assert shortfall(NORMAL[:20]) == (
        "20 prompts: intervals of 95 % over 16 prompts covered 91.0% in calibration if values are "
        "normal."
    )
    assert shortfall(NORMAL[:40]) is None
    assert shortfall(np.r_[NORMAL[:20], np.full(30, np.nan)]) is not None
    calibrated()
    assert shortfall(NORMAL[:20]) is None


def test_outliers_are_counted_and_said(calibrated):
    values = np.r_[NORMAL[:58], NORMAL[58:] + 20]
    assert count_outliers(values) == 6
    assert count_outliers(NORMAL) == 0
    calibrated(outliers=0.885)
    assert shortfall(values) == (
        "6 of 64 prompts are outliers: with 5 % outliers intervals of 95 % covered 88.5% in "
        "calibration."
    )
    assert shortfall(NORMAL) is None
    assert shortfall(np.r_[np.zeros(100), np.ones(1)]) is None  # 1 in 101 is not 2.5 %
    calibrated()
    assert shortfall(values) is None


def test_groups_of_similar_prompts_are_said_with_the_interval_over_them(calibrated):
    groups = tuple(f"doc-{i // 8}" for i in range(64))
    effect = np.repeat(np.random.default_rng(1).normal(size=8), 8)
    alike = clustering_of(NORMAL + effect, groups, 0.95)
    centred = NORMAL - np.repeat(NORMAL.reshape(8, 8).mean(axis=1), 8)
    unlike = clustering_of(centred, groups, 0.95)
    calibrated(prompts=0.63)
    said = clustered(alike, lambda interval: f"{interval.estimate:.2f}")
    assert f"{alike.over_groups.estimate:.2f}" in said
    assert "over 8 groups" in said
    assert "(63% covered)" in said
    assert "such intervals" not in said
    assert clustered(unlike, str) is None
    assert clustered(None, str) is None
    calibrated(groups=0.9)
    assert "such intervals covered 90% in calibration" in clustered(alike, str)


def test_a_verdict_says_under_which_conditions_its_interval_falls_short(calibrated):
    calibrated(few=0.9)
    claim = catalogue()["late-mlps-erase"]
    few = judge_claim(claim, [planted(-0.5, prompts=16)], RULE)
    more = judge_claim(claim, [planted(-0.5, prompts=40)], RULE)
    assert any(reason.startswith("16 prompts: intervals of 95 %") for reason in few.reasons)
    assert not any("in calibration" in reason for reason in more.reasons)


def test_intervals_for_all_blocks_at_once_have_a_calibration_of_their_own(monkeypatch):
    def of(contrast):
        return table(enough=0.91 if contrast == EACH else 0.95)

    monkeypatch.setattr(conditions, "coverages", of)
    each = judge_claim(catalogue()["norm-grows-in-every-block"], [way(prompts=40)], RULE)
    one = judge_claim(catalogue()["norm-grows-4.5-percent"], [way(prompts=40)], RULE)
    assert any("covered 91.0% in calibration" in reason for reason in each.reasons)
    assert not any("in calibration" in reason for reason in one.reasons)


def way(**options):
    """Planted numbers under the name that a log gain's reduction has."""
    return planted(0.3, ways=("geomean",), **options)


def test_each_contrast_over_prompts_has_rows_of_its_own():
    for contrast in ("level", EACH, "signs", "difference", "trend"):
        assert {row.n for row in coverages(contrast) if row.case == OUTLIERS} >= {16, 32, 64}


def test_the_shipped_table_speaks_of_sixteen_prompts_and_of_outliers():
    """Differences of very skewed values covered 92.5 % at 16, and outliers 90 % at 32."""
    assert shortfall(NORMAL[:16], "difference").startswith("16 prompts: intervals of 95 %")
    assert shortfall(NORMAL, "difference") is None
    outlying = np.r_[NORMAL[:30], 12.0, 15.0]
    assert shortfall(outlying, "difference").startswith("2 of 32 prompts are outliers")
