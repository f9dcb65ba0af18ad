"""The stated rates: the shipped table keeps them, and a smaller measurement agrees with it."""

import csv
from itertools import pairwise
from pathlib import Path

import calibration
import numpy as np
import pytest
from calibration import (
    AT_LEAST,
    AT_MOST,
    DISTRIBUTIONS,
    EFFECTS,
    HEAVY,
    MEASURED,
    NULLS,
    SIZES,
    WITHIN,
    band_coverage,
    coverage,
    false_claims,
    last_block,
    planted_capture,
    power,
    rate_of,
)
from contrast_calibration import (
    RULES,
    contrast_coverage,
    contrast_false_claims,
    contrasted,
)
from contrast_worlds import NOISES, UNEQUAL, WORLDS
from contrast_worlds import NULLS as CONTRAST_NULLS

from gainlens.claims.conditions import CLUSTERS, SHAPES
from gainlens.claims.contrasts import contrast_of
from gainlens.claims.intervals import mean_intervals

HEAVY_TAILED = SHAPES[3]
PLAIN = (*SHAPES, UNEQUAL)
MISSES = {
    ("level of each block", SHAPES[2], "32"), ("rank of close blocks", SHAPES[0], "32"),
}  # fmt: skip
"""Rates that miss what is stated: docs/method/calibration.md says why."""
VERDICTS = {"level", "signs", "difference", "trend"}
TABLE = Path(calibration.__file__).parents[1] / "src/gainlens/data" / "calibration.csv"


@pytest.fixture(scope="module")
def table() -> list[dict[str, str]]:
    with TABLE.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def rows(table, check: str, contrast: str | None = "interval") -> list[dict[str, str]]:
    """Rows of one check: of the intervals themselves, of a contrast, or of every contrast."""
    return [
        row
        for row in table
        if row["check"] == check
        and (row["contrast"] == contrast if contrast else row["contrast"] != "interval")
    ]


def test_shipped_coverage_lies_within_93_to_97_per_cent(table):
    found = rows(table, "coverage")
    assert {(row["case"], int(row["n"])) for row in found} >= {
        (case, prompts) for case in DISTRIBUTIONS for prompts in SIZES
    }
    for row in found:
        assert int(row["repeats"]) >= 2000
        if int(row["n"]) >= 32:
            assert float(row["rate"]) >= 0.93, row
            assert float(row["rate"]) <= 0.97 or row["case"] in HEAVY, row


def test_every_contrast_covers_at_32_and_64_prompts_but_for_the_misses_that_the_docs_name(table):
    found = rows(table, "coverage", None)
    assert {row["contrast"] for row in found} == set(WORLDS)
    misses = {(row["contrast"], row["case"], row["n"]) for row in table if row["met"] == "no"}
    assert misses == MISSES
    for row in found:
        assert int(row["repeats"]) >= 2000
        missed = (row["contrast"], row["case"], row["n"]) in MISSES
        if row["unit"] == "prompts" and int(row["n"]) >= 32 and row["case"] in PLAIN and not missed:
            assert float(row["rate"]) >= 0.93, row
            wide = row["case"] == HEAVY_TAILED or row["contrast"].startswith("rank")
            assert float(row["rate"]) <= 0.97 or wide, row
            assert row["met"] == "yes"
    for name, world in WORLDS.items():
        have = {(row["case"], int(row["n"])) for row in found if row["contrast"] == name}
        assert have >= {(case, n) for case in world.shapes for n in world.sizes}


@pytest.mark.parametrize("contrast", ["interval", None])
def test_shipped_false_claims_stay_at_5_per_cent_within_binomial_error(table, contrast):
    found = rows(table, "false claim", contrast)
    cases = {(row["case"], int(row["n"])) for row in found}
    wanted = NULLS if contrast else CONTRAST_NULLS
    assert cases >= {(case, prompts) for case in wanted for prompts in SIZES}
    if contrast is None:
        assert {row["contrast"] for row in found} == set(WORLDS)
    for row in found:
        assert int(row["repeats"]) >= 500
        error = np.sqrt(0.05 * 0.95 / int(row["repeats"]))
        assert float(row["rate"]) <= 0.05 + 2 * error, row
        assert row["met"] == "yes"


