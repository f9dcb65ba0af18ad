"""The stated rates: the shipped table keeps them, and a smaller measurement agrees with it."""

import csv
from pathlib import Path

import calibration
import numpy as np
import pytest
from calibration import (
    DISTRIBUTIONS,
    EFFECTS,
    HEAVY,
    NULLS,
    SIZES,
    band_coverage,
    coverage,
    false_claims,
    last_block,
    planted_capture,
    power,
    rate_of,
)

from gainlens.claims.intervals import mean_intervals

TABLE = Path(calibration.__file__).parents[1] / "src/gainlens/data" / "calibration.csv"


@pytest.fixture(scope="module")
def table() -> list[dict[str, str]]:
    with TABLE.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def rows(table, check: str) -> list[dict[str, str]]:
    return [row for row in table if row["check"] == check]


def test_shipped_coverage_lies_within_93_to_97_per_cent(table):
    found = rows(table, "coverage")
    assert {(row["case"], int(row["prompts"])) for row in found} >= {
        (case, prompts) for case in DISTRIBUTIONS for prompts in SIZES
    }
    for row in found:
        assert int(row["repeats"]) >= 2000
        assert float(row["rate"]) >= 0.93, row
        assert float(row["rate"]) <= 0.97 or row["case"] in HEAVY, row


def test_shipped_false_claims_stay_at_5_per_cent_within_binomial_error(table):
    found = rows(table, "false claim")
    assert {(row["case"], int(row["prompts"])) for row in found} == {
        (case, prompts) for case in NULLS for prompts in SIZES
    }
    for row in found:
        assert int(row["repeats"]) >= 500
        assert float(row["low"]) <= 0.05, row


def test_shipped_power_grows_with_effect_prompts_and_pairing(table):
    found = {
        (float(row["effect_percent"]), int(row["prompts"]), "paired" in row["case"]): float(
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


def test_a_rate_carries_its_binomial_interval():
    found = rate_of(5, 100, "coverage", "x", 32, "stated")
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
        if (row["case"], int(row["prompts"])) == (measured.case, measured.prompts)
        and float(row["effect_percent"]) == measured.effect_percent
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
@pytest.mark.parametrize("case", [*NULLS])
def test_false_claims_measured_again(table, case):
    assert agrees(false_claims(case, 32, 300, seed=1, share=20), table, "false claim")


@pytest.mark.slow
@pytest.mark.parametrize("effect", EFFECTS)
def test_power_measured_again(table, effect):
    assert agrees(power(effect, 32, 200, paired=True, seed=1, share=20), table, "power")


def test_the_measurement_itself_can_fail(monkeypatch):
    """Intervals half as wide are caught: coverage falls out of 93 to 97 %."""

    def narrow(values, seed):
        found = mean_intervals(values, seed=seed)
        for interval in found:
            half = (interval.high - interval.low) / 4
            object.__setattr__(interval, "low", interval.estimate - half)
            object.__setattr__(interval, "high", interval.estimate + half)
        return found

    monkeypatch.setattr(calibration, "mean_intervals", narrow)
    assert coverage("normal", 32, 300).high < 0.93
