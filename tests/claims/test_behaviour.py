"""Check what one interval says of a block, and what two signs say of the claim."""

import itertools

import numpy as np
import pytest

from gainlens.claims.behaviour import behaviour_of, is_equivalent, outcome_of, sign_of
from gainlens.core.spec import Rule
from gainlens.core.vocabulary import UNIT_ROUNDOFF
from gainlens.records.interval import Interval

RULE = Rule()


def interval(low: float, high: float, problem=None) -> Interval:
    status = "ok" if problem is None else "why not"
    return Interval((low + high) / 2, low, high, 40, 0.95, "planted", status, problem)


def gain(low: float, high: float, problem=None) -> Interval:
    return interval(float(np.log(low)), float(np.log(high)), problem)


def test_behaviour_by_the_whole_interval():
    assert behaviour_of(interval(0.01, 0.02), 0.0) == "EXPANDS"
    assert behaviour_of(interval(-0.02, -0.01), 0.0) == "CONTRACTS"
    assert behaviour_of(interval(-0.01, 0.02), 0.0) == "FLAT"
    assert behaviour_of(interval(np.nan, np.nan, "constant"), 0.0) is None


@pytest.mark.parametrize("dtype", UNIT_ROUNDOFF)
def test_a_gain_within_the_roundoff_of_its_dtype_is_flat(dtype):
    margin = UNIT_ROUNDOFF[dtype]
    for sign, said in ((1, "EXPANDS"), (-1, "CONTRACTS")):
        within, beyond = (
            interval(*sorted((sign * f * margin, sign * 3 * margin))) for f in (0.9, 1.1)
        )
        assert behaviour_of(within, margin) == "FLAT"
        assert behaviour_of(beyond, margin) == said
    assert UNIT_ROUNDOFF["float32"] < UNIT_ROUNDOFF["float16"] < UNIT_ROUNDOFF["bfloat16"]


def test_an_interval_that_touches_the_margin_does_not_lie_beyond_it():
    margin = float(np.log1p(0.01))
    assert behaviour_of(interval(margin, 1.0), 0.01) == "FLAT"
    assert behaviour_of(interval(-1.0, -margin), 0.01) == "FLAT"
    assert behaviour_of(interval(np.nan, 1.0), 0.01) is None
    assert behaviour_of(interval(-1.0, np.nan), 0.01) is None
    low, high = float(np.log1p(-RULE.equivalence)), float(np.log1p(RULE.equivalence))
    assert is_equivalent(interval(low, high), RULE) is True
    assert is_equivalent(interval(low, 0.2), RULE) is False
    assert is_equivalent(interval(-0.2, high), RULE) is False


@pytest.mark.parametrize(
    ("low", "high", "sign"),
    [
        (1.02, 1.03, "+"),
        (0.97, 0.98, "-"),
        (0.995, 1.005, "0"),
        (1.001, 1.005, "0"),  # above 1, and equal to it within the margin
        (1.005, 1.02, None),  # straddles the margin
        (0.5, 2.0, None),
    ],
)
def test_the_margin_of_one_per_cent_counts(low, high, sign):
    assert sign_of(gain(low, high), RULE) == sign
    assert is_equivalent(gain(low, high), RULE) == (sign == "0")


def test_an_unknown_interval_has_no_sign_and_one_value_goes_by_its_estimate():
    assert sign_of(gain(1.2, 1.3, "too few"), RULE) is None
    assert is_equivalent(gain(1.0, 1.0, "too few"), RULE) is None
    nan = float("nan")
    point = Interval(-0.3, nan, nan, 1, 0.95, "", "one value", "one value")
    assert sign_of(point, RULE) == "-"
    assert sign_of(Interval(0.005, nan, nan, 1, 0.95, "", "one value", "one value"), RULE) == "0"


def test_outcomes_for_every_pair_of_signs():
    levels = {"+": gain(1.2, 1.3), "-": gain(0.7, 0.8), "0": gain(0.999, 1.001), "?": gain(0.5, 2)}
    said = {
        (a, b): outcome_of(levels[a], levels[b], RULE) for a, b in itertools.product(levels, levels)
    }
    assert said.pop(("+", "-")) == "CONFIRMED"
    assert said.pop(("-", "-")) == "REJECTED"
    assert said.pop(("+", "+")) == "UNEXPECTED"
    assert said.pop(("-", "+")) == "INVERTED"
    assert set(said.values()) == {"UNDETERMINED"}
    assert len(said) == 12


def test_two_gains_within_one_per_cent_of_1_confirm_nothing():
    """1.003 [1.001, 1.005] against 0.997 [0.995, 0.999]: both intervals leave out 1."""
    assert outcome_of(gain(1.001, 1.005), gain(0.995, 0.999), RULE) == "UNDETERMINED"
