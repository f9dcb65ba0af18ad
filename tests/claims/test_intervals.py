"""Intervals against an independent bootstrap, their identities, and what cannot be told."""

import tracemalloc

import numpy as np
import pytest
from scipy import stats as scipy_stats

from gainlens.claims.intervals import (
    CONSTANT,
    FEW,
    UNSTABLE,
    _standardise,
    _studentised,
    difference_interval,
    draw_shares,
    halves_interval,
    mean_interval,
    mean_intervals,
    seed_interval,
    simultaneous_band,
    simultaneous_bands,
)


@pytest.fixture
def skewed() -> np.ndarray:
    return np.random.default_rng(5).exponential(size=40)


def plain_half_width(values: np.ndarray, resamples: int, size: int) -> float:
    """The same definition written another way: resamples kept, numpy's quantile."""
    rng = np.random.default_rng(99)
    drawn = values[rng.integers(0, len(values), (resamples, size))]
    with np.errstate(divide="ignore"):  # a resample without spread
        t = (drawn.mean(1) - values.mean()) / (drawn.std(1, ddof=1) / np.sqrt(size))
    return np.quantile(np.abs(t), 0.95) * values.std(ddof=1) / np.sqrt(len(values))


def test_interval_equals_a_plain_studentised_bootstrap(skewed):
    found = mean_interval(skewed, resamples=100_000)
    assert found.estimate == pytest.approx(skewed.mean())
    half = found.high - found.estimate
    assert found.estimate - found.low == pytest.approx(half)
    # sampling error of a 95 % quantile of 100,000 |t|, twice: 1 %
    assert half == pytest.approx(plain_half_width(skewed, 100_000, 20), rel=0.03)
    assert half > 1.04 * plain_half_width(skewed, 100_000, 40)  # full-sized ones are narrower
    assert (found.n, found.confidence, found.status) == (40, 0.95, "ok")


def test_many_normal_values_give_the_t_interval():
    values = np.random.default_rng(0).normal(size=2000)
    found = mean_interval(values, resamples=20_000)
    expected = scipy_stats.ttest_1samp(values, 0).confidence_interval(0.95)
    width = expected.high - expected.low
    np.testing.assert_allclose((found.low, found.high), expected, atol=0.02 * width)


def test_shift_and_scale_carry_over(skewed):
    one, other = mean_interval(skewed), mean_interval(3 * skewed + 2)
    np.testing.assert_allclose([other.low, other.high], [3 * one.low + 2, 3 * one.high + 2])