def test_shipped_power_grows_with_effect_prompts_and_pairing(table):
    found = {
        (float(row["effect"].split()[0]), int(row["n"]), "paired" in row["case"]): float(
            row["rate"]
        )
        for row in rows(table, "power")
    }
    assert {key[0] for key in found} == set(EFFECTS)
    for small, large in ((2, 5), (5, 10)):
        for prompts in SIZES:
            assert found[small, prompts, True] < found[large, prompts, True]
    for effect in EFFECTS:
        assert found[effect, 32, True] <= found[effect, 64, True]
        assert found[effect, 32, False] < found[effect, 32, True]
    assert found[10, 64, True] > 0.99


@pytest.mark.parametrize("check", ["power", "right outcome", "robust"])
def test_no_rate_falls_with_the_number_of_units(table, check):
    """By more than three binomial standard errors of a difference."""
    found: dict[tuple[str, str], list[dict[str, str]]] = {}
    for row in rows(table, check, None):
        found.setdefault((row["contrast"], row["effect"]), []).append(row)
    wanted = set(WORLDS) if check == "power" else VERDICTS
    assert {contrast for contrast, _ in found} == set(wanted)
    for of_effect in found.values():
        for fewer, more in pairwise(sorted(of_effect, key=lambda row: int(row["n"]))):
            rates = float(fewer["rate"]), float(more["rate"])
            spread = sum(rate * (1 - rate) / int(fewer["repeats"]) for rate in rates)
            assert rates[1] >= rates[0] - 3 * np.sqrt(spread) - 0.01, (fewer, more)


def test_what_was_planted_is_found_in_the_end(table):
    """The largest effect at the largest number of units, of each contrast over prompts."""
    for name in VERDICTS:
        for check in ("right outcome", "robust"):
            last = rows(table, check, name)[-1]
            assert float(last["rate"]) > 0.7, last


# --- a smaller measurement of each contrast


@pytest.mark.parametrize("name", WORLDS)
def test_a_contrast_keeps_its_rates(name):
    """300 repeats: within 3.3 standard errors of what is stated."""
    world = WORLDS[name]
    effect = world.effects[0] if name.startswith("rank") else 0.0
    size = world.sizes[1]
    repeats = 100 if name in ("level of each block", "rank of blocks") else 300
    held = contrast_coverage(name, size, SHAPES[0], repeats, effect)
    assert held.rate >= 0.93 - 3.3 * np.sqrt(0.07 * 0.93 / held.repeats)
    false = contrast_false_claims(name, size, SHAPES[0], repeats)
    assert false.rate <= 0.05 + 3.3 * np.sqrt(0.05 * 0.95 / repeats)


def test_intervals_over_groups_cover_where_those_over_prompts_do_not():
    case = CLUSTERS[0.5]
    assert contrast_coverage("level", 64, case, 300).high < 0.8
    over_groups = contrast_coverage("level", 64, case, 300, unit="groups")
    assert over_groups.low > 0.88
    assert (over_groups.n, over_groups.unit) == (8, "groups")


def test_contrasts_of_several_repeats_are_those_of_each_alone():
    """Means that share their resamples are what the engine computes one by one."""
    for name in ("level", "signs", "difference", "trend", "trend over blocks"):
        world = WORLDS[name]
        rng = np.random.default_rng(3)
        repeats = [world.models(rng, 16, 0.3, NOISES[SHAPES[1]]) for _ in range(3)]
        for found, evidence in zip(
            contrasted(world.claim, repeats, RULES[1]), repeats, strict=True
        ):
            alone = contrast_of(world.claim, evidence, "mean", RULES[1])
            for one, other in zip(found.estimates, alone.estimates, strict=True):
                ends = (one.interval.estimate, one.interval.low, one.interval.high)
                want = (other.interval.estimate, other.interval.low, other.interval.high)
                np.testing.assert_allclose(ends, want, atol=1e-12)
                assert one.clustering == other.clustering