def test_more_confidence_is_wider_and_a_seed_fixes_all(skewed):
    assert mean_interval(skewed) == mean_interval(skewed)
    assert mean_interval(skewed, seed=1) != mean_interval(skewed)
    narrow, wide = (mean_interval(skewed, confidence=c) for c in (0.8, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high


def same(interval, other) -> None:
    """rtol 1e-9: products of other shapes round otherwise."""
    ends = [(one.estimate, one.low, one.high) for one in (interval, other)]
    np.testing.assert_allclose(ends[0], ends[1], rtol=1e-9, atol=1e-12)


def test_cells_together_equal_cells_alone_and_missing_prompts_are_left_out():
    values = np.random.default_rng(1).normal(size=(300, 30))
    values[::3, :4] = np.nan
    values[5] = np.nan
    together = mean_intervals(values)
    for cell in (0, 1, 2, 150, 299):
        known = values[cell][~np.isnan(values[cell])]
        same(together[cell], mean_interval(known))
        assert together[cell].n == len(known)
    assert together[5].n == 0
    assert np.isnan(together[5].estimate)


@pytest.mark.parametrize("value", [0.0, np.log(1.25), 1e3])
@pytest.mark.parametrize("jitter", [0.0, 1e-16])
@pytest.mark.fault(
    "equal values, whose standard error of 0 would read as certainty",
    "caveat: no interval, with the reason",
)
def test_constant_values_have_no_interval(value, jitter):
    """A standard error of 0 would read as certainty."""
    values = value + jitter * np.arange(32)
    for found in (mean_interval(values), seed_interval(values[:3])):
        assert found.estimate == pytest.approx(value)
        assert np.isnan([found.low, found.high]).all()
        assert found.status == CONSTANT
        assert not found.known


@pytest.mark.fault("too few distinct values to resample", "caveat: no interval, with the reason")
def test_one_value_among_equals_has_no_interval_and_spread_values_do():
    """Six in ten half-sized resamples have no spread at all, so the tail cannot be seen."""
    values = np.zeros(16)
    values[3] = 1.0
    found = mean_interval(values)
    assert found.status == UNSTABLE
    assert np.isnan(found.low)
    assert mean_interval(np.arange(16.0)).known


@pytest.mark.parametrize("n", [0, 1])
@pytest.mark.fault("fewer than two values", "caveat: no interval, with the reason")
def test_too_few_values_have_no_interval(n):
    values = np.full(n, 0.5)
    for found in (mean_interval(values), seed_interval(values)):
        assert np.isnan([found.low, found.high]).all()
        assert f"{n} " in found.status
        assert np.isnan(found.estimate) == (n == 0)


def test_a_handful_of_prompts_gives_students_t():
    values = np.random.default_rng(2).normal(size=7)
    expected = scipy_stats.ttest_1samp(values, 0).confidence_interval(0.95)
    for found in (mean_interval(values), seed_interval(values)):
        np.testing.assert_allclose((found.low, found.high), expected, rtol=1e-12)
        assert found.method.startswith("Student's t")


def test_many_cells_are_treated_in_blocks_so_that_memory_stays_small():
    """|t| of 128 cells and 20,000 resamples are 20 MB; numpy's quantile takes as much again."""
    values = np.random.default_rng(3).normal(size=(300, 32))
    mean_intervals(values, resamples=200)  # lazy imports out of the way
    tracemalloc.start()
    mean_intervals(values)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6


def test_pairing_removes_what_prompts_share():
    rng = np.random.default_rng(4)
    shared = rng.normal(size=40)
    short, long = (shared + 0.05 * rng.normal(size=40) for _ in range(2))
    long = long + 0.1
    paired = difference_interval(long, short, paired=True)
    unpaired = difference_interval(long, short, paired=False)
    assert paired == mean_interval(long - short)
    assert paired.estimate == pytest.approx(unpaired.estimate)
    assert paired.low > 0
    assert unpaired.low < 0 < unpaired.high
    assert (paired.n, unpaired.n) == (40, 80)


def test_paired_difference_leaves_out_prompts_that_lack_the_class_on_one_side():
    long, short = np.random.default_rng(6).normal(size=(2, 30))
    long[3] = short[7] = np.nan
    assert difference_interval(long, short, paired=True).n == 28
    assert difference_interval(long, short, paired=False).n == 58


def test_unpaired_difference_of_many_values_equals_welch():
    rng = np.random.default_rng(7)
    long, short = rng.normal(size=900), 3 * rng.normal(size=500)
    found = difference_interval(long, short, paired=False, resamples=20_000)
    expected = scipy_stats.ttest_ind(long, short, equal_var=False).confidence_interval(0.95)
    width = expected.high - expected.low
    np.testing.assert_allclose((found.low, found.high), expected, atol=0.02 * width)


def test_unpaired_difference_of_few_values_is_welch():
    long, short = np.random.default_rng(8).normal(size=(2, 9))
    found = difference_interval(long, short[:6], paired=False)
    expected = scipy_stats.ttest_ind(long, short[:6], equal_var=False).confidence_interval(0.95)
    np.testing.assert_allclose((found.low, found.high), expected, rtol=1e-9)


def test_a_difference_that_cannot_be_told_says_so():
    same = np.linspace(0, 1, 20)
    assert difference_interval(same, same, paired=True).status == CONSTANT
    flat = difference_interval(np.full(20, 0.3), np.full(20, 0.1), paired=False)
    assert flat.status == CONSTANT
    assert flat.estimate == pytest.approx(0.2)
    lone = difference_interval(same, same[:1], paired=False)
    assert "at least 2" in lone.status


def test_halves_are_disjoint_and_cover_every_prompt(monkeypatch):
    seen = []

    def record(long, short, **_):
        seen.extend([*long, *short])
        return mean_interval(long)

    monkeypatch.setattr("gainlens.claims.intervals.difference_interval", record)
    halves_interval(np.arange(31.0))
    assert sorted(seen) == list(range(31))


def test_halves_are_resampled_under_the_seed_that_drew_them(skewed):
    order = np.random.default_rng(3).permutation(40)
    sides = skewed[order[::2]], skewed[order[1::2]]
    assert halves_interval(skewed, seed=3) == difference_interval(*sides, paired=False, seed=3)


def test_band_of_one_layer_copied_is_the_band_of_one(skewed):
    """The largest |t| of copies is the |t| of one: no correction where nothing is added."""
    one, many = simultaneous_band(skewed[None]), simultaneous_band(np.stack([skewed] * 5))
    np.testing.assert_allclose([side[0] for side in many], [side[0] for side in one])


def test_band_over_independent_layers_is_wider_than_each_interval():
    values = np.random.default_rng(9).normal(size=(20, 40))
    low, high = simultaneous_band(values)
    for block, found in enumerate(mean_intervals(values)):
        assert low[block] < found.low < found.high < high[block]


@pytest.mark.parametrize("prompts", [5, 40])
def test_band_leaves_out_prompts_and_layers_that_say_nothing(prompts):
    values = np.random.default_rng(10).normal(size=(3, prompts))
    values[1] = 0.25
    values = np.insert(values, 2, np.nan, axis=1)
    low, high = simultaneous_band(values)
    assert np.isnan([low[1], high[1]]).all()
    means = np.nanmean(values, axis=1)
    assert ((low < means) & (means < high))[[0, 2]].all()
    assert np.isnan(simultaneous_band(values[:, :1])).all()


@pytest.mark.parametrize("resamples", [200, 256, 300])
def test_as_many_resamples_are_drawn_as_were_asked_for(resamples):
    """In blocks of 128; every prompt, the first and the last too, has its share of the draws."""
    blocks = list(draw_shares(5, 10, resamples, np.random.default_rng(0)))
    weights = np.concatenate(blocks)
    assert weights.shape == (resamples, 5)
    assert max(map(len, blocks)) == 128
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    np.testing.assert_allclose(weights.mean(axis=0), 0.2, atol=0.03)


def test_a_resample_without_spread_is_infinitely_far_or_in_the_middle():
    found = _studentised(np.array([3.0, -3.0, 0.0, 4.0]), np.array([0.0, 0.0, 0.0, 4.0]))
    assert found.tolist() == [np.inf, -np.inf, 0.0, 2.0]


def test_standardised_values_have_unit_variance(skewed):
    centred, error = _standardise(np.stack([skewed, 1e-9 * skewed]))
    np.testing.assert_allclose(centred.std(axis=1, ddof=1), 1)
    assert error[0] == pytest.approx(skewed.std(ddof=1) / np.sqrt(40))


def test_an_odd_number_of_prompts_resamples_the_smaller_half():
    values = np.random.default_rng(11).exponential(size=13)
    found = mean_interval(values, resamples=100_000)
    half = plain_half_width(values, 100_000, 6)  # 6.5 would be 5 % wider
    assert found.high - found.estimate == pytest.approx(half, rel=0.03)


def test_twelve_prompts_are_enough_to_resample():
    values = np.random.default_rng(12).exponential(size=(2, FEW))
    enough = [
        mean_interval(values[0]),
        difference_interval(*values, paired=True),
        difference_interval(*values, paired=False),
    ]
    few = [
        mean_interval(values[0, 1:]),
        difference_interval(*values[:, 1:], paired=True),
        difference_interval(values[0], values[1, 1:], paired=False),
    ]
    assert [found.method for found in enough] == [
        "symmetric studentised bootstrap over prompts, half-sized resamples",
        "symmetric studentised bootstrap over prompts, half-sized resamples",
        "symmetric studentised bootstrap over prompts, half-sized resamples, "
        "drawn on either side on its own",
    ]
    assert [found.method for found in few] == [
        "Student's t over prompts",
        "Student's t over prompts",
        "Welch's t over prompts",
    ]
    student = scipy_stats.t.interval(0.95, FEW - 1, values[0].mean(), scipy_stats.sem(values[0]))
    assert enough[0].high != pytest.approx(student[1], rel=1e-3)
    welch = scipy_stats.ttest_ind(*values, equal_var=False).confidence_interval(0.95)
    assert enough[2].high != pytest.approx(welch.high, rel=1e-3)


def doubt(found) -> tuple:
    assert np.isnan([found.low, found.high]).all()
    return found.estimate, found.n, found.confidence, found.method, found.status


def test_an_unknown_interval_keeps_all_that_is_known():
    few = "no interval: 1 {}, at least 2 are needed"
    one, flat, lone = np.array([0.5]), np.full(16, 0.5), np.eye(16)[3]
    bootstrap = "symmetric studentised bootstrap over prompts, half-sized resamples"
    assert doubt(mean_interval(one, confidence=0.9)) == (0.5, 1, 0.9, "none", few.format("prompt"))
    assert doubt(seed_interval(one, confidence=0.9)) == (0.5, 1, 0.9, "none", few.format("seed"))
    assert doubt(seed_interval(one, unit="run"))[-1] == few.format("run")
    assert seed_interval(one[:0]).status == "no interval: 0 seeds, at least 2 are needed"
    assert doubt(difference_interval(flat, one, paired=False, confidence=0.9)) == (
        0.5, 1, 0.9, "none", few.format("prompt"),
    )  # fmt: skip
    assert doubt(mean_interval(flat, confidence=0.9)) == (0.5, 16, 0.9, bootstrap, CONSTANT)
    assert doubt(seed_interval(flat, confidence=0.9)) == (
        0.5, 16, 0.9, "Student's t over seeds", CONSTANT,
    )  # fmt: skip
    assert doubt(mean_interval(lone, confidence=0.9)) == (1 / 16, 16, 0.9, bootstrap, UNSTABLE)
    assert doubt(difference_interval(flat, flat[:9] / 2, paired=False, confidence=0.9)) == (
        0.25, 25, 0.9, "Welch's t", CONSTANT,
    )  # fmt: skip


def test_two_values_are_enough_for_students_t():
    pair, other = np.array([0.0, 1.0]), np.array([0.25, 0.5])
    expected = scipy_stats.t.interval(0.9, 1, 0.5, 0.5)
    for found in (mean_interval(pair, confidence=0.9), seed_interval(pair, confidence=0.9)):
        np.testing.assert_allclose((found.low, found.high), expected)
        assert (found.estimate, found.n, found.confidence) == (0.5, 2, 0.9)
    welch = scipy_stats.ttest_ind(pair, other, equal_var=False).confidence_interval(0.95)
    found = difference_interval(pair, other, paired=False)
    np.testing.assert_allclose((found.low, found.high), welch)
    assert not np.isnan(simultaneous_band(pair[None])).any()


@pytest.mark.parametrize(
    "interval",
    [
        mean_interval,
        lambda values, **k: difference_interval(values, values[::-1] ** 2, paired=True, **k),
        lambda values, **k: difference_interval(values, values[3:] ** 2, paired=False, **k),
        halves_interval,
    ],
    ids=["mean", "paired", "unpaired", "halves"],
)
def test_every_interval_answers_to_its_settings(interval, skewed):
    values = skewed[:31]
    default = interval(values)
    assert default == interval(values, confidence=0.95, resamples=20_000, seed=0)
    assert default == interval(values)
    assert default.confidence == 0.95
    assert interval(values, confidence=0.8).confidence == 0.8
    assert interval(values, confidence=0.8).high < default.high
    assert any(interval(values, resamples=count) != default for count in (200, 300, 400))
    assert interval(values, seed=1) != default


def test_more_cells_of_one_kind_than_two_blocks_hold():
    values = np.random.default_rng(13).normal(size=(300, FEW))
    together = mean_intervals(values, resamples=200)
    for cell in (0, 127, 128, 299):
        same(together[cell], mean_interval(values[cell], resamples=200))


def test_unpaired_difference_equals_a_plain_bootstrap_of_either_side():
    rng = np.random.default_rng(2)  # here the sum of the two would have 1.7 times the |t|
    long, short = rng.lognormal(sigma=1.2, size=30), rng.lognormal(sigma=1.2, size=14)
    found = difference_interval(long, short, paired=False, resamples=50_000)

    def resampled(values, size):
        drawn = values[rng.integers(0, len(values), (50_000, size))]
        return drawn.mean(1) - values.mean(), drawn.var(1, ddof=1) / size

    (one, error), (other, other_error) = resampled(long, 15), resampled(short, 7)
    quantile = np.quantile(np.abs(one - other) / np.sqrt(error + other_error), 0.95)
    error = np.sqrt(long.var(ddof=1) / 30 + short.var(ddof=1) / 14)
    assert found.high - found.estimate == pytest.approx(quantile * error, rel=0.02)


def test_an_unpaired_difference_of_small_numbers_is_the_same_in_small(skewed):
    one = difference_interval(skewed, skewed[:20] ** 2, paired=False)
    small = difference_interval(1e-8 * skewed, 1e-8 * skewed[:20] ** 2, paired=False)
    np.testing.assert_allclose([small.low, small.high], [1e-8 * one.low, 1e-8 * one.high])


def test_band_of_few_prompts_is_students_t_under_bonferroni():
    values = np.random.default_rng(15).normal(size=(4, 6))
    low, high = simultaneous_band(values, confidence=0.9)
    half = scipy_stats.t.ppf(1 - 0.1 / 2 / 4, 5) * scipy_stats.sem(values, axis=1)
    np.testing.assert_allclose(high - values.mean(axis=1), half)
    np.testing.assert_allclose(values.mean(axis=1) - low, half)


@pytest.mark.parametrize("prompts", [6, FEW, 40])
def test_band_shifts_and_scales_and_answers_to_its_settings(prompts):
    values = np.random.default_rng(16).exponential(size=(3, prompts))
    band = np.array(simultaneous_band(values))
    np.testing.assert_allclose(simultaneous_band(3 * values + 2), 3 * band + 2)
    named = simultaneous_band(values, confidence=0.95, resamples=20_000, seed=0)
    np.testing.assert_array_equal(named, band)
    resampled = prompts >= FEW
    for setting in ({"resamples": 300}, {"seed": 1}):
        assert resampled == (not np.array_equal(simultaneous_band(values, **setting), band))


def test_band_is_as_wide_as_the_largest_t_of_a_plain_bootstrap():
    values = np.random.default_rng(17).exponential(size=(3, 25))
    drawn = values[:, np.random.default_rng(18).integers(0, 25, (50_000, 25))]
    centre = values.mean(axis=1)
    t = (drawn.mean(-1) - centre[:, None]) / (drawn.std(-1, ddof=1) / 5)
    half = np.quantile(np.abs(t).max(axis=0), 0.95) * scipy_stats.sem(values, axis=1)
    low, high = simultaneous_band(values, resamples=50_000)
    np.testing.assert_allclose(high - centre, half, rtol=0.02)
    np.testing.assert_allclose(centre - low, half, rtol=0.02)


def test_band_of_no_prompt_is_unknown():
    assert np.isnan(simultaneous_band(np.empty((3, 0)))).all()


def test_bands_that_share_draws_are_those_of_each_grid_alone(monkeypatch):
    rng = np.random.default_rng(4)
    grids = [rng.standard_normal((3, n)) for n in (40, 5, 40, 40)]
    grids[2][:, :7] = np.nan  # fewer prompts have the class
    grids[3][1] = 0.5  # a block without spread
    made = []

    def counted(n, *rest):
        made.append(n)
        return draw_shares(n, *rest)

    monkeypatch.setattr("gainlens.claims.intervals._KEPT_DRAWS", 0)
    monkeypatch.setattr("gainlens.claims.intervals.draw_shares", counted)
    together = simultaneous_bands(grids, resamples=500)
    assert sorted(made) == [33, 40], "one set of draws per number of prompts; none for five"
    for grid, band in zip(grids, together, strict=True):
        np.testing.assert_array_equal(band, simultaneous_band(grid, resamples=500))
    assert np.isnan(together[3][0]).tolist() == [False, True, False]