def test_a_rate_that_misses_its_bound_says_so():
    assert rate_of(92, 100, "coverage", "x", 32, WITHIN).met == "no"
    assert rate_of(95, 100, "coverage", "x", 32, WITHIN).met == "yes"
    assert rate_of(98, 100, "coverage", "x", 32, WITHIN).met == "no"
    assert rate_of(98, 100, "coverage", "x", 32, AT_LEAST).met == "yes"
    assert rate_of(9, 100, "false claim", "x", 32, AT_MOST).met == "yes"  # 0.05 + 2 x 0.022
    assert rate_of(10, 100, "false claim", "x", 32, AT_MOST).met == "no"
    assert rate_of(10, 100, "power", "x", 32, MEASURED).met == ""


def test_a_rate_carries_its_binomial_interval():
    found = rate_of(5, 100, "coverage", "x", 32, MEASURED)
    assert (found.rate, found.low, found.high) == (0.05, 0.0164, 0.1128)  # Clopper & Pearson 1934


def test_planted_capture_holds_what_was_planted():
    gains = np.random.default_rng(0).normal(size=30)
    capture = planted_capture(gains, np.random.default_rng(1), first=-0.7, massive=2.0)
    np.testing.assert_allclose(last_block(capture), gains, atol=1e-12)
    start = capture.position < 2
    growth = np.log(capture.column("yy") / capture.column("xx"))[0] / 2
    np.testing.assert_allclose(growth[start], np.tile([-0.7, 2.0], 30), atol=1e-12)
    total = sum(capture.column(name) for name in ("xx", "aa", "mm"))
    total = total + 2 * sum(capture.column(name) for name in ("xa", "xm", "am"))
    np.testing.assert_allclose(total, capture.column("yy"), rtol=1e-12)


def agrees(measured, table, check: str) -> bool:
    """Whether a smaller measurement's 99.9 % binomial interval holds the shipped rate."""
    (row,) = (
        row
        for row in rows(table, check)
        if (row["case"], int(row["n"])) == (measured.case, measured.n)
        and row["effect"] == measured.effect
    )
    shipped = float(row["rate"])
    error = np.sqrt(
        max(shipped * (1 - shipped), 1e-4) * (1 / measured.repeats + 1 / int(row["repeats"]))
    )
    return bool(abs(measured.rate - shipped) < 3.3 * error)


@pytest.mark.slow
@pytest.mark.parametrize("case", [*DISTRIBUTIONS])
def test_coverage_measured_again(table, case):
    measured = coverage(case, 32, 1000, seed=1)
    assert agrees(measured, table, "coverage")


@pytest.mark.slow
def test_band_coverage_measured_again(table):
    assert agrees(band_coverage(32, 400, seed=1, share=20), table, "coverage")


@pytest.mark.slow
@pytest.mark.parametrize("case", [*NULLS][::2])
def test_false_claims_measured_again(table, case):
    assert agrees(false_claims(case, 32, 300, seed=1, share=20), table, "false claim")


@pytest.mark.slow
def test_power_measured_again(table):
    assert agrees(power(EFFECTS[1], 32, 200, paired=True, seed=1, share=20), table, "power")


def test_the_measurement_itself_can_fail(monkeypatch):
    """Intervals half as wide are caught: coverage falls out of 93 to 97 %."""

    def narrow(values, **settings):
        found = mean_intervals(values, **settings)
        for interval in found:
            half = (interval.high - interval.low) / 4
            object.__setattr__(interval, "low", interval.estimate - half)
            object.__setattr__(interval, "high", interval.estimate + half)
        return found

    monkeypatch.setattr(calibration, "mean_intervals", narrow)
    assert coverage("normal", 32, 300).high < 0.93
